"""Text that is shown to people: it has no character that cannot be seen, or that hides or reorders others."""

from unicodedata import category

from api.request.refusals import Misfit

PATTERN = r"^[^\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\u2800\u3164\ufeff\uffa0\ufff9-\ufffb]*$(?!\n)"  # noqa: E501 - one set
"""What a regular expression can say of it, for the OpenAPI document: no text that this refuses is accepted. `$` alone
would let a final newline pass."""

_UNSEEN = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"})
"""Categories (Unicode §4.5): controls, formats (bidirectional ones, tags, soft hyphens), unassigned and private code
points, surrogates, line and paragraph separators."""
_FILLERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
"""Letters, marks and symbols that are blank by definition."""


def check_printable(**fields: object) -> None:
    """Check those of the fields that are text; others are absent.

    Raises:
        Misfit: a field has a character that cannot be seen.

    """
    for name, text in fields.items():
        if isinstance(text, str) and not is_printable(text):
            raise Misfit("Expected only characters that can be seen", f"at `$.{name}`")


def is_printable(text: str) -> bool:
    """Return whether a text has only characters that can be seen."""
    return (text.isascii() and text.isprintable()) or not any(map(_is_unseen, text))


def _is_unseen(character: str) -> bool:
    return category(character) in _UNSEEN or character in _FILLERS

"""The rules of a project for OAuth clients."""

import pytest

from projects.oauth import OAuth, is_audience, is_page_template, is_page_uri, parse_scopes

PAGE = "https://app.example/device"


@pytest.mark.parametrize(
    "uri",
    [
        PAGE,
        "https://app.example",
        "https://app.example:8443/a?b=c",
        "http://127.0.0.1:3000/d",
        "http://[::1]/d",
        "http://localhost:3000/d",
    ],
)
def test_person_can_be_sent_to_https_and_to_this_machine(uri: str) -> None:
    """A page on loopback is a developer's own."""
    assert is_page_uri(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "app.example/device",
        "http://app.example/device",
        "ftp://app.example/",
        "https://",
        "https:///device",
        "https://user@app.example/",
        "https://app.example/#there",
        "https://app.example/#",
        "https://app.example:x/",
        "https://app.example/a b",
        "https://app.example/\n",
        "https://äpp.example/",
        'https://app.example/"x',
        "javascript:alert(1)",
        "https://app.example/" + "a" * 2048,
        "http://localhost.example/",
        "http://10.0.0.1/",
    ],
)
def test_person_is_sent_nowhere_else(uri: str) -> None:
    """No plain http over a network, no scripts, no user, nothing that breaks a line or a link."""
    assert not is_page_uri(uri)


@pytest.mark.parametrize(
    ("template", "good"),
    [
        ("https://app.example/device?code={user_code}", True),
        ("https://app.example/{user_code}", True),
        ("https://app.example/device", False),
        ("https://app.example/{user_code}/{user_code}", False),
        ("https://{user_code}.example/", False),
        ("{user_code}", False),
    ],
)
def test_template_has_the_code_once_behind_the_host(template: str, *, good: bool) -> None:
    """The host is the project's own, whatever the code is."""
    assert is_page_template(template) is good


@pytest.mark.parametrize(
    ("oauth", "uri"),
    [
        (OAuth(verification_uri=PAGE), f"{PAGE}?user_code=WDJB-MJHT-XKQP"),
        (OAuth(verification_uri=f"{PAGE}?lang=en"), f"{PAGE}?lang=en&user_code=WDJB-MJHT-XKQP"),
        (
            OAuth(verification_uri=PAGE, verification_uri_complete=f"{PAGE}/{{user_code}}/ask"),
            f"{PAGE}/WDJB-MJHT-XKQP/ask",
        ),
    ],
)
def test_complete_uri_has_the_code(oauth: OAuth, uri: str) -> None:
    """Without a template it is a parameter of the page."""
    assert oauth.complete_uri("WDJB-MJHT-XKQP") == uri


@pytest.mark.parametrize(
    ("text", "scopes"),
    [
        ("cli", ("cli",)),
        ("cli  repo:read cli", ("cli", "repo:read")),
        ("", None),
        ('say"so', None),
        ("back\\slash", None),
        ("é", None),
        (" ".join(map(str, range(33))), None),
        ("a" * 257, None),
    ],
)
def test_scopes_are_those_of_the_specification(text: str, scopes: tuple[str, ...] | None) -> None:
    """RFC 6749 §3.3."""
    assert parse_scopes(text) == scopes


@pytest.mark.parametrize(
    ("asked", "granted"),
    [
        (None, "cli repo"),
        ("", "cli repo"),
        ("repo", "repo"),
        ("openid offline_access", "cli repo"),
        ("repo openid cli", "cli repo"),
    ],
)
def test_unknown_scopes_are_dropped(asked: str | None, granted: str) -> None:
    """Clients add `openid` unasked; without one that is known, all that the project has are granted."""
    assert OAuth(scopes=("cli", "repo")).granted(asked) == granted


def test_audience_is_short_and_visible() -> None:
    """It goes into every token."""
    assert is_audience("https://api.example")
    assert not is_audience("a b")
    assert not is_audience("a" * 257)

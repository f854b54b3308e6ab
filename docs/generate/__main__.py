"""Write the generated files and parts of the documentation, or with --check print which of them are not current.

A generated part of a file stands between `<!-- NAME -->` and `<!-- end of NAME -->`.
"""

import ast
import inspect
import json
import re
import sys
import typing
from enum import StrEnum
from itertools import pairwise
from pathlib import Path

import msgspec

from docs.generate.event_schemas import asyncapi, json_schema
from docs.generate.reliability import reliability
from runtime.settings import Settings, variable
from statemachine.events import EVENT_TYPES
from statemachine.lifecycle import RULES, Decision, Outcome, Rule, State, Trigger
from statemachine.machine import mermaid
from tokens import lifecycle as families
from tokens import machine as families_machine

ROOT = Path(__file__).resolve().parents[2]


def state_diagram() -> str:
    """Return the diagram of the lifecycle."""
    return f"```mermaid\n{mermaid()}\n```"


def state_table() -> str:
    """Return the lifecycle as a table: the next state in bold, the command's outcome in plain."""
    rows = [["from \\ trigger", *Trigger], ["---"] * (1 + len(Trigger))]
    rows += [[state, *(_cell(RULES[state][trigger]) for trigger in Trigger)] for state in State]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def family_diagram() -> str:
    """Return the diagram of the lifecycle of a family of tokens."""
    return f"```mermaid\n{families_machine.mermaid()}\n```"


def family_table() -> str:
    """Return the lifecycle of a family as a table, a row for each trigger and condition."""
    rows = [["trigger", "condition", *families.State], ["---"] * (2 + len(families.State))]
    rows += [
        [trigger, condition, *(_of_family(families.RULES[state][trigger][condition]) for state in families.State)]
        for trigger, conditions in families.CONDITIONS.items()
        for condition in conditions
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _of_family(decision: families.Decision) -> str:
    return f"**{decision.target}**, {decision.outcome}" if decision.target else decision.outcome


def family_words() -> str:
    """Return what each state, trigger, condition and outcome of a family means, a table each."""
    kinds = (families.State, families.Trigger, families.Condition, families.Outcome)
    return "\n\n".join(_words(members) for members in kinds)


def _cell(rule: Rule) -> str:
    in_time, overdue = _decided(rule.in_time), _decided(rule.overdue)
    return in_time if in_time == overdue else f"{in_time}; after the deadline: {overdue}"


def _decided(decision: Decision) -> str:
    return f"**{decision.target}**" if decision.target else decision.outcome


def lifecycle_words() -> str:
    """Return what each state, trigger and outcome means, a table each."""
    return "\n\n".join(_words(members) for members in (State, Trigger, Outcome))


def _words(members: type[StrEnum]) -> str:
    texts = prose(members)
    rows = [f"| `{member}` | {texts[member.name]} |" for member in members]
    return "\n".join([f"| {members.__name__.lower()} | meaning |", "| --- | --- |", *rows])


def prose(members: type[StrEnum]) -> dict[str, str]:
    """Return the line of prose below each member of an enum, by the member's name."""
    [defined] = ast.parse(inspect.getsource(members)).body
    texts = {}
    for statement, below in pairwise(defined.body if isinstance(defined, ast.ClassDef) else ()):
        match statement, below:
            case ast.Assign(targets=[ast.Name(name)]), ast.Expr(ast.Constant(str(text))):
                texts[name] = " ".join(text.split())
    return texts


def settings_table() -> str:
    """Return the table of all settings."""
    rows = ["| variable | default | meaning |", "| --- | --- | --- |"]
    for field in msgspec.structs.fields(Settings):
        description = typing.get_args(field.type)[-1].description
        default = "" if field.default in (None, "") else f"`{str(field.default).lower()}`"
        rows.append(f"| `{variable(field.name)}` | {default} | {description} |")
    return "\n".join(rows)


def event_table() -> str:
    """Return what the data of each type of event holds, as a table."""
    rows = ["| `type` | happened | `data` |", "| --- | --- | --- |"]
    for data, name in EVENT_TYPES.items():
        fields = []
        for field in msgspec.structs.fields(data):
            is_optional = field.default is not msgspec.NODEFAULT
            fields.append(f"`{field.name}`" + (" (optional)" if is_optional else ""))
        rows.append(f"| `{name}` | {(data.__doc__ or '').splitlines()[0]} | {', '.join(fields)} |")
    return "\n".join(rows)


PARTS = {
    "README.md": {"reliability": reliability, "settings": settings_table},
    "docs/events.md": {"event types": event_table},
    "docs/state-machine.md": {
        "state diagram": state_diagram,
        "state table": state_table,
        "words": lifecycle_words,
        "family diagram": family_diagram,
        "family table": family_table,
        "family words": family_words,
    },
}

FILES = {"docs/events.schema.json": json_schema, "docs/asyncapi.json": asyncapi}


def current(text: str, part: str, content: str) -> str:
    """Return `text` with the content of a generated part in its place."""
    pattern = re.compile(rf"(<!-- {part} -->\n).*?(<!-- end of {part} -->)", re.DOTALL)
    if not pattern.search(text):
        message = f"there is no place for the part {part!r}"
        raise LookupError(message)
    return pattern.sub(lambda found: f"{found[1]}\n{content}\n\n{found[2]}", text)


def main(arguments: list[str]) -> int:
    """Write, or with --check compare; returns 1 if something was not current."""
    texts = {name: json.dumps(content(), indent=2, ensure_ascii=False) + "\n" for name, content in FILES.items()}
    for name, parts in PARTS.items():
        texts[name] = (ROOT / name).read_text()
        for part, content in parts.items():
            texts[name] = current(texts[name], part, content())
    stale = []
    for name, text in texts.items():
        path = ROOT / name
        if not path.exists() or path.read_text() != text:
            stale.append(name)
            if "--check" not in arguments:
                path.write_text(text)
    for name in stale:
        print(f"{name}: {'not current; run `make docs`' if '--check' in arguments else 'written'}")  # noqa: T201 - its output
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

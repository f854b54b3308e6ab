import json
import re
import subprocess
import sys
from typing import Any, get_args

import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from api.openapi import document
from statemachine.events import EVENT_TYPES, Event
from statemachine.lifecycle import State, Trigger
from statemachine.machine import decide
from statemachine.session import Session
from tests.support.named_tests import ROOT, cited_sections, folders, missing_tests, rows, sections, texts

SESSION = "00" * 13


def event(**changes: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever a program may send
    """Return an event as one JSON object."""
    return {
        "specversion": "1.0",
        "id": f"{SESSION}.2",
        "source": "login-relay",
        "type": "session.completed",
        "subject": SESSION,
        "time": "2026-01-01T00:00:00.000Z",
        "version": 2,
        "data": {"project_id": "p"},
        **changes,
    }


def without_version(type_: str, **data: object) -> dict[str, Any]:
    """Return an event without a version, as events about anything but a session have none."""
    made = event(type=type_, id="ab" * 16, data={"project_id": "p", **data})
    del made["version"]
    return made


@pytest.fixture
def schema() -> Draft202012Validator:
    """The schema of the events."""
    text = json.loads((ROOT / "docs/events.schema.json").read_text())
    Draft202012Validator.check_schema(text)
    return Draft202012Validator(text)


def test_generated_documentation_is_current() -> None:
    """The generated pages match the code that they are generated from."""
    done = subprocess.run(
        [sys.executable, "-m", "docs.generate", "--check"], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert (done.stdout, done.returncode) == ("", 0), done.stderr


def test_every_cited_section_exists() -> None:
    """In docs/wire.md or docs/architecture.md; documents that are not in the repository are not cited."""
    exist = {(name, number) for name in ("docs/wire.md", "docs/architecture.md") for number in sections(name)}
    found = list(texts(".py", ".lua", ".md"))
    cited = [(path.name, section) for path, text in found for section in cited_sections(text)]
    assert len(cited) > 10
    assert [(file, section) for file, section in cited if section not in exist] == []
    assert [path.name for path, text in found if re.search(r"\b(WIRE|DESIGN)( section)? \d", text)] == []


def test_every_link_leads_to_a_file() -> None:
    """Links between documents are relative to the document that contains them."""
    dead = [
        (path.name, link)
        for path, text in texts(".md")
        for link in re.findall(r"\]\(([^)#\s]+)", text)
        if "://" not in link and not (path.parent / link).exists()
    ]
    assert dead == []


def test_readme_names_every_folder() -> None:
    """Its table of folders describes each of them."""
    table = (ROOT / "README.md").read_text().partition("| folder | what it is |")[2].partition("\n\n")[0]
    named = set(re.findall(r"^\| `(\w+)/` \|", table, re.MULTILINE))
    assert {folder.name for folder in folders()} <= named


def of_code(state: State, trigger: Trigger, *, overdue: bool) -> str:
    """Return what a trigger does to a session in a state, as the table writes it."""
    target, outcome = decide(Session("00" * 13, "project", state, 1, 0, 0), trigger, 1 if overdue else 0)
    return f"**{target}**" if target else outcome


def test_code_decides_as_the_architecture_says() -> None:
    """Each cell of the table in docs/architecture.md 4: in time, and after the deadline where that differs."""
    text = (ROOT / "docs/architecture.md").read_text()
    table = text.partition("<!-- lifecycle -->")[2].partition("<!-- end of lifecycle -->")[0]
    head, _, *body = [line.strip("| ").split(" | ") for line in table.strip().splitlines()]
    cells = {(row[0], trigger): cell for row in body for trigger, cell in zip(head[1:], row[1:], strict=True)}
    for state in State:
        for trigger in Trigger:
            in_time, _, after = cells[state, trigger].partition("; after the deadline: ")
            decided = [of_code(state, trigger, overdue=overdue) for overdue in (False, True)]
            assert decided == [in_time, after or in_time], (state, trigger)


def test_wire_describes_every_error() -> None:
    """The known errors with their status, and each text of an answer, word for word."""
    wire = (ROOT / "docs/wire.md").read_text()
    described = dict(re.findall(r"^\| `([A-Z_]+)` \| (\d+) \|", wire, re.MULTILINE))
    known, plain = set(), set()
    operations = [operation for path in json.loads(document())["paths"].values() for operation in path.values()]
    for status, answer in [answer for operation in operations for answer in operation["responses"].items()]:
        if not status.startswith("2"):
            known |= {(code, status) for code in re.findall(r'/schemas/([A-Z_]+)"', json.dumps(answer))}
            plain |= set(answer["content"].get("text/plain", {"schema": {"enum": []}})["schema"]["enum"])
    assert len(known) > 10
    assert known <= described.items()
    assert {text for text in plain if f"`{text}`" not in wire} == set()


def test_every_fault_has_its_test() -> None:
    """Each row of the list of faults names a test, and all named tests exist."""
    text = (ROOT / "docs/faults.md").read_text()
    faults = rows(text)
    assert len(faults) > 30
    assert [row for row in faults if "::test_" not in row.split("|")[-2]] == []
    assert missing_tests(text) == []


def test_published_runs_are_long_and_found_nothing() -> None:
    """The README's figures, once it has any, come from at least 300 s and three seeds."""
    runs = [json.loads(path.read_text()) for path in (ROOT / "docs/reliability").glob("*.json")]
    assert not runs or len({run["seed"] for run in runs}) >= 3
    for run in runs:
        assert run["seconds"] >= 300
        assert (run["lost"], run["doubled"], run["stuck"]) == ([], [], [])
        assert all(recovery["within_limit"] for recovery in run["recoveries"].values())


def test_every_type_of_event_is_described_for_machines() -> None:
    """In the schema and, with the same fields, in the AsyncAPI document."""
    types = set(EVENT_TYPES.values())
    assert len(types) == len(get_args(Event))
    of_json = json.loads((ROOT / "docs/events.schema.json").read_text())
    of_streams = json.loads((ROOT / "docs/asyncapi.json").read_text())
    assert {one["$ref"].removeprefix("#/$defs/") for one in of_json["oneOf"]} == types
    assert of_streams["channels"]["events"]["messages"].keys() == of_streams["components"]["messages"].keys() == types
    of_each = [
        of_json["$defs"]["CloudEvent"]["properties"].keys(),
        of_json["$defs"]["Entry"]["properties"].keys(),
        {*of_streams["components"]["schemas"]["Attributes"]["properties"], "data"},
    ]
    assert (
        of_each == [{*["specversion", "id", "source", "type", "subject", "time", "version", "projectid", "data"]}] * 3
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"data": {"project_id": "p", "login_subject": "ada", "minted_token_sha256": "ab" * 32}},
        {"type": "session.expired", "data": {"project_id": "p", "state": "pending"}},
        {"type": "session.denied", "data": {"project_id": "p", "reason": "not_me", "state": "pending"}},
        {"type": "session.initiated", "data": {"project_id": "p", "expires_in_millis": 1_000, "client": {}}},
        {"traceparent": "a field of a later version", "data": {"project_id": "p", "more": 1}},
    ],
)
def test_schema_accepts_events(schema: Draft202012Validator, changes: dict[str, Any]) -> None:
    """Events of each type, and events with fields that a later version adds."""
    schema.validate(event(**changes))


def test_only_events_of_a_sessions_life_have_a_version(schema: Draft202012Validator) -> None:
    """Events of a session must have one; others need not."""
    schema.validate(without_version("audit.poll_throttled", address="192.0.2.1"))
    with pytest.raises(ValidationError):
        schema.validate(without_version("session.completed"))


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "session.melted"},
        {"type": "session.expired"},
        {"type": "session.denied", "data": {"project_id": "p", "reason": "melted", "state": "pending"}},
        {"version": 0},
        {"version": "2"},
        {"version": None},
        {"subject": "somebody"},
        {"time": "yesterday"},
        {"data": {}},
        {"data": {"project_id": "p", "minted_token_sha256": "lrt_token"}},
        {"data": '{"project_id":"p"}'},
    ],
)
def test_schema_refuses_what_is_no_event(schema: Draft202012Validator, changes: dict[str, Any]) -> None:
    """The schema does not accept just anything."""
    with pytest.raises(ValidationError):
        schema.validate(event(**changes))

import json
import subprocess
import sys
from typing import Any, get_args

import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from statemachine.events import EVENT_TYPES, Event
from tests.support.named_tests import ROOT, missing_tests, rows

SESSION = "00" * 13


def event(**changes: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever a program may send
    """An event as one JSON object."""
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
    """An event that is not of a session's life."""
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
    """What is generated from the code says what the code says."""
    done = subprocess.run(
        [sys.executable, ROOT / "docs/generate.py", "--check"], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert (done.stdout, done.returncode) == ("", 0), done.stderr


def test_every_fault_has_its_test() -> None:
    """Each row of the list of faults names one, and all of them exist."""
    text = (ROOT / "docs/faults.md").read_text()
    faults = rows(text)
    assert len(faults) > 30
    assert [row for row in faults if "::test_" not in row.split("|")[-2]] == []
    assert missing_tests(text) == []


def test_published_runs_are_long_and_found_nothing() -> None:
    """The README's figures are of 300 s and three seeds at least, once there are any."""
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
    assert of_each == [{*["specversion", "id", "source", "type", "subject", "time", "version", "data"]}] * 3


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"data": {"project_id": "p", "login_subject": "ada", "minted_token_sha256": "ab" * 32}},
        {"type": "session.expired", "data": {"project_id": "p", "state": "pending"}},
        {"type": "session.initiated", "data": {"project_id": "p", "expires_in_millis": 1_000, "client": {}}},
        {"traceparent": "a field of a later version", "data": {"project_id": "p", "more": 1}},
    ],
)
def test_schema_accepts_events(schema: Draft202012Validator, changes: dict[str, Any]) -> None:
    """Those of each type, and those with fields that are added later."""
    schema.validate(event(**changes))


def test_only_events_of_a_sessions_life_have_a_version(schema: Draft202012Validator) -> None:
    """They must; others need not."""
    schema.validate(without_version("audit.poll_throttled", address="192.0.2.1"))
    with pytest.raises(ValidationError):
        schema.validate(without_version("session.completed"))


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "session.melted"},
        {"type": "session.expired"},
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
    """It is not a schema that anything fits."""
    with pytest.raises(ValidationError):
        schema.validate(event(**changes))

"""A running service tested against its own OpenAPI document, for a while: `make fuzz`."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.oauth_services import enter_oauth_wire, oauth_settings
from tests.support.oauth_wire import DEVICE_AUTHORIZATION, INTROSPECT, REVOKE, TOKEN, OAuthWire
from tests.support.redis_server import RedisServer
from tests.support.services import services

SECONDS = int(os.environ.get("FUZZ_SECONDS", "60"))
SEED = os.environ.get("FUZZ_SEED")
BUDGETS = (
    *("wrong_codes_per_address", "wrong_codes_per_key", "wrong_codes_per_project"),
    *("initiations_per_address", "initiations_per_project", "live_sessions_per_project"),
    "live_sessions_per_address",
)

FORMS = (DEVICE_AUTHORIZATION, TOKEN, REVOKE, INTROSPECT)
"""A run in which these answer only 401 has tried no more than who may use them."""


def statuses_of(output: str, path: str) -> set[int]:
    """Return with which statuses requests to a path were answered, as the log says."""
    lines = (json.loads(line) for line in output.splitlines() if line.startswith("{"))
    return {line["status"] for line in lines if line.get("route") == path}


def given_to(wire: OAuthWire) -> dict[str, str]:
    """Return what the hooks put into forms, so that they are not all refused for their client: variables."""
    login = wire.backend.initiate()
    wire.approve({"user_code": login.login_code})
    polled = wire.backend.post(
        "/auth/cli/poll", headers=wire.backend.client_headers, json={"polling_code": login.polling_code}
    )
    return {
        "FUZZ_CLIENT_ID": wire.project.project_id,
        "FUZZ_CLIENT_KEY": wire.project.publishable_client_key,
        "FUZZ_SERVER_KEY": wire.project.secret_server_key,
        "FUZZ_DEVICE_CODE": wire.start()["device_code"],
        # Of the interface whose tokens do not rotate: it is good all the time.
        "FUZZ_REFRESH_TOKEN": polled.json()["refresh_token"],
    }


@pytest.mark.fuzz
@pytest.mark.timeout(SECONDS + 120)
def test_every_answer_is_one_that_the_document_describes(
    redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Requests that fit the document and requests that do not, alone and one after the other: all checks hold."""
    folder = tmp_path_factory.mktemp("schemathesis")
    with services(redis_server, tmp_path_factory) as start_service:
        # This run consists of guesses and logins; with the default budgets it would only get 429.
        service = start_service(
            long_poll_max_s=1,
            hold_token_requests_s=0,
            **dict.fromkeys(BUDGETS, 10**6),
            **oauth_settings(tmp_path_factory.mktemp("keys")),
        )
        with contextlib.ExitStack() as stack:
            wire = enter_oauth_wire(stack, service)
            project, given = wire.project, given_to(wire)
        # All keys, so that every access type that is named has its own.
        headers = project.client_headers | project.server_headers
        headers["x-stack-super-secret-admin-key"] = project.super_secret_admin_key
        arguments = [word for name, value in headers.items() for word in ("--header", f"{name}: {value}")]
        if SEED:
            arguments += ["--seed", SEED]
        done = subprocess.run(
            (
                *(str(Path(sys.executable).with_name("schemathesis")), "run", f"{service.url}/schema"),
                *("--checks", "all", "--max-time", str(SECONDS), "--no-color", "--request-timeout", "20"),
                # Generated keys would be the strongest and make every answer a 401; `test_headers.py` tests those.
                *("--generation-with-security-parameters", "false"),
                # The event stream never ends; `test_event_stream.py` tests its answers.
                *("--exclude-operation-id", "events", "--generation-database", "none"),
                *arguments,
            ),
            env={**os.environ, "SCHEMATHESIS_HOOKS": "tests.fuzz.accepted", **given, "PYTHONPATH": str(Path.cwd())},
            cwd=folder,
            check=False,
            text=True,
            capture_output=True,
        )
        assert all(process.is_running for process in service.processes), service.output
        reached = {path: statuses_of(service.output, path) for path in FORMS}
    print(done.stdout)  # noqa: T201 - the seed, and how much was tried
    assert all(statuses & {200, 400} for statuses in (reached[DEVICE_AUTHORIZATION], reached[TOKEN])), reached
    assert done.returncode == 0, done.stdout + done.stderr
    assert "traceback" not in service.output.lower()

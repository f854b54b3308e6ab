import json

from statemachine.session import ClientFacts
from tests.support.operate import RFC_3339, Operate, refused, shown
from tests.support.relay import PROJECT, Relay


async def test_session_is_shown_without_its_secrets(operate: Operate, relay: Relay) -> None:
    """State, version, times and the client's facts; no code, digest, key or token."""
    initiated = await relay.initiations.initiate(PROJECT, ClientFacts("tool"), 60_000, address="192.0.2.1")
    pending = shown(await operate("sessions", "show", initiated.session_id, "--json"))
    assert (pending["state"], pending["version"], pending["completed_at"]) == ("pending", 1, None)
    await relay.complete(initiated.session_id)
    await relay.work()
    completed = shown(await operate("sessions", "show", initiated.session_id, "--json"))
    assert (completed["state"], completed["version"], completed["project_id"]) == ("completed", 2, PROJECT)
    assert (completed["client_name"], completed["address"]) == ("tool", "192.0.2.1")
    times = [completed[name] for name in ("created_at", "completed_at", "expires_at", "deadline", "forgotten_at")]
    assert all(RFC_3339.fullmatch(time) for time in times)
    assert times == sorted(times)
    text = (await operate("sessions", "show", initiated.session_id)).stdout
    assert "completed" in text
    key = relay.keys.session(initiated.session_id)
    digest: bytes = await relay.redis.execute_command("HGET", key, "polling_digest")
    for output in (text, json.dumps(completed)):
        assert initiated.polling_code not in output
        assert initiated.login_code not in output
        assert digest.hex() not in output


async def test_session_that_is_not_there_is_refused(operate: Operate, relay: Relay) -> None:
    """An unknown id is exit code 1. A malformed one is exit code 2 and is not repeated: it may be a polling code."""
    assert "no session" in refused(await operate("sessions", "show", "00" + 24 * "a"), 1)
    polling_code = (await relay.initiate()).polling_code
    assert polling_code not in refused(await operate("sessions", "show", polling_code), 2)
    assert polling_code not in refused(await operate("events", "--session", polling_code), 2)
    refused(await operate("sessions", "show", "01" + 24 * "a"), 2)  # of a partition that does not exist

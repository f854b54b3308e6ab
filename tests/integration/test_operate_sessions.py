import json

import pytest
from redis.asyncio import Redis

from projects.store import Projects
from runtime.redis.keys import Keys
from runtime.settings import variable
from statemachine.lifecycle import State
from statemachine.session import ClientFacts
from tests.support.eventually import wait_until
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


IPV4, IPV6, SAME_NETWORK = "192.0.2.1", "2001:db8::1", "2001:db8::ffff"


async def started(relay: Relay, project_id: str, *addresses: str) -> list[str]:
    """Start a session from each address; returns their ids."""
    initiate = relay.initiations.initiate
    return [(await initiate(project_id, ClientFacts(), 600_000, address=address)).session_id for address in addresses]


@pytest.mark.usefixtures("worker")
async def test_pending_sessions_of_a_project_are_ended(
    operate: Operate, relay: Relay, projects: Projects, redis: Redis, keys: Keys
) -> None:
    """With their event, and room for others at once; what is completed, and what another project has, goes on."""
    ids = {name: (await projects.create(name, allow_client_complete=False))[0] for name in ("acme", "other")}
    pending = await started(relay, ids["acme"], IPV4, IPV6, IPV4)
    [completed] = await started(relay, ids["acme"], IPV4)
    [elsewhere] = await started(relay, ids["other"], IPV4)
    await relay.complete(completed)
    await wait_until_completed(relay, completed)
    ended = await operate("sessions", "expire", "--project", "acme", "--yes")
    assert "Expired 3 sessions of the project 'acme'" in ended.stdout
    assert await relay.states(pending) == {State.EXPIRED}
    assert await relay.facts(pending[0]) == [("session.initiated", 1), ("session.expired", 2)]
    assert (await relay.session(completed)).state is State.COMPLETED
    assert (await relay.session(elsewhere)).state is State.PENDING
    assert await redis.execute_command("ZRANGE", keys.live_sessions(0, ids["acme"]), 0, -1) == [completed.encode()]
    again = await operate("sessions", "expire", "--project", ids["acme"])  # nothing to ask about
    assert "Expired 0 sessions of the project 'acme'" in again.stdout


@pytest.mark.usefixtures("worker")
async def test_pending_sessions_of_an_address_are_ended(operate: Operate, relay: Relay, projects: Projects) -> None:
    """An IPv6 address stands for its network, as in the budgets."""
    id_, _ = await projects.create("acme", allow_client_complete=False)
    v4, v6, v6_too = await started(relay, id_, IPV4, IPV6, SAME_NETWORK)
    await operate("sessions", "expire", "--project", "acme", "--address", "2001:db8:0::7", "--yes")
    assert await relay.states([v6, v6_too]) == {State.EXPIRED}
    assert (await relay.session(v4)).state is State.PENDING
    refused(await operate("sessions", "expire", "--project", "acme", "--address", "all"), 2)


async def test_nothing_is_ended_without_a_yes(operate: Operate, relay: Relay, projects: Projects) -> None:
    """The question says how many of what; no is no."""
    id_, _ = await projects.create("acme", allow_client_complete=False)
    ids = await started(relay, id_, IPV4, IPV4)
    answered = await operate("sessions", "expire", "--project", "acme", text="n\n")
    assert answered.exit_code != 0
    assert "End 2 pending sessions of the project 'acme'" in answered.stderr
    assert await relay.states(ids) == {State.PENDING}
    assert await relay.backlog() == 0
    assert "no project has the name" in refused(await operate("sessions", "expire", "--project", "none"), 1)


async def test_operator_hears_that_no_worker_runs(operate: Operate, relay: Relay, projects: Projects) -> None:
    """The commands stay recorded, and the exit code says that not all is done."""
    id_, _ = await projects.create("acme", allow_client_complete=False)
    ids = await started(relay, id_, IPV4, IPV4)
    quick = {variable("outcome_wait_ms"): "2600"}
    result = await operate("sessions", "expire", "--project", "acme", "--yes", **quick)
    assert result.exit_code == 1
    assert "Expired 0 sessions" in result.stdout
    assert "2 not decided in time" in result.stderr
    await relay.work()
    assert await relay.states(ids) == {State.EXPIRED}


async def wait_until_completed(relay: Relay, session_id: str) -> None:
    """Return when a worker has completed a session."""

    async def is_completed() -> bool:
        return (await relay.session(session_id)).state is State.COMPLETED

    await wait_until(is_completed)

import asyncio
import re
from signal import Signals
from typing import get_args

from statemachine.commands import Command
from tests.support.eventually import wait_until
from tests.support.logins import CLI, Caller
from tests.support.redis_server import RedisServer, free_port
from tests.support.scraping import counted, counters, get, metrics_url, scrape, value
from tests.support.services import Service, StartService
from tokens.commands import FamilyCommand


async def test_a_login_is_counted_at_every_step(start_service: StartService) -> None:
    """Requests by route and real status, polls by their answer, the login with its times, nothing twice."""
    service = start_service()
    caller = Caller(service)
    logins = [caller.initiate() for _ in range(3)]
    for started in logins:
        assert caller.poll(started).status_code == 200
        assert caller.complete(started).status_code == 200
        assert caller.poll(started).status_code == 201
    assert caller.poll(logins[0]).json() == {"status": "used"}
    wrong = {"polling_code": "wrong"}
    assert caller.poll(wrong, **{"x-stack-override-error-status": "true"}).status_code == 200

    requests = "http_request_duration_seconds_count"
    api = await counted(service.apis[0], requests, 1, route=f"{CLI}/poll", status="400")
    assert value(api, requests, route=CLI, status="200") == 3
    assert value(api, requests, route=f"{CLI}/complete", status="200") == 3
    assert value(api, requests, route=f"{CLI}/poll", status="200") == 4
    assert value(api, requests, route=f"{CLI}/poll", status="201") == 3
    assert value(api, "initiated_total") == 3
    assert value(api, "polls_total", outcome="waiting") == 3
    assert value(api, "polls_total", outcome="success") == 3
    assert value(api, "polls_total", outcome="used") == 1
    assert value(api, "outcome_wait_seconds_count", command="CompleteSession") == 3
    assert value(api, "outcome_wait_seconds_count", command="ConsumeSession") == 3
    assert value(api, "outcome_timeouts_total") == 0

    worker = await scrape(service.workers[0])
    assert value(worker, "commands_total", command="CompleteSession", outcome="completed") == 3
    assert value(worker, "commands_total", command="ConsumeSession", outcome="consumed") == 3
    assert value(worker, "transitions_total", source="pending", target="completed") == 3
    assert value(worker, "logins_total", outcome="consumed") == 3
    assert value(worker, "initiate_to_complete_seconds_count") == 3
    assert value(worker, "complete_to_consume_seconds_count") == 3
    assert 0 < value(worker, "initiate_to_complete_seconds_sum") < 30
    assert value(worker, "conflicts_total") == value(worker, "redeliveries_total") == 0


async def test_counters_of_all_commands_are_there_from_the_start(start_service: StartService) -> None:
    """So that the first time-out of each is an increase; also those for families of tokens."""
    service = start_service(workers=0)
    api = await scrape(service.apis[0])
    told = {dict(labels).get("command") for name, labels in api if name.endswith("outcome_timeouts_total")}
    assert told == {kind.__name__ for kind in get_args(Command | FamilyCommand)} - {"ExpireSession"}


async def test_expiries_are_counted_by_the_state_they_ended(start_service: StartService) -> None:
    """A login that nobody completed, and one whose token nobody picked up."""
    service = start_service(pickup_window_ms=1_000, sweep_period_ms=50)
    caller = Caller(service)
    caller.initiate(1_000)
    assert caller.complete(caller.initiate(1_000)).status_code == 200
    worker = await counted(service.workers[0], "logins_total", 2, outcome="expired")
    assert value(worker, "expiries_total", state="pending") == 1
    assert value(worker, "expiries_total", state="completed") == 1


async def test_processes_of_one_api_are_added_up(start_service: StartService) -> None:
    """With `--workers 3` the numbers are those of all three, whichever of them answers."""
    service = start_service(apis=0)
    process = service.start_api("--workers", "3")
    service.wait_until_ready()
    caller = Caller(service)
    started = caller.initiate()
    for _ in range(60):
        assert caller.poll(started).status_code == 200
    await counted(process, "polls_total", 60, outcome="waiting")
    folder, shares = counters(process)
    assert sum(shares) == 60
    assert sum(share > 0 for share in shares) > 1, "one process answered everything: nothing was added up"
    process.send(Signals.SIGTERM)
    assert process.wait() == 0
    assert not folder.exists()


async def test_a_killed_process_leaves_nothing_for_long(start_service: StartService) -> None:
    """The next process that starts removes its files, and keeps those that are in use."""
    service = start_service(apis=2, workers=0)
    killed, living = (counters(process)[0] for process in service.apis)
    service.apis[0].send_to_group(Signals.SIGKILL)
    service.apis[0].wait()
    assert killed.exists()
    service.start_api()
    await wait_until(lambda: not killed.exists(), within=20)
    assert living.exists()


async def test_the_backlog_is_told_when_no_worker_runs(start_service: StartService) -> None:
    """It matters most then: the API exports it too, with the age of the oldest command."""
    service = start_service(workers=0, outcome_wait_ms=1_000, min_idle_ms=400, reclaim_period_ms=100)
    caller = Caller(service)
    assert caller.complete(caller.initiate()).status_code == 503
    api = await counted(service.apis[0], "outcome_timeouts_total", 1, command="CompleteSession")
    assert value(api, "redis_up") == 1
    assert value(api, "backlog_entries", partition="0") == 1
    assert value(api, "oldest_unread_seconds", partition="0") >= 1
    assert value(api, "pending_entries") == 0


async def test_redeliveries_and_dead_letters_are_counted(
    redis_server: RedisServer, start_service: StartService
) -> None:
    """An entry that no worker can decide is taken over, and moved at its second delivery."""
    service = start_service(max_deliveries=2, min_idle_ms=100, reclaim_period_ms=50)
    with redis_server.client() as redis:
        redis.xadd(service.keys.commands(0), {"command": b"{"})
    worker = await counted(service.workers[0], "dead_letters_total", 1)
    assert value(worker, "redeliveries_total") == 1
    assert value(worker, "dead_letter_entries", partition="0") == 1


async def test_an_outcome_without_its_message_counts_as_a_fallback(
    redis_server: RedisServer, start_service: StartService
) -> None:
    """Without a worker no message is published; the test writes the outcome's key, and the API looks it up."""
    service = start_service(workers=0)
    caller = Caller(service)
    started = caller.initiate()
    with redis_server.client() as redis:

        async def written() -> bool:
            # The request waits in a thread of the test's own; its outcome's key appears when it is recorded.
            names = list(redis.scan_iter(f"{service.settings.prefix}:*:outcome:*"))
            return bool(names) and bool(redis.set(names[0], "completed", keepttl=True))

        answer = asyncio.create_task(asyncio.to_thread(caller.complete, started))
        await wait_until(written)
        assert (await answer).status_code == 200
    api = await counted(service.apis[0], "hint_fallbacks_total", 1, waiting_for="outcome")
    assert value(api, "waiters", waiting_for="outcome") == 0


async def test_waiters_are_those_of_now(start_service: StartService) -> None:
    """A held poll counts as long as it is held."""
    service = start_service()
    caller = Caller(service)
    started = caller.initiate()
    poll = asyncio.create_task(asyncio.to_thread(caller.poll, started, prefer="wait=20"))
    await counted(service.apis[0], "waiters", 1, waiting_for="change")
    assert caller.complete(started).status_code == 200
    assert (await poll).status_code == 201
    await counted(service.apis[0], "waiters", 0, waiting_for="change")


async def test_reconnects_are_counted_with_their_reason(redis_server: RedisServer, start_service: StartService) -> None:
    """Both sides count a connection that was cut."""
    service = start_service()
    with redis_server.client() as redis:
        for client in redis.client_list():
            if client["name"] in {"login-relay:api-subscriber", "login-relay:worker-reader"}:
                redis.client_kill_filter(client["id"])
    reason = {"reason": "ConnectionError"}
    await counted(service.apis[0], "reconnects_total", 1, loop="subscriber", **reason)
    await counted(service.workers[0], "reconnects_total", 1, loop="consumer", **reason)


async def test_metrics_are_not_on_the_port_that_faces_the_internet(service: Service) -> None:
    """The API's own port has none; those of all processes are on loopback unless the settings differ."""
    assert (await get(f"{service.url}/metrics")).status_code == 404
    for process in service.processes:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/metrics", await metrics_url(process))
    url = await metrics_url(service.apis[0])
    assert (await get(url.removesuffix("/metrics"))).status_code == 404


def test_a_named_port_that_is_taken_ends_the_process(start_service: StartService) -> None:
    """Exit code 2 and one line that names the setting: an operator who named the port scrapes it."""
    port = free_port()
    service = start_service(metrics_port=port, workers=0)
    for second in (service.start_worker(), service.start_api()):
        assert second.wait() == 2
        assert "LOGIN_RELAY_METRICS_PORT" in second.output.splitlines()[-1]
        assert "Traceback" not in second.output


def test_without_metrics_nothing_listens(start_service: StartService) -> None:
    """Port 0 switches them off; the process works all the same."""
    service = start_service(metrics_port=0)
    caller = Caller(service)
    started = caller.initiate()
    assert caller.complete(started).status_code == 200
    assert "/metrics" not in service.output

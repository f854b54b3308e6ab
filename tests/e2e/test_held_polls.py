import asyncio
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from signal import Signals
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx
import pytest

from login_relay_client import LoginRequest, Prompt, login_async
from tests.support.eventually import wait_until
from tests.support.held_polls import HOLD, SOON, Answer, Login, Poll, held
from tests.support.scraping import counters, read_samples, scrape, value
from tests.support.services import Process, Service, StartService

pytestmark = pytest.mark.faults

MANY = 400  # so many polls that each of two processes surely gets some


def post(service: Service, path: str, headers: dict[str, str], body: dict[str, str], api: int = 0) -> httpx.Response:
    """Send a request to one of the APIs."""
    return httpx.post(f"{service.urls[api]}/api/v1/auth/cli{path}", headers=headers, json=body, trust_env=False)


def initiate(service: Service) -> Login:
    """Start a login."""
    told = post(service, "", service.project.client_headers, {}).raise_for_status().json()
    return Login(told["session_id"], told["login_code"], told["polling_code"])


def complete(service: Service, login: Login, api: int = 0) -> None:
    """Complete it."""
    body = {"login_code": login.login_code, "refresh_token": login.token}
    assert post(service, "/complete", service.project.server_headers, body, api).json() == {"success": True}


async def test_client_that_goes_away_frees_its_waiter_at_once(service: Service) -> None:
    """Its poll is not held any more, and consumes nothing: the token is there for the next poll."""
    login = await asyncio.to_thread(initiate, service)
    polls = [await Poll.send(service.url, service.project, login, prefer=f"wait={HOLD}") for _ in range(3)]
    await held(service.apis[0], 3)
    polls[0].leave()
    await held(service.apis[0], 2)
    polls[1].leave()
    polls[2].leave()
    await held(service.apis[0], 0)
    await asyncio.to_thread(complete, service, login)
    again = await Poll.send(service.url, service.project, login)
    assert (await again.answer()).body == {"status": "success", "refresh_token": login.token}


async def test_two_held_polls_of_one_session_share_no_token(start_service: StartService) -> None:
    """Two processes hold them and are notified at the same moment: one poll gets the token, the other `used`."""
    service = await asyncio.to_thread(start_service, apis=2)
    logins = [await asyncio.to_thread(initiate, service) for _ in range(20)]
    polls = [
        await asyncio.gather(*(Poll.send(url, service.project, login, prefer=f"wait={HOLD}") for url in service.urls))
        for login in logins
    ]
    for process in service.apis:
        await held(process, len(logins))
    for login in logins:
        await asyncio.to_thread(complete, service, login)
    for login, of_login in zip(logins, polls, strict=True):
        answers = await asyncio.gather(*(poll.answer(SOON) for poll in of_login))
        told = sorted((answer.status, answer.body.get("refresh_token", answer.body["status"])) for answer in answers)
        assert told == [(200, "used"), (201, login.token)]


@pytest.fixture(scope="module")
def holding(start_shared: StartService) -> Service:
    """A service that holds polls without being asked to."""
    return start_shared(hold_polls_s=HOLD)


async def test_setting_holds_the_polls_of_existing_clients(holding: Service) -> None:
    """A tool that does not send `Prefer` gets its token at once, and no header that it did not ask for."""
    login = await asyncio.to_thread(initiate, holding)
    poll = await Poll.send(holding.url, holding.project, login)
    await held(holding.apis[0], 1)
    await asyncio.to_thread(complete, holding, login)
    answer = await poll.answer(SOON)
    assert (answer.status, answer.body) == (201, {"status": "success", "refresh_token": login.token})
    assert "preference-applied" not in answer.headers


async def test_poll_that_asks_for_no_wait_is_not_held(holding: Service) -> None:
    """The tool's preference overrides the operator's setting (RFC 7240 §4.3)."""
    login = await asyncio.to_thread(initiate, holding)
    for wait in (0, 1):
        answer = await (await Poll.send(holding.url, holding.project, login, prefer=f"wait={wait}")).answer(SOON)
        assert (answer.status, answer.body) == (200, {"status": "waiting"})
        assert answer.headers["preference-applied"] == f"wait={wait}"


@asynccontextmanager
async def without_prefer(url: str) -> AsyncIterator[str]:
    """Serve an address behind a proxy that drops `Prefer`, as a proxy may that does not know it."""
    address = urlsplit(url)

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, drop: bool) -> None:
        with closing(writer):
            while data := await reader.read(65_536):
                lines = data.split(b"\r\n")
                writer.write(b"\r\n".join(line for line in lines if not (drop and line.startswith(b"prefer:"))))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, requests = await asyncio.open_connection(address.hostname, address.port)
        await asyncio.gather(forward(reader, requests, drop=True), forward(answers, writer, drop=False))

    server = await asyncio.start_server(serve, "127.0.0.1")
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_library_polls_at_intervals_where_prefer_is_not_honoured(start_service: StartService) -> None:
    """It notices that its polls are not held, keeps to the interval, and still gets the token."""
    service = await asyncio.to_thread(start_service, poll_interval_s=1)
    keys = service.project
    prompts: asyncio.Queue[Prompt] = asyncio.Queue()
    async with without_prefer(service.url) as url:
        asked = LoginRequest(
            server=url,
            project_id=keys.project_id,
            publishable_client_key=keys.publishable_client_key,
            expires_in=timedelta(minutes=1),
        )
        login = asyncio.create_task(login_async(asked, prompts.put_nowait))
        prompt = await prompts.get()
        started = asyncio.get_running_loop().time()

        async def waiting() -> float:
            return value(await scrape(service.apis[0]), "polls_total", outcome="waiting")

        async def polled_thrice() -> bool:
            return await waiting() >= 3

        await wait_until(polled_thrice, within=20)
        count = await waiting()
        elapsed = asyncio.get_running_loop().time() - started
        assert count <= elapsed + 1.5  # one at the start, then one a second
        assert elapsed > 1.0
        session = Login(prompt.session_id or "", prompt.login_code, "")
        await asyncio.to_thread(complete, service, session)
        assert (await login).refresh_token == session.token


class Pair(NamedTuple):
    """An API of two processes, and the polls that they hold."""

    service: Service
    api: Process
    logins: list[Login]
    polls: list[Poll]


def shares(api: Process) -> dict[int, float]:
    """Return how many polls each process of an API holds, by its process id."""
    folder, _ = counters(api)
    found = subprocess.run(["pgrep", "-P", str(api.pid)], check=True, capture_output=True, text=True).stdout
    return {
        int(pid): value(read_samples(folder / f"gauge_livesum_{pid}.db"), "waiters", waiting_for="change")
        for pid in found.split()
    }


@pytest.fixture
async def pair(start_service: StartService) -> Pair:
    """Both processes hold some polls."""
    service = await asyncio.to_thread(start_service, apis=0)
    api = service.start_api("--workers", "2")
    await asyncio.to_thread(service.wait_until_ready)
    pair = Pair(service, api, [], [])
    while not pair.polls or (0 in shares(api).values() and len(pair.polls) < MANY):
        for _ in range(20):
            pair.logins.append(await asyncio.to_thread(initiate, service))
            pair.polls.append(await Poll.send(service.url, service.project, pair.logins[-1], prefer=f"wait={HOLD}"))
        await held(api, len(pair.polls))
    return pair


async def test_processes_of_one_api_hold_polls_for_each_other(pair: Pair) -> None:
    """Each poll gets its own token at once, whichever process took it or its completion; SIGHUP changes nothing."""
    serving = shares(pair.api).keys()
    assert len(serving) == 2
    pair.api.send(Signals.SIGHUP)
    for login in pair.logins:
        await asyncio.to_thread(complete, pair.service, login)
    answers = await asyncio.gather(*(poll.answer(SOON) for poll in pair.polls))
    assert [answer.body.get("refresh_token") for answer in answers] == [login.token for login in pair.logins]
    assert shares(pair.api).keys() == serving


async def test_all_processes_of_an_api_answer_before_they_stop(pair: Pair) -> None:
    """After SIGTERM to their parent, no poll is cut off, and none waits for its time."""
    pair.api.send(Signals.SIGTERM)
    answers = await asyncio.gather(*(poll.answer(SOON) for poll in pair.polls))
    assert {(answer.status, answer.body["status"]) for answer in answers} == {(200, "waiting")}
    assert await asyncio.to_thread(pair.api.wait) == 0


async def test_process_that_dies_takes_no_answer_of_the_others_with_it(pair: Pair) -> None:
    """The API ends, so that a supervisor can restart it; only polls that the dead process held are cut off."""
    killed, lost = shares(pair.api).popitem()
    started = asyncio.get_running_loop().time()
    os.kill(killed, Signals.SIGKILL)
    answers = await asyncio.gather(*(poll.answer(SOON) for poll in pair.polls), return_exceptions=True)
    told = [answer.body for answer in answers if isinstance(answer, Answer)]
    assert told == [{"status": "waiting"}] * (len(pair.polls) - int(lost))
    assert not any(isinstance(answer, TimeoutError) for answer in answers)
    assert await asyncio.to_thread(pair.api.wait) == 1
    assert asyncio.get_running_loop().time() - started < SOON

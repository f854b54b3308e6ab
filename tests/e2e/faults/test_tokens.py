"""Refresh tokens over HTTP while answers get lost, and while workers, API processes and Redis are killed."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from signal import SIGCONT, SIGKILL
from typing import Protocol

import httpx
import pytest

from runtime.redis.keys import GROUP
from runtime.settings import variable
from tests.support.eventually import wait_until
from tests.support.oauth_services import OPEN, oauth_settings
from tests.support.oauth_wire import DEVICE_AUTHORIZATION, DEVICE_CODE_GRANT, TOKEN
from tests.support.services import ProjectKeys, create_project
from tests.support.sites import CLIENT_TIMEOUT, OwnSite, StartSite

pytestmark = pytest.mark.faults

ROTATIONS, LOST_SHARE = 300, 0.4
AT_ONCE = 8
LOGINS = 20
ROTATION = b"$7\r\nrotated\r\n"  # in the request that commits a rotation, and in no other of a worker
DICE = random.Random(5)  # noqa: S311 - which answers are lost is no secret


class Tool:
    """An OAuth client of one project at one address, and its backend."""

    def __init__(self, url: str, project: ProjectKeys) -> None:
        self.http = httpx.AsyncClient(base_url=url, trust_env=False, timeout=CLIENT_TIMEOUT)
        self.project = project

    async def logged_in(self) -> str:
        """Log in; returns the first refresh token."""
        client = {"client_id": self.project.project_id}
        started = (await self.http.post(DEVICE_AUTHORIZATION, data=client)).json()
        approved = await self.http.post(
            "/api/v1/auth/cli/complete",
            headers=self.project.server_headers,
            json={"login_code": started["user_code"], "subject": "ada"},
        )
        assert approved.is_success, approved.text
        form = {"grant_type": DEVICE_CODE_GRANT, "device_code": started["device_code"], **client}
        answer = await self.http.post(TOKEN, data=form)
        assert answer.is_success, answer.text
        return str(answer.json()["refresh_token"])

    async def refresh(self, refresh_token: str) -> httpx.Response:
        """Show a refresh token."""
        form = {"grant_type": "refresh_token", "refresh_token": refresh_token, "client_id": self.project.project_id}
        return await self.http.post(TOKEN, data=form)

    async def successor(self, refresh_token: str) -> str:
        """Show a refresh token until it is answered; returns the one that replaces it."""
        answered = await wait_until(lambda: self._answered(refresh_token), within=20)
        assert answered is not None
        assert answered.status_code == httpx.codes.OK, answered.text
        return str(answered.json()["refresh_token"])

    async def _answered(self, refresh_token: str) -> httpx.Response | None:
        try:
            answer = await self.refresh(refresh_token)
        except httpx.TransportError:
            return None
        return None if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE else answer


class StartTool(Protocol):
    """Returns a client of an API of a site: the first, through the proxy, or another."""

    def __call__(self, site: OwnSite, api: int | None = None) -> Awaitable[Tool]:
        """Create a project with it the first time."""


@pytest.fixture
async def tool_of() -> AsyncIterator[StartTool]:
    """All clients of a test are of one project."""
    made: list[ProjectKeys] = []
    async with AsyncExitStack() as stack:

        async def start(site: OwnSite, api: int | None = None) -> Tool:
            if not made:
                made.append(await create_project(site.service.settings, "oauth", oauth=OPEN))
            url = f"http://127.0.0.1:{site.to_api.port}" if api is None else site.service.urls[api]
            tool = Tool(url, made[0])
            await stack.enter_async_context(tool.http)
            return tool

        yield start


StartOAuthSite = Callable[..., Awaitable[OwnSite]]


@pytest.fixture
def start_oauth_site(start_site: StartSite, tmp_path: Path) -> StartOAuthSite:
    """Start a site that lets OAuth clients in; everything else is as given."""
    made = oauth_settings(tmp_path)
    return partial(start_site, keys_file=made["keys_file"], public_url=made["public_url"])


async def family(site: OwnSite, refresh_token: str) -> tuple[str, int, int]:
    """Return the state, the version and the generation of a login."""
    fields: dict[bytes, bytes] = await site.look.execute_command("HGETALL", site.keys.family(refresh_token[4:30]))
    return fields[b"state"].decode(), int(fields[b"version"]), int(fields[b"generation"])


async def backlog(site: OwnSite) -> int:
    """Return how many commands are not decided."""
    return int(await site.look.xlen(site.keys.commands(0)))


async def test_no_number_of_lost_answers_logs_a_tool_out(start_oauth_site: StartOAuthSite, tool_of: StartTool) -> None:
    """Four of ten never arrive, over hundreds of rotations; the tool asks again with what it has."""
    site = await start_oauth_site(through_proxy=False)
    tool = await tool_of(site)
    token = await tool.logged_in()
    lost = 0
    for _ in range(ROTATIONS):
        while DICE.random() < LOST_SHARE:
            site.to_api.cut_replies(1)
            with pytest.raises(httpx.TransportError):
                await tool.refresh(token)
            lost += 1
        token = await tool.successor(token)
    assert lost > ROTATIONS * LOST_SHARE
    assert await family(site, token) == ("active", ROTATIONS + 1, ROTATIONS)


async def test_of_many_at_once_all_get_the_one_successor(start_oauth_site: StartOAuthSite, tool_of: StartTool) -> None:
    """Eight processes of a tool, at two API processes and before two workers."""
    site = await start_oauth_site(apis=2, workers=2, through_proxy=False)
    tools = [await tool_of(site, number % 2) for number in range(AT_ONCE)]
    token = await tools[0].logged_in()
    for generation in range(1, 6):
        successors = await asyncio.gather(*(tool.successor(token) for tool in tools))
        assert len(set(successors)) == 1
        token = successors[0]
        assert await family(site, token) == ("active", generation + 1, generation)


@pytest.mark.parametrize("point", ["after it was delivered", "before the script ran", "after the script ran"])
async def test_refresh_is_answered_wherever_its_worker_is_killed(
    start_oauth_site: StartOAuthSite, tool_of: StartTool, point: str
) -> None:
    """Another worker takes it over while the tool waits, or the tool asks again: there is one rotation."""
    site = await start_oauth_site(workers=0, through_proxy=False)
    proxy = site.to_redis
    doomed = site.service.start_worker(**{variable("redis_url"): f"redis://127.0.0.1:{proxy.port}/0"})
    await site.until_ready()
    tool = await tool_of(site)
    token = await tool.logged_in()
    if point == "after it was delivered":
        proxy.half_open(len(proxy.links), DICE)
    else:
        proxy.die_at(ROTATION, executed=point == "after the script ran")
    refreshing = asyncio.create_task(tool.successor(token))

    async def is_there() -> bool:
        if point == "after the script ran":
            return (await family(site, token))[2] == 1
        pending = await site.look.xpending(site.keys.commands(0), "workers")
        return proxy.awaited is None and int(pending["pending"]) == 1

    await wait_until(is_there)
    doomed.send_to_group(SIGKILL)
    site.service.start_worker()
    successor = await refreshing
    assert await family(site, token) == ("active", 2, 1)
    assert await tool.successor(token) == successor
    assert await tool.successor(successor)
    await wait_until(site.is_at_rest)


async def test_rotations_that_were_acknowledged_survive_a_killed_redis(
    start_oauth_site: StartOAuthSite, tool_of: StartTool
) -> None:
    """Also the one under way: the token before is repeated, the token after rotates on, nobody is logged out."""
    site = await start_oauth_site(workers=2)
    tool = await tool_of(site)
    first = [await tool.logged_in() for _ in range(LOGINS)]
    second = await asyncio.gather(*map(tool.successor, first))
    under_way = [asyncio.create_task(tool.successor(token)) for token in second]
    await asyncio.sleep(0)
    site.redis.kill()
    await site.redis.start()
    third = await asyncio.gather(*under_way)
    assert await asyncio.gather(*map(tool.successor, second)) == third
    fourth = await asyncio.gather(*map(tool.successor, third))
    assert [await family(site, token) for token in fourth] == [("active", 4, 3)] * LOGINS


@pytest.mark.parametrize("committed", [False, True], ids=["not committed", "committed"])
async def test_refresh_of_a_killed_api_is_asked_again_elsewhere(
    start_oauth_site: StartOAuthSite, tool_of: StartTool, *, committed: bool
) -> None:
    """Committed after the death of its API, another one repeats its successor; too late, it never happened."""
    site = await start_oauth_site(apis=2, through_proxy=False, outcome_wait_ms=2_600)
    tool, other = await tool_of(site, 0), await tool_of(site, 1)
    token = await tool.logged_in()
    worker = site.service.workers[0]
    worker.stop()
    refreshing = asyncio.create_task(tool.refresh(token))
    await wait_until(lambda: backlog(site))
    site.service.apis[0].send_to_group(SIGKILL)
    with pytest.raises(httpx.TransportError):
        await refreshing
    if not committed:
        [(entry_id, _)] = await site.look.execute_command("XRANGE", site.keys.commands(0), "-", "+")
        recorded = int(entry_id.partition(b"-")[0])

        async def is_late() -> bool:
            seconds, microseconds = await site.look.time()
            return seconds * 1_000 + microseconds // 1_000 > recorded + site.service.settings.outcome_wait_ms

        await wait_until(is_late)
    worker.send(SIGCONT)
    await wait_until(site.is_at_rest)
    assert await family(site, token) == ("active", 1 + committed, int(committed))
    successor = await other.successor(token)
    assert await other.successor(token) == successor
    assert await family(site, token) == ("active", 2, 1)
    assert await other.successor(successor)


async def test_tool_that_hangs_up_and_goes_on_is_no_thief(start_oauth_site: StartOAuthSite, tool_of: StartTool) -> None:
    """The command of its first request is with a frozen worker, while it asks again and refreshes twice."""
    site = await start_oauth_site(through_proxy=False)
    stream, worker = site.keys.commands(0), site.service.workers[0]
    tool = await tool_of(site)
    token = await tool.logged_in()
    worker.stop()

    async def reads_no_more() -> bool:
        return not (await site.look.info("clients"))["blocked_clients"]

    await wait_until(reads_no_more, within=20)
    first = asyncio.create_task(tool.refresh(token))
    await wait_until(lambda: backlog(site))
    first.cancel()
    # Taken by a worker that does nothing with it: here, this test.
    assert await site.look.execute_command("XREADGROUP", "GROUP", GROUP, "frozen", "STREAMS", stream, ">")
    worker.send(SIGCONT)
    newest = await tool.successor(await tool.successor(token))
    assert await backlog(site) == 1
    await wait_until(site.is_at_rest)
    assert await family(site, token) == ("active", 3, 2)
    assert await tool.successor(newest)

"""Answers that get lost after the work was done: from Redis to us, and from us to clients."""

import asyncio

import httpx
import pytest

from login_relay_client import LoginRequest, Prompt, login_async
from tests.support.sites import Client, Login, Site, StartSite, key_of

pytestmark = pytest.mark.faults

LOGINS = 25
CUT_EVERY = 0.05  # seconds
PATIENCE = 60.0  # seconds for all of them


async def ask(request: "asyncio.Future[httpx.Response]") -> httpx.Response | None:
    """Return the answer; None if it was lost."""
    try:
        return await request
    except httpx.TransportError:
        return None


async def log_in(client: Client, number: int) -> str:
    """Log in as a careful client does: a request without an answer is sent again with its key."""
    key = f"login-{number}"
    while True:
        try:
            login = await client.initiate()
        except AssertionError:  # 503: without a key an initiate is simply another session
            continue
        break
    while (await client.complete(login, key=key)).status_code == 503:
        pass
    while True:
        answer = await client.poll(login, key=key)
        if answer.status_code == 201:
            break
        assert answer.status_code == 503 or answer.json()["status"] == "waiting", answer.text
    assert answer.json()["refresh_token"] == f"rt-{login.session_id}"
    return login.session_id


async def test_replies_of_redis_may_be_lost_at_any_time(start_site: StartSite) -> None:
    """Executed, then dropped, over and over, for API and workers alike: every login happens once."""
    site = await start_site(workers=2)

    async def cut() -> None:
        while True:
            site.to_redis.replies_to_cut = 1  # not one more: the last cut may still be to come
            await asyncio.sleep(CUT_EVERY)

    cutting = asyncio.create_task(cut())
    async with asyncio.timeout(PATIENCE):
        sessions = await asyncio.gather(*(log_in(site.client, number) for number in range(LOGINS)))
    cutting.cancel()
    site.to_redis.heal()
    for session_id in sessions:
        assert await site.versions(session_id) == [
            ("session.initiated", 1),
            ("session.completed", 2),
            ("session.consumed", 3),
        ]


async def lost(site: Site, request: "asyncio.Future[httpx.Response]") -> None:
    """Drop the answer of a request after it was sent."""
    site.to_api.cut_replies(1)
    assert await ask(request) is None


async def test_lost_token_is_heard_again_with_the_key_and_by_nobody_else(site: Site) -> None:
    """The same key gets the same 201, as often as it is sent; another key, or none, gets `used`."""
    client = site.client
    login = await client.completed()
    await lost(site, asyncio.ensure_future(client.poll(login, key="mine")))
    again = [await client.poll(login, key="mine") for _ in range(3)]
    assert [(answer.status_code, answer.json()["refresh_token"]) for answer in again] == [
        (201, f"rt-{login.session_id}")
    ] * 3
    assert (await client.poll(login, key="other")).json() == {"status": "used"}
    assert (await client.poll(login)).json() == {"status": "used"}
    assert await site.versions(login.session_id) == [
        ("session.initiated", 1),
        ("session.completed", 2),
        ("session.consumed", 3),
    ]


async def test_lost_token_of_a_poll_without_key_is_gone(site: Site) -> None:
    """As far as the relay can know it was handed over, so the next poll does not get it."""
    login = await site.client.completed()
    await lost(site, asyncio.ensure_future(site.client.poll(login)))
    assert (await site.client.poll(login)).json() == {"status": "used"}


async def test_lost_answer_to_complete_is_heard_again_with_the_key(site: Site) -> None:
    """The same key gets 200 again, with another token 422, another key 400; the token is that of the first."""
    client = site.client
    login = await client.initiate()
    await lost(site, asyncio.ensure_future(client.complete(login, key="mine")))
    assert (await client.complete(login, key="mine")).status_code == 200
    assert (await client.complete(login, key="mine", token="rt-second")).status_code == 422
    assert (await client.complete(login, key="other")).status_code == 400
    assert (await client.complete(login)).status_code == 400
    assert (await client.poll(login)).json()["refresh_token"] == f"rt-{login.session_id}"


async def test_key_is_worth_nothing_to_another_session(site: Site) -> None:
    """The key of a completion completes no other session; a poll's key belongs to its polling code."""
    client = site.client
    login, other = await client.initiate(), await client.initiate()
    assert (await client.complete(login, key="same")).status_code == 200
    answer = await client.http.post(
        "/cli/complete",
        headers=client.project.server_headers | key_of(login, "same"),
        json={"login_code": other.login_code, "refresh_token": f"rt-{login.session_id}"},
    )
    assert answer.status_code == 422
    assert (await client.complete(other)).status_code == 200
    for each in (login, other):
        headers = client.project.client_headers | key_of(login, "same")
        polled = await client.http.post("/cli/poll", headers=headers, json={"polling_code": each.polling_code})
        assert polled.json()["refresh_token"] == f"rt-{each.session_id}"
        assert [version for _, version in await site.versions(each.session_id)] == [1, 2, 3]


async def test_key_is_honoured_by_every_api_process(start_site: StartSite) -> None:
    """A retry may reach another process than the one whose answer was lost."""
    site = await start_site(apis=2)
    other = Client(site.service.urls[1], site.client.project)
    login = await site.client.initiate()
    await lost(site, asyncio.ensure_future(site.client.complete(login, key="mine")))
    assert (await other.complete(login, key="mine")).status_code == 200
    await lost(site, asyncio.ensure_future(site.client.poll(login, key="mine")))
    assert (await other.poll(login, key="mine")).json()["refresh_token"] == f"rt-{login.session_id}"
    await other.http.aclose()


@pytest.mark.parametrize("losses", [1, 2])
async def test_client_library_logs_in_through_lost_answers(site: Site, losses: int) -> None:
    """It loses its first answers, and then the one with its token; it sends its key, so it gets the token."""
    direct = Client(site.service.url, site.client.project)
    approving: list[asyncio.Task[None]] = []

    async def approve(login_code: str) -> None:
        answer = await direct.complete(Login("approved", login_code, ""))
        assert answer.status_code == 200

    def on_prompt(prompt: Prompt) -> None:
        # The next answer through the proxy is that of the poll, once the login has been approved.
        site.to_api.cut_replies(losses)
        approving.append(asyncio.create_task(approve(prompt.login_code)))

    site.to_api.cut_replies(losses)
    request = LoginRequest(
        server=str(site.client.http.base_url).removesuffix("/api/v1/auth/"),
        project_id=site.client.project.project_id,
        publishable_client_key=site.client.project.publishable_client_key,
    )
    session = await login_async(request, on_prompt)
    assert session.refresh_token == "rt-approved"
    assert site.to_api.replies_to_cut == 0
    await approving[0]
    await direct.http.aclose()

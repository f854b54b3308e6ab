"""What tools do with refresh tokens that the relay minted: they use them for a while, in every careless way."""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple
from urllib.parse import urlencode

from redis.exceptions import RedisError

from api.tokens.logging_out import LoggingOut
from tests.chaos.families import Exchange, Family
from tests.chaos.history import Result
from tests.support.services import ProjectKeys

REFRESHES = 8  # of a family, at most
PAUSE = 0.5  # seconds between two refreshes, at most: tools in a hurry, so that what is late is overtaken
CROWD, CROWD_SHARE = 4, 0.25  # processes of a tool that refresh at the same time
RETRY_PAUSE = 0.1  # seconds before a token is shown again
PATIENCE = 15.0  # seconds on top of a bound, so that a broken bound is seen and not cut off
IMPATIENCE, IMPATIENT_SHARE = 0.3, 0.3  # seconds after which some hang up and ask again, while the first is under way
RETRY_WITHIN = 40.0  # seconds; less than the grace of a rotation

REVOKED_SHARE, LOGGED_OUT_SHARE, REUSED_SHARE = 0.3, 0.2, 0.2
FORM = {"content-type": "application/x-www-form-urlencoded"}


class Sent(NamedTuple):
    """What came of a request; status 0: nothing."""

    status: int
    body: bytes
    trouble: str = ""


Send = Callable[[str, Mapping[str, str], bytes, float], Awaitable[Sent]]
"""Sends one request to any of the APIs: path, headers, body, and for how many seconds to wait for its answer."""


class Tools:
    """All tools of a run that have received a refresh token, by the ids of their families."""

    def __init__(
        self,
        send: Send,
        project: ProjectKeys,
        clock: Callable[[], float],
        choose: random.Random,
        within: float,
        logging_out: LoggingOut,
    ) -> None:
        self.families: dict[str, Family] = {}
        self._send = send
        self._project = project
        self._clock = clock
        self._choose = choose
        self._within = within
        self._logging_out = logging_out
        self._running: list[asyncio.Task[None]] = []

    def receive(self, id_: str, refresh_token: str, subject: str, *, rotates: bool) -> None:
        """Note a token that was handed over, or handed over again, and begin to use it."""
        family = self.families.get(id_)
        if family is None:
            family = self.families[id_] = Family(id_, rotates)
            self._running.append(asyncio.create_task(self._live(family, refresh_token, subject)))
        family.handed_over.add(refresh_token)

    async def end(self) -> None:
        """Return when all have done what they meant to do."""
        while pending := [task for task in self._running if not task.done()]:
            await asyncio.wait(pending)
        for task in self._running:
            task.result()

    async def _live(self, family: Family, token: str, subject: str) -> None:
        choose, shown = self._choose, [token]
        for _ in range(choose.randint(2, REFRESHES)):
            await asyncio.sleep(choose.uniform(0, choose.choice((PAUSE, 0))))
            crowd = CROWD if choose.random() < CROWD_SHARE else 1
            received = await asyncio.gather(*(self._refresh(family, shown[-1]) for _ in range(crowd)))
            if not all(received):
                return
            shown.append(received[0])
        fate = choose.random()
        if fate < REVOKED_SHARE:
            await self._until_done(family, "revoke", choose.choice(shown))
        elif fate < REVOKED_SHARE + LOGGED_OUT_SHARE:
            await self._log_out(family, subject, shown[-1])
        elif fate < REVOKED_SHARE + LOGGED_OUT_SHARE + REUSED_SHARE and family.rotates:
            await self._until_done(family, "show an old token", shown[0])
        await self._until_done(family, "introspect", shown[-1])
        await self._refresh(family, shown[-1])

    async def _refresh(self, family: Family, token: str) -> str:
        """Return the token to show the next time; empty if there is none."""
        exchange = await self._until_done(family, "refresh", token)
        return exchange.received or token if exchange.result is Result.OK else ""

    async def _until_done(self, family: Family, kind: str, token: str) -> Exchange:
        """Send a request until it is answered."""
        give_up = self._clock() + RETRY_WITHIN
        while True:
            exchange = await self._exchange(kind, token)
            family.exchanges.append(exchange)
            if exchange.result is not Result.UNKNOWN:
                return exchange
            if self._clock() > give_up:
                family.gave_up = f"gave up to {kind}"
                return exchange
            await asyncio.sleep(RETRY_PAUSE)

    async def _exchange(self, kind: str, token: str) -> Exchange:
        project, started = self._project, self._clock()
        form = {"client_id": project.project_id, "token": token}
        path = {"revoke": "/oauth/revoke", "introspect": "/oauth/introspect"}.get(kind, "/oauth/token")
        if kind == "introspect":
            form["client_secret"] = project.secret_server_key
        elif kind != "revoke":
            form = {"client_id": project.project_id, "grant_type": "refresh_token", "refresh_token": token}
        is_impatient = kind == "refresh" and self._choose.random() < IMPATIENT_SHARE
        patience = IMPATIENCE if is_impatient else self._within + PATIENCE
        sent = await self._send(path, FORM, urlencode(form).encode(), patience)
        result, answer, received = _read(kind, sent)
        return Exchange(kind, token, started, self._clock(), self._within, result, answer, received)

    async def _log_out(self, family: Family, subject: str, token: str) -> None:
        """Log the subject out everywhere, as its backend does, until that holds."""
        started, is_done = self._clock(), False
        while not is_done:
            try:
                await self._logging_out.everywhere(self._project.project_id, subject)
                is_done = True
            except RedisError:
                await asyncio.sleep(RETRY_PAUSE)
        ended = self._clock()
        family.exchanges.append(Exchange("log out", token, started, ended, ended - started, Result.OK, "done"))


def _read(kind: str, sent: Sent) -> tuple[Result, str, str]:
    """Return what an answer means, in words, and the refresh token in it."""
    if sent.status == 0 or sent.status >= 500:
        return Result.UNKNOWN, sent.trouble or str(sent.status), ""
    content = json.loads(sent.body or b"{}")
    if sent.status != 200:
        return Result.REFUSED, f"{sent.status} {content.get('error')}", ""
    if kind == "introspect":
        is_active = bool(content["active"])
        return Result.OK if is_active else Result.REFUSED, "active" if is_active else "inactive", ""
    return Result.OK, "200", content.get("refresh_token", "")

"""Polls that wait for an answer, each on a connection of its own."""

import asyncio
import json
from contextlib import closing
from typing import NamedTuple
from urllib.parse import urlsplit

from tests.support.eventually import wait_until
from tests.support.raw_http import request
from tests.support.scraping import scrape, value
from tests.support.services import Process, ProjectKeys

HOLD = 30  # seconds; longer than any test waits, so that a poll that ends sooner was not ended by the clock
SOON = 5.0  # seconds; time enough for a busy machine, far from HOLD


class Login(NamedTuple):
    """The answer to initiate that a tool got."""

    session_id: str
    login_code: str
    polling_code: str

    @property
    def token(self) -> str:
        """The token that completes it."""
        return f"rt-{self.session_id}"


class Answer(NamedTuple):
    """The answer to a poll."""

    status: int
    headers: dict[str, str]
    body: dict[str, str]


class Poll:
    """A poll on a connection of its own, sent and possibly not answered yet."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def send(cls, url: str, project: ProjectKeys, login: Login, **headers: str) -> "Poll":
        """Send one without a preference, as most tools do, unless more headers are given."""
        address = urlsplit(url)
        poll = cls(*await asyncio.open_connection(address.hostname, address.port))
        sent = project.client_headers | headers
        poll._writer.write(request("/poll", sent, {"polling_code": login.polling_code}))
        return poll

    async def answer(self, within: float = HOLD + SOON) -> Answer:
        """Read the answer, and close the connection."""
        with closing(self._writer):
            async with asyncio.timeout(within):
                head = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower().splitlines()
                headers = dict(line.split(": ", 1) for line in head[1:] if line)
                body = await self._reader.readexactly(int(headers["content-length"]))
        return Answer(int(head[0].split()[1]), headers, json.loads(body))

    def leave(self) -> None:
        """Close the connection, whether or not it was answered."""
        self._writer.close()


async def held(process: Process, count: float) -> None:
    """Return when a process holds that many polls."""

    async def holds_them() -> bool:
        return value(await scrape(process), "waiters", waiting_for="change") == count

    await wait_until(holds_them, within=20)

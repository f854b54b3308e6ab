"""A client of the event stream that reads it as the HTML Standard says (§9.2.6), and notes the id after each event."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import NamedTuple

import httpx
import msgspec

from events.cloud_event import CloudEvent


class Received(NamedTuple):
    """An event as it was received."""

    event: CloudEvent
    name: str
    id: str


class EventSource:
    """One connection."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.received: list[Received] = []
        self.raw: list[str] = []
        """The data of each event, unparsed."""
        self.comments: list[str] = []
        self.last_event_id = ""
        self.is_open = True
        self.was_cut = False
        self._name = ""
        self._data: list[str] = []

    async def read(self) -> None:
        """Read until the end of the connection."""
        try:
            async for line in self.response.aiter_lines():
                self._take(line)
        except httpx.TransportError:
            self.was_cut = True  # as when the server dies; an event without its blank line does not count
        finally:
            self.is_open = False

    def _take(self, line: str) -> None:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match field:
            case "" if line:
                self.comments.append(value)
            case "":
                self._dispatch()
            case "id":
                self._id = value
            case "event":
                self._name = value
            case "data":
                self._data.append(value)
            case _:
                raise AssertionError(line)

    def _dispatch(self) -> None:
        self.last_event_id = self._id
        if self._data:
            self.raw.append("\n".join(self._data))
            event = msgspec.json.decode(self.raw[-1], type=CloudEvent)
            self.received.append(Received(event, self._name, self._id))
        self._name, self._data = "", []


@contextlib.asynccontextmanager
async def event_source(
    url: str, headers: dict[str, str], last_event_id: str = "", api: str = "v1"
) -> AsyncIterator[EventSource]:
    """Connect, and read in the background."""
    if last_event_id:
        headers = {**headers, "Last-Event-ID": last_event_id}
    async with (
        httpx.AsyncClient(timeout=30, trust_env=False) as client,
        client.stream("GET", f"{url}/api/{api}/auth/cli/events", headers=headers) as response,
    ):
        source = EventSource(response)
        reading = asyncio.create_task(source.read())
        try:
            yield source
        finally:
            reading.cancel()
            await asyncio.wait({reading})

import asyncio
import json
import re
from collections import Counter
from typing import NamedTuple, cast

import pytest
import uvloop

from tests.conftest import RedisServer
from tests.e2e.conftest import Service, StartService

ROUNDS = 1_000
POLLS = 64  # concurrent polls of one session, each on a connection of its own
CLIENTS = 2  # sessions under way at a time

_CONTENT_LENGTH = re.compile(rb"(?i)\ncontent-length: *(\d+)")


class Answer(NamedTuple):
    """What one request came to."""

    status: int
    body: str


class Connection(asyncio.Protocol):
    """A keep-alive connection. Written plainly: a client library would take as long as both APIs together."""

    def __init__(self) -> None:
        self._transport = asyncio.Transport()
        self._received = b""
        self._answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    @classmethod
    async def to(cls, url: str) -> "Connection":
        """Open one."""
        host, port = url.removeprefix("http://").split(":")
        _, connection = await asyncio.get_running_loop().create_connection(cls, host, int(port))
        return connection

    async def send(self, request: bytes) -> Answer:
        """Send one request; return its answer."""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        """Close it."""
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Take a part of an answer, or all of it."""
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if end and len(body) == int(_CONTENT_LENGTH.findall(head)[0]):
            self._received = b""
            self._answer.set_result(Answer(int(head[9:12]), body.decode()))

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits."""
        if not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError())


def request(path: str, headers: dict[str, str], body: dict[str, str]) -> bytes:
    """Return a request as it goes over the wire."""
    content = json.dumps(body)
    fields = {**headers, "host": "relay", "content-type": "application/json", "content-length": str(len(content))}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"POST /api/v1/auth/cli{path} HTTP/1.1\r\n{head}\r\n{content}".encode()


class Round(NamedTuple):
    """What became of one session."""

    session_id: str
    completes: list[Answer]
    polls: list[Answer]


async def play(service: Service, connections: list[Connection]) -> Round:
    """Start a session, complete it twice at once over two APIs, and poll it on all connections at once."""
    tool, backend = service.project.client_headers, service.project.server_headers
    session = json.loads((await connections[0].send(request("", tool, {}))).body)
    id_ = session["session_id"]
    complete = request("/complete", backend, {"login_code": session["login_code"], "refresh_token": f"rt-{id_}"})
    poll = request("/poll", tool, {"polling_code": session["polling_code"]})
    completes = await asyncio.gather(*(connection.send(complete) for connection in connections[:2]))
    polls = await asyncio.gather(*(connection.send(poll) for connection in connections))
    return Round(id_, completes, polls)


async def play_all(service: Service) -> list[Round]:
    """Play all rounds, some at a time; neighbouring connections lead to different APIs."""
    rounds: list[Round] = []
    numbers = iter(range(ROUNDS))

    async def client() -> None:
        connections = [await Connection.to(service.urls[number % len(service.urls)]) for number in range(POLLS)]
        rounds.extend([await play(service, connections) for _ in numbers])
        for connection in connections:
            connection.close()

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return rounds


@pytest.mark.timeout(600)  # under a minute on two cores; the limit is for machines that are busy otherwise
def test_thousand_sessions_are_each_completed_once_and_consumed_once(
    start_service: StartService, redis_server: RedisServer
) -> None:
    """Two APIs, three workers: of two completes at once one gets 200 and one 400; of 64 polls one the token, 63 `used`.

    The event stream has seen each session in three versions, no more.
    """
    service = start_service(apis=2, workers=3)
    rounds = uvloop.run(play_all(service))
    assert len(rounds) == ROUNDS
    for session_id, completes, polls in rounds:
        assert Counter(completes) == {
            (200, '{"success":true}'): 1,
            (400, "Invalid login code or the code has expired"): 1,
        }
        assert Counter(polls) == {
            (201, f'{{"status":"success","refresh_token":"rt-{session_id}"}}'): 1,
            (200, '{"status":"used"}'): POLLS - 1,
        }
    keys = service.keys
    with redis_server.client() as redis:
        states = Counter(redis.hget(keys.session(played.session_id), "state") for played in rounds)
        events = cast("list[tuple[bytes, dict[bytes, bytes]]]", redis.xrange(keys.events(0)))
        backlog = redis.xlen(keys.commands(0))
    assert states == {b"consumed": ROUNDS}
    facts = Counter((fields[b"type"], fields[b"version"]) for _, fields in events if b"version" in fields)
    assert facts == {
        (b"session.initiated", b"1"): ROUNDS,
        (b"session.completed", b"2"): ROUNDS,
        (b"session.consumed", b"3"): ROUNDS,
    }
    assert len({fields[b"id"] for _, fields in events}) == len(events)
    assert backlog == 0

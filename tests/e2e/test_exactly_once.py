import asyncio
import json
from collections import Counter
from typing import NamedTuple, cast

import pytest
import uvloop

from tests.support.raw_http import Answer, Connection, request
from tests.support.redis_server import RedisServer
from tests.support.services import Service, StartService

ROUNDS = 1_000
POLLS = 64  # concurrent polls of one session, each on a connection of its own
CLIENTS = 2  # sessions under way at a time


class Round(NamedTuple):
    """The answers of one session."""

    session_id: str
    completes: list[Answer]
    polls: list[Answer]


async def play(service: Service, connections: list[Connection]) -> Round:
    """Start a session, complete it twice at once through two APIs, and poll it on all connections at once."""
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

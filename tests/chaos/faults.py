"""The faults: a schedule that follows from a seed, and how each is carried out on the deployment."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import cycle
from signal import SIGCONT, SIGSTOP
from typing import NamedTuple

from runtime.redis.connections import REDIS_TROUBLE
from statemachine.commands import decode_command
from tests.chaos.deployment import Deployment
from tokens.commands import FamilyCommand

FROZEN_FOR = 3.0  # seconds; longer than min-idle, so that the worker wakes as a zombie
ALL_FROZEN_FOR = 9.0  # seconds; longer than any request may wait, so that a longer wait is noticed
UNHEARD_FOR = 3.0  # seconds
STALLED_FOR = 2.0  # seconds
IN_BATCH_WITHIN = 1.5  # seconds to wait for a worker to have entries in hand


class Kind(StrEnum):
    """The faults."""

    WORKER_KILLED = "worker killed"
    WORKER_KILLED_IN_BATCH = "worker killed mid-batch"
    WORKER_FROZEN = "worker frozen 3 s"
    ALL_WORKERS_FROZEN = "all workers frozen 9 s"
    API_KILLED = "API killed"
    REDIS_KILLED = "Redis killed and restarted"
    REDIS_STALLED = "Redis replies held 2 s"
    REPLIES_CUT = "Redis replies cut"
    HALF_OPEN = "Redis connections half open"
    ANSWERS_CUT = "HTTP answers cut"
    SUBSCRIBERS_CUT = "CLIENT KILL TYPE pubsub"
    PUBSUB_FORBIDDEN = "pub/sub forbidden 3 s"
    SCRIPTS_FLUSHED = "SCRIPT FLUSH"
    GROUP_DESTROYED = "XGROUP DESTROY"


PERIODS = {
    Kind.WORKER_KILLED: 2.0,  # with the next line about one a second
    Kind.WORKER_KILLED_IN_BATCH: 2.0,
    Kind.WORKER_FROZEN: 8.0,
    Kind.ALL_WORKERS_FROZEN: 30.0,
    Kind.API_KILLED: 8.0,
    Kind.REDIS_KILLED: 12.0,
    Kind.REDIS_STALLED: 14.0,
    Kind.REPLIES_CUT: 1.5,
    Kind.HALF_OPEN: 7.0,
    Kind.ANSWERS_CUT: 2.0,
    Kind.SUBSCRIBERS_CUT: 4.0,
    Kind.PUBSUB_FORBIDDEN: 10.0,
    Kind.SCRIPTS_FLUSHED: 4.0,
    Kind.GROUP_DESTROYED: 6.0,
}
"""Mean seconds between two faults of a kind."""

STORM_SHARE = 0.6  # of a run
APART = 4.0  # seconds from one fault to the next after the storm
ONE_BY_ONE = (
    Kind.WORKER_KILLED_IN_BATCH,
    Kind.REDIS_KILLED,
    Kind.WORKER_KILLED_IN_BATCH,
    Kind.API_KILLED,
    Kind.WORKER_KILLED_IN_BATCH,
    Kind.SUBSCRIBERS_CUT,
    Kind.PUBSUB_FORBIDDEN,
    Kind.GROUP_DESTROYED,
    Kind.WORKER_FROZEN,
    Kind.REDIS_STALLED,
)


class Fault(NamedTuple):
    """One line of the schedule."""

    at: float
    """Seconds after the start."""
    kind: Kind
    dice: int
    """Chooses the rest at random: which process, how many connections, how long."""
    alone: bool = False
    """Whether no other fault is near, so that the time to recover from it can be measured."""


def schedule(seed: int, seconds: float) -> list[Fault]:
    """Return the faults of a run: the same for the same seed and length.

    First a storm, in which faults may overlap and each kind whose period fits into the run strikes at least once;
    then faults one by one.
    """
    choose = random.Random(seed)  # noqa: S311 - a seed is to give the same schedule, not a secret
    storm = STORM_SHARE * seconds
    faults = []
    for kind, period in PERIODS.items():
        if period > seconds:
            continue
        at = choose.uniform(0.5, min(period, storm))
        while at < storm:
            faults.append(Fault(at, kind, choose.getrandbits(32)))
            at += period * choose.uniform(0.7, 1.3)
    for number, kind in enumerate(cycle(ONE_BY_ONE)):
        at = storm + (1 + number) * APART
        if at > seconds - APART / 2:
            break
        faults.append(Fault(at, kind, choose.getrandbits(32), alone=True))
    return sorted(faults)


@dataclass
class Strike:
    """A fault that was carried out. Times are seconds of the run's clock."""

    kind: Kind
    at: float
    over: float
    """When the harm itself ended (Redis serves again, the stopped worker is dead); `at` for what takes no time."""
    alone: bool = False
    victims: set[tuple[str, str]] = field(default_factory=set)
    """What a worker had in hand when it was killed: session and type of command."""


class Faults:
    """Carries out the faults on a deployment."""

    def __init__(self, deployment: Deployment, clock: Callable[[], float]) -> None:
        self.strikes: list[Strike] = []
        self._deployment = deployment
        self._clock = clock
        self._redis_is_down = False
        self._all_are_frozen = False
        self._do: dict[Kind, Callable[[random.Random, Strike], Awaitable[None]]] = {
            Kind.WORKER_KILLED: self._kill_worker,
            Kind.WORKER_KILLED_IN_BATCH: self._kill_worker_in_batch,
            Kind.WORKER_FROZEN: self._freeze_worker,
            Kind.ALL_WORKERS_FROZEN: self._freeze_all_workers,
            Kind.API_KILLED: self._kill_api,
            Kind.REDIS_KILLED: self._kill_redis,
            Kind.REDIS_STALLED: self._stall_redis,
            Kind.REPLIES_CUT: self._cut_replies,
            Kind.HALF_OPEN: self._half_open,
            Kind.ANSWERS_CUT: self._cut_answers,
            Kind.SUBSCRIBERS_CUT: self._cut_subscribers,
            Kind.PUBSUB_FORBIDDEN: self._forbid_pubsub,
            Kind.SCRIPTS_FLUSHED: self._flush_scripts,
            Kind.GROUP_DESTROYED: self._destroy_group,
        }

    async def run(self, faults: list[Fault], seconds: float) -> None:
        """Carry them out at their times, measured from now; returns at the end, when everything runs again."""
        start = self._clock()
        async with asyncio.TaskGroup() as group:
            for fault in faults:
                await asyncio.sleep(start + fault.at - self._clock())
                group.create_task(self._strike(fault))
            await asyncio.sleep(start + seconds - self._clock())
        self._deployment.proxy.heal()
        for place, front in enumerate(self._deployment.fronts):
            front.heal()
            await self._deployment.until_api_serves(place)

    async def _strike(self, fault: Fault) -> None:
        now = self._clock()
        strike = Strike(fault.kind, now, now, fault.alone)
        try:
            await self._do[fault.kind](random.Random(fault.dice), strike)  # noqa: S311 - see `schedule`
        except REDIS_TROUBLE:
            return  # it needs Redis or a worker, which another fault has stopped: not done, so not counted
        self.strikes.append(strike)

    async def _kill_worker(self, dice: random.Random, _: Strike) -> None:
        self._need_workers()
        self._deployment.kill_worker(dice.choice(self._deployment.workers))

    async def _kill_worker_in_batch(self, dice: random.Random, strike: Strike) -> None:
        """Stop a worker, so that it keeps the entries it reads, and kill it as soon as it has some."""
        deployment, redis, stream = self._deployment, self._deployment.redis.client, self._deployment.keys.commands(0)
        self._need_workers()
        worker = dice.choice(deployment.workers)
        worker.send(SIGSTOP)
        try:
            consumer = await deployment.consumer_of(worker)
            # By the clock: asyncio.timeout cancels, and a cancellation can get lost inside redis-py.
            while consumer and not strike.victims and self._clock() < strike.at + IN_BATCH_WITHIN:
                for row in await redis.xpending_range(stream, "workers", "-", "+", 100, consumer):
                    entries: list[tuple[bytes, dict[bytes, bytes]]] = await redis.execute_command(
                        "XRANGE", stream, *2 * [row["message_id"]]
                    )
                    commands = [decode_command(fields[b"command"]) for _, fields in entries]
                    strike.victims |= {
                        (command.session_id, type(command).__name__)
                        for command in commands
                        if not isinstance(command, FamilyCommand)
                    }
                await asyncio.sleep(0.01)
        finally:
            if worker in deployment.workers:
                deployment.kill_worker(worker)
            strike.over = self._clock()

    async def _freeze_worker(self, dice: random.Random, _: Strike) -> None:
        self._need_workers()
        worker = dice.choice(self._deployment.workers)
        worker.send(SIGSTOP)
        await asyncio.sleep(FROZEN_FOR)
        if worker in self._deployment.workers:
            worker.send(SIGCONT)

    async def _freeze_all_workers(self, _: random.Random, strike: Strike) -> None:
        """Freeze all for a while, so that some commands wait for longer than any request does."""
        self._all_are_frozen = True
        while self._clock() < strike.at + ALL_FROZEN_FOR:
            for worker in self._deployment.workers:  # also those that earlier faults wake or start meanwhile
                worker.send(SIGSTOP)
            await asyncio.sleep(0.02)
        self._all_are_frozen = False
        for worker in self._deployment.workers:
            worker.send(SIGCONT)

    def _need_workers(self) -> None:
        if self._all_are_frozen:
            raise ConnectionError

    async def _kill_api(self, dice: random.Random, _: Strike) -> None:
        place = dice.randrange(len(self._deployment.apis))
        self._deployment.kill_api(place)
        await self._deployment.until_api_serves(place)

    async def _kill_redis(self, dice: random.Random, strike: Strike) -> None:
        if self._redis_is_down:
            raise ConnectionError
        self._redis_is_down = True
        try:
            self._deployment.redis.kill()
            await asyncio.sleep(dice.uniform(0.2, 1.0))
            await self._deployment.redis.start()
        finally:
            self._redis_is_down = False
        strike.over = self._clock()

    async def _stall_redis(self, _: random.Random, strike: Strike) -> None:
        self._deployment.proxy.stall(STALLED_FOR)
        await asyncio.sleep(STALLED_FOR)
        strike.over = self._clock()

    async def _cut_replies(self, dice: random.Random, _: Strike) -> None:
        self._deployment.proxy.cut_replies(dice.randint(1, 5))

    async def _half_open(self, dice: random.Random, _: Strike) -> None:
        self._deployment.proxy.half_open(dice.randint(2, 12), dice)

    async def _cut_answers(self, dice: random.Random, _: Strike) -> None:
        dice.choice(self._deployment.fronts).cut_replies(dice.randint(1, 4))

    async def _cut_subscribers(self, _: random.Random, __: Strike) -> None:
        await self._deployment.redis.client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")

    async def _forbid_pubsub(self, _: random.Random, strike: Strike) -> None:
        """Forbid SUBSCRIBE for a while, so that every answer has to be looked up."""
        redis = self._deployment.redis.client
        await redis.execute_command("ACL", "SETUSER", "default", "-subscribe")
        try:
            await redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            await asyncio.sleep(UNHEARD_FOR)
        finally:
            await redis.execute_command("ACL", "SETUSER", "default", "+subscribe")
            strike.over = self._clock()

    async def _flush_scripts(self, _: random.Random, __: Strike) -> None:
        await self._deployment.redis.client.script_flush()

    async def _destroy_group(self, _: random.Random, __: Strike) -> None:
        await self._deployment.redis.client.xgroup_destroy(self._deployment.keys.commands(0), "workers")

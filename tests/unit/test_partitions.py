import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator

import pytest
from prometheus_client import Counter
from redis.exceptions import ConnectionError as RedisConnectionError
from structlog.testing import capture_logs

from runtime.redis.partitions import EachPartition

PATIENCE = 0.05  # seconds
AT_ONCE = 5.0  # seconds; as long as this machine may take for something that does not wait


class Work:
    """Work on three partitions: done at once, unless a test delays it or makes it fail."""

    def __init__(self) -> None:
        self.begun: dict[int, int] = defaultdict(int)
        self.ended: dict[int, int] = defaultdict(int)
        self.repaired: dict[int, int] = defaultdict(int)
        self.failures: dict[int, Exception] = {}
        self.held = {partition: asyncio.Event() for partition in range(3)}
        for event in self.held.values():
            event.set()
        self.losses = Counter("losses", "By loop and reason.", ["loop", "reason"], registry=None)
        self.partitions = EachPartition(
            "test", self.do, range(3), repair=self.repair, losses=self.losses, patience=PATIENCE
        )

    async def do(self, partition: int) -> None:
        """Work on one partition."""
        self.begun[partition] += 1
        await self.held[partition].wait()
        if failure := self.failures.get(partition):
            raise failure
        self.ended[partition] += 1

    async def repair(self, partition: int) -> None:
        """Count a repair."""
        self.repaired[partition] += 1

    async def step(self, only: list[int] | None = None) -> None:
        """Take a step that must not hang."""
        await asyncio.wait_for(self.partitions.step(only), AT_ONCE)


@pytest.fixture
async def work() -> AsyncIterator[Work]:
    """Work of a test."""
    work = Work()
    async with contextlib.aclosing(work.partitions):
        yield work


async def test_step_does_it_once_in_each_partition_or_in_those_asked_for(work: Work) -> None:
    """The work is done when the step returns."""
    await work.step()
    await work.step([2])
    await work.step([])
    assert work.ended == {0: 1, 1: 1, 2: 2}
    assert not work.repaired


async def test_partition_that_is_late_is_left_out_until_it_has_ended(work: Work) -> None:
    """It is neither cancelled nor begun again, and no later step waits for it."""
    work.held[1].clear()
    await work.step()
    clock = asyncio.get_running_loop().time
    started = clock()
    for _ in range(100):
        await work.step()
    assert clock() - started < 50 * PATIENCE
    assert (work.begun[1], work.ended) == (1, {0: 101, 2: 101})
    work.held[1].set()
    await asyncio.sleep(0)  # lets it end
    await work.step()
    await work.step()
    assert work.ended == {0: 103, 1: 2, 2: 103}


async def test_step_in_which_no_partition_answers_ends_with_the_first_that_does(work: Work) -> None:
    """A step that returned without anything done would look like progress."""
    for event in work.held.values():
        event.clear()
    step = asyncio.create_task(work.step())
    await asyncio.sleep(3 * PATIENCE)
    assert not step.done()
    work.held[2].set()
    await step
    assert work.ended == {2: 1}


async def test_failure_of_some_is_told_once_and_repaired_before_the_next_try(work: Work) -> None:
    """One log line when it begins, for any number of partitions and reasons, and one when it is over."""
    work.failures = {0: RedisConnectionError("gone"), 2: OSError("gone too")}
    with capture_logs() as logs:
        for _ in range(3):
            await work.step()
        work.failures = {}
        await work.step()
        await work.step()
    assert work.ended == {0: 2, 1: 5, 2: 2}
    assert work.repaired == {0: 3, 2: 3}
    common = {"loop": "test", "partitions": [0, 2]}
    counted = [sample for metric in work.losses.collect() for sample in metric.samples if sample.name == "losses_total"]
    assert {(*sample.labels.values(), sample.value) for sample in counted} == {
        ("test", "ConnectionError", 1.0),
        ("test", "OSError", 1.0),
    }
    lost = {"event": "partitions lost", "log_level": "warning", "reasons": ["ConnectionError", "OSError"], **common}
    assert logs == [lost, {"event": "partitions back", "log_level": "info", **common}]


async def test_failure_of_all_is_raised_and_not_told(work: Work) -> None:
    """The caller logs it, and waits. When only some partitions still fail, the step logs those."""
    work.failures = {partition: RedisConnectionError(str(partition)) for partition in range(3)}
    with capture_logs() as logs:
        for _ in range(2):
            with pytest.raises(RedisConnectionError, match="0"):
                await work.step()
        assert logs == []
        del work.failures[0]
        await work.step()
    assert [(log["event"], log["partitions"]) for log in logs] == [("partitions lost", [1, 2])]


async def test_defect_in_one_partition_is_logged_with_its_place(work: Work) -> None:
    """Unlike a lost connection, it is not expected; the other partitions go on all the same."""
    defect = work.failures[1] = ZeroDivisionError()
    with capture_logs() as logs:
        await work.step()
        await work.step()
    assert work.ended == {0: 2, 2: 2}
    assert [(log["event"], log["partition"], log["exc_info"]) for log in logs] == [("partition failed", 1, defect)]


async def test_closing_cancels_what_is_under_way(work: Work) -> None:
    """Nothing is left running behind its owner."""
    work.held[1].clear()
    before = asyncio.all_tasks()
    await work.step()
    assert len(asyncio.all_tasks() - before) == 1
    await work.partitions.aclose()
    assert asyncio.all_tasks() == before
    assert work.begun == {0: 1, 1: 1, 2: 1}

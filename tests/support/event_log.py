"""A log with many events, made faster than by logins."""

from redis.asyncio import Redis

from runtime.redis.keys import Keys
from statemachine.session import ClientFacts
from statemachine.store.initiating import Initiations


async def write_events(redis: Redis, keys: Keys, initiations: Initiations, project_id: str, count: int) -> None:
    """Write that many events of a project, over all partitions: one of a session, and copies of it."""
    session = await initiations.initiate(project_id, ClientFacts("tool", "1.2.3", "laptop"), 60_000)
    partition = keys.partition_of(session.session_id)
    [(_, fields)] = await redis.execute_command("XREVRANGE", keys.events(partition), "+", "-", "COUNT", 1)
    words = [word for field in fields.items() for word in field]
    async with redis.pipeline(transaction=False) as pipeline:
        for number in range(count - 1):
            pipeline.execute_command("XADD", keys.events(number % len(keys.partitions)), "*", *words)
        await pipeline.execute()

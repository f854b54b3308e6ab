"""The Lua scripts: read from the `lua/` of their room, addressed by their hash, loaded where Redis does not have them.

Every script is idempotent, so that a re-send (by redis-py, or here after NOSCRIPT) changes nothing. Because a script is
addressed by the hash of its text, processes of two versions run side by side, each with its own.
"""

from collections.abc import Sequence
from hashlib import sha1
from importlib.resources import files
from typing import NamedTuple

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

Argument = str | bytes | int
Reply = list["Reply"] | bytes | int | None


class Script(NamedTuple):
    """A script's text, its hash, and how many keys it declares."""

    text: str
    sha: str

    @classmethod
    def named(cls, room: str, name: str) -> "Script":
        """Read `lua/<name>.lua` of a room."""
        text = files(room).joinpath("lua", f"{name}.lua").read_text()
        return cls(text, sha1(text.encode(), usedforsecurity=False).hexdigest())


class Call(NamedTuple):
    """One call of a script."""

    keys: tuple[str, ...]
    arguments: tuple[Argument, ...]


async def run_script(redis: Redis, script: Script, call: Call) -> Reply:
    """Run a script once; one round trip when Redis knows it."""
    words = (len(call.keys), *call.keys, *call.arguments)
    reply: Reply
    try:
        reply = await redis.execute_command("EVALSHA", script.sha, *words)
    except NoScriptError:
        reply = await redis.execute_command("EVAL", script.text, *words)
    return reply


async def run_scripts(redis: Redis, script: Script, calls: Sequence[Call]) -> list[Reply | Exception]:
    """Run a script for each call, in order, in one pipelined round trip. A call that failed gives its exception."""
    results = await _pipeline(redis, script, calls)
    missing = [index for index, result in enumerate(results) if isinstance(result, NoScriptError)]
    if missing:
        await redis.execute_command("SCRIPT LOAD", script.text)
        for index, result in zip(missing, await _pipeline(redis, script, [calls[i] for i in missing]), strict=True):
            results[index] = result
    return results


async def _pipeline(redis: Redis, script: Script, calls: Sequence[Call]) -> list[Reply | Exception]:
    async with redis.pipeline(transaction=False) as pipeline:
        for call in calls:
            pipeline.execute_command("EVALSHA", script.sha, len(call.keys), *call.keys, *call.arguments)
        return await pipeline.execute(raise_on_error=False)

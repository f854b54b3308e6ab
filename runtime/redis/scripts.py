"""The Lua scripts: read from the `lua/` of their room, addressed by hash, sent in full where Redis does not have them.

Every script is idempotent, so that a re-send (by redis-py, or here after NOSCRIPT) changes nothing. Because a script is
addressed by the hash of its text, processes of two versions run side by side, each with its own. EVAL loads a script on
the very node that runs it; SCRIPT LOAD names no key, and on a cluster would load it on some node.
"""

from collections.abc import Sequence
from hashlib import sha1
from importlib.resources import files
from typing import NamedTuple

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

Argument = str | bytes | int
Reply = list["Reply"] | bytes | int | None


_TIME = files("runtime.redis").joinpath("time.lua").read_text()  # `now_ms()` and `rfc3339(ms)`


class Script(NamedTuple):
    """A script's text, its hash, and how many keys it declares."""

    text: str
    sha: str

    @classmethod
    def named(cls, room: str, name: str) -> "Script":
        """Read `lua/<name>.lua` of a room, with `time.lua` after its first line."""
        first, rest = files(room).joinpath("lua", f"{name}.lua").read_text().split("\n", 1)
        text = f"{first}\n{_TIME}{rest}"
        return cls(text, sha1(text.encode(), usedforsecurity=False).hexdigest())


class Call(NamedTuple):
    """One call of a script."""

    keys: tuple[str, ...]
    arguments: tuple[Argument, ...]


async def run_script(redis: Redis, script: Script, call: Call) -> Reply:
    """Run a script once; one round trip when Redis knows it."""
    reply: Reply
    try:
        reply = await redis.execute_command("EVALSHA", script.sha, *_words(call))
    except NoScriptError:
        reply = await redis.execute_command("EVAL", script.text, *_words(call))
    return reply


async def run_scripts(redis: Redis, script: Script, calls: Sequence[Call]) -> list[Reply | Exception]:
    """Run a script for each call, in order, in one pipelined round trip. A call that failed gives its exception."""
    results = await _pipeline(redis, [("EVALSHA", script.sha, *_words(call)) for call in calls])
    missing = [index for index, result in enumerate(results) if isinstance(result, NoScriptError)]
    if missing:
        again = await _pipeline(redis, [("EVAL", script.text, *_words(calls[index])) for index in missing])
        for index, result in zip(missing, again, strict=True):
            results[index] = result
    return results


def _words(call: Call) -> tuple[Argument, ...]:
    return (len(call.keys), *call.keys, *call.arguments)


async def _pipeline(redis: Redis, commands: Sequence[tuple[Argument, ...]]) -> list[Reply | Exception]:
    async with redis.pipeline(transaction=False) as pipeline:
        for command in commands:
            pipeline.execute_command(*command)
        return await pipeline.execute(raise_on_error=False)

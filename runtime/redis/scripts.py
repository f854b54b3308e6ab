"""Lua scripts: read from the `lua/` folder of their room, called by hash, and sent in full if Redis lacks them.

A script's header is its signature. It names the keys and the arguments, with remarks in parentheses; `…` after the last
name of either stands for any number of values. The script and its callers use these names.

    -- KEYS counters …
    -- ARGV window_ms, limits … (one of each counter)

Every script is idempotent: a re-send (by redis-py, or here after NOSCRIPT) changes nothing. Because a script is called
by the hash of its text, processes of two versions can run side by side, each with its own scripts. EVAL loads a script
on the node that runs it. SCRIPT LOAD names no key, so on a cluster it would load the script on any node.
"""

import re
from collections.abc import Sequence
from hashlib import sha1
from importlib.resources import files
from typing import NamedTuple, Protocol

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

Argument = str | bytes | int
Reply = list["Reply"] | bytes | int | None

_TIME = files("runtime.redis").joinpath("time.lua").read_text()  # `now_ms()` and `rfc3339(ms)`
_REMARK = re.compile(r"\([^()]*\)")
_NAME_LIST = re.compile(r"[a-z][a-z0-9_]*(,[a-z][a-z0-9_]*)*")


class Call(NamedTuple):
    """One call of a script."""

    keys: tuple[str, ...]
    arguments: tuple[Argument, ...]


class Signature(Protocol):
    """Makes a call from the keys and arguments, each given by its name."""

    def __call__(self, **named: Argument | Sequence[Argument]) -> Call:
        """Return the call.

        Raises:
            TypeError: a name is missing, or the script has no such name.

        """


class Script(NamedTuple):
    """A script's text as Redis has it, its hash, and how it is called."""

    text: str
    sha: str
    call: Signature

    @classmethod
    def named(cls, room: str, name: str) -> "Script":
        """Return the script in `lua/<name>.lua` of a room.

        Raises:
            ValueError: its header is malformed.

        """
        return cls.of(name, files(room).joinpath("lua", f"{name}.lua").read_text())

    @classmethod
    def of(cls, name: str, text: str) -> "Script":
        """Return the script of a file's text, with `time.lua` and the names of the header after its first line.

        Raises:
            ValueError: its header is malformed.

        """
        keys, arguments = _Names.of("KEYS", text), _Names.of("ARGV", text)
        names = (*keys.names, *arguments.names)
        if not keys.names or len(set(names)) < len(names) or not _NAME_LIST.fullmatch(",".join(names)):
            raise ValueError(f"{name}.lua: its header does not name its keys and arguments")
        first, _, rest = text.partition("\n")
        text = f"{first}\n{_TIME}{keys.as_locals('KEYS')}{arguments.as_locals('ARGV')}{rest}"
        # As `namedtuple` does: no check of the names is faster than that of a Python function.
        source = f"lambda *, {', '.join(names)}: Call({keys.as_tuple()}, {arguments.as_tuple()})"
        call = eval(source, {"Call": Call})  # noqa: S307 - its names were checked just now
        call.__qualname__ = name  # its TypeErrors show it
        return cls(text, sha1(text.encode(), usedforsecurity=False).hexdigest(), call)


class _Names(NamedTuple):
    """The names in one section of a header."""

    names: tuple[str, ...]
    many: bool
    """Whether the last one stands for any number of values."""

    @classmethod
    def of(cls, section: str, text: str) -> "_Names":
        """Return the names in a section, which may continue in indented lines; no names if there is no such section."""
        found = re.search(rf"^-- {section} (.*(?:\n--   .*)*)", text, re.MULTILINE)
        if found is None:
            return cls((), many=False)
        listed = _REMARK.sub("", found[1].replace("\n--", "")).strip()
        return cls(tuple(map(str.strip, listed.removesuffix(" …").split(","))), many=listed.endswith(" …"))

    def as_locals(self, table: str) -> str:
        """Return the Lua code that assigns the values in a table to their names."""
        each = self.names[:-1] if self.many else self.names
        lines = f"local {', '.join(each)} = unpack({table})\n" if each else ""
        if self.many:
            lines += f"local {self.names[-1]} = {{ unpack({table}, {len(self.names)}) }}\n"
        return lines

    def as_tuple(self) -> str:
        """Return the Python code that makes a tuple of the values of the names."""
        last = len(self.names) - 1
        return (
            f"({''.join(f'*{name},' if self.many and i == last else f'{name},' for i, name in enumerate(self.names))})"
        )


async def run_script(redis: Redis, script: Script, call: Call) -> Reply:
    """Run a script and return its reply; one round trip if Redis has the script."""
    reply: Reply
    try:
        reply = await redis.execute_command("EVALSHA", script.sha, *_words(call))
    except NoScriptError:
        reply = await redis.execute_command("EVAL", script.text, *_words(call))
    return reply


async def run_scripts(redis: Redis, script: Script, calls: Sequence[Call]) -> list[Reply | Exception]:
    """Run a script for each call, in order, in one round trip; return the reply or the exception of each."""
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

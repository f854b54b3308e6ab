import asyncio
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from redis.exceptions import ResponseError

from tests.support.eventually import wait_until
from tests.support.logins import WHOLE_LIFE, log_in
from tests.support.oauth_services import oauth_settings
from tests.support.redis_server import RedisServer
from tests.support.services import Service, StartService
from tests.support.sse import event_source

DOCS = Path(__file__).resolve().parents[2] / "docs"
EXAMPLE = re.compile(r"^```(\S+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def examples(language: str, service: Service, server: RedisServer) -> list[str]:
    """Return the examples of the page, with the tests' Redis and an own prefix instead of the defaults."""
    assert service.settings.partitions == 1
    page = (DOCS / "events.md").read_text()
    found = [text for of, text in EXAMPLE.findall(page) if of == language]
    assert found, f"no example in {language}"
    return [
        text.replace("lr:{10}:events", service.keys.events(0)).replace("redis://127.0.0.1:6379/0", server.url)
        for text in found
    ]


def redis_cli(server: RedisServer, words: list[str]) -> str:
    """Run a command as redis-cli does; if it is not installed, send the same words to Redis."""
    if program := shutil.which("redis-cli"):
        done = subprocess.run([program, "-u", server.url, *words], capture_output=True, text=True, check=True)
        return done.stdout
    with server.client() as redis:
        return str(redis.execute_command(*words))


async def test_redis_cli_shows_a_login(start_service: StartService, redis_server: RedisServer) -> None:
    """A reader who types the commands of the page sees the login."""
    service = await asyncio.to_thread(start_service)
    session_id = await log_in(service.url, service.project)
    kept, next_one = (shlex.split(text) for text in examples("redis-cli", service, redis_server))
    shown = await asyncio.to_thread(redis_cli, redis_server, kept)
    for type_, version in WHOLE_LIFE:
        assert type_ in shown
        assert f"{session_id}.{version}" in shown
    waiting = asyncio.create_task(asyncio.to_thread(redis_cli, redis_server, next_one))
    with redis_server.client() as redis:
        await wait_until(lambda: any(row["cmd"] == "xread" and row["flags"] == "b" for row in redis.client_list()))
    later = await log_in(service.url, service.project)
    assert f"{later}.1" in await waiting


@asynccontextmanager
async def running(command: list[str], folder: Path) -> AsyncIterator[list[str]]:
    """Run a program until the end of the context; yields the lines that it prints."""
    process = await asyncio.create_subprocess_exec(*command, cwd=folder, stdout=subprocess.PIPE)
    lines: list[str] = []

    async def read() -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            lines.append(line.decode().rstrip())  # noqa: PERF401 - others look at the list while it grows

    reading = asyncio.create_task(read())
    try:
        yield lines
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
        await reading


async def check_group(command: list[str], folder: Path, service: Service, server: RedisServer, group: str) -> None:
    """Fail unless a group reads every event once, though its program starts late, ends and starts again."""
    stream = service.keys.events(0)
    sessions = [await log_in(service.url, service.project, subject="ada")]
    told: list[str] = []
    for _ in range(2):
        async with running(command, folder) as lines:
            sessions.append(await log_in(service.url, service.project, subject="ada"))
            await wait_until(partial(has_lines, lines, 1 + 3 * len(sessions) - len(told)), within=20)
            with server.client() as redis:
                await wait_until(lambda: redis.execute_command("XPENDING", stream, group)["pending"] == 0)
        told += lines
    nobody = "None" if group == "billing" else "undefined"
    assert sorted(told) == sorted(
        [
            f"audit.project_changed {service.project.project_id} {nobody}",
            *(f"session.initiated {session_id} {nobody}" for session_id in sessions),
            *(f"session.{change} {session_id} ada" for session_id in sessions for change in ("completed", "consumed")),
        ]
    )


def has_lines(lines: list[str], count: int) -> bool:
    """Return whether that many lines were printed."""
    return len(lines) >= count


async def test_consumer_group_in_python_works(
    start_service: StartService, redis_server: RedisServer, tmp_path: Path
) -> None:
    """The example exactly as on the page."""
    service = await asyncio.to_thread(start_service)
    [program] = examples("python", service, redis_server)
    (tmp_path / "events.py").write_text(program)
    await check_group([sys.executable, "events.py"], tmp_path, service, redis_server, "billing")


async def test_consumer_group_in_javascript_works(
    start_service: StartService, redis_server: RedisServer, tmp_path: Path
) -> None:
    """The example exactly as on the page, with the library that it names."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("there is no Node.js here")
    install = [npm, "install", "--no-audit", "--no-fund", "--silent", "redis@5"]
    if await asyncio.to_thread(subprocess.call, install, cwd=tmp_path, timeout=60, stderr=subprocess.DEVNULL):
        pytest.skip("node-redis cannot be installed here")
    service = await asyncio.to_thread(start_service)
    [program] = examples("js", service, redis_server)
    (tmp_path / "events.mjs").write_text(program)
    await check_group([node, "events.mjs"], tmp_path, service, redis_server, "audit")


async def test_real_events_fit_the_schema(
    start_service: StartService, redis_server: RedisServer, tmp_path: Path
) -> None:
    """Entries of the stream with their data, and what the API sends for the same login: its token opens a family."""
    service = await asyncio.to_thread(partial(start_service, **oauth_settings(tmp_path)))
    schema = json.loads((DOCS / "events.schema.json").read_text())
    of_event, of_entry = (
        Draft202012Validator(schema),
        Draft202012Validator({**schema, "oneOf": [{"$ref": "#/$defs/Entry"}]}),
    )
    async with event_source(service.url, service.project.server_headers) as source:
        await wait_until(lambda: source.last_event_id)
        session_id = await log_in(service.url, service.project)
        await wait_until(lambda: sum(item.event.subject == session_id for item in source.received) == 4)
    with redis_server.client() as redis:
        rows = redis.xrange(service.keys.events(0))
    entries = [{name.decode(): value.decode() for name, value in fields.items()} for _, fields in rows]
    entries = [entry for entry in entries if entry["subject"] == session_id]
    assert len(entries) == 4
    for entry, received in zip(entries, source.raw[-4:], strict=True):
        of_entry.validate(entry)
        fields = set(schema["$defs"]["Entry"]["properties"])
        of_session = entry["type"].startswith("session.")
        assert entry.keys() == (fields if of_session else fields - {"version"}), "a field is not described"
        event: dict[str, object] = {**entry, "data": json.loads(entry["data"])}
        if of_session:
            event["version"] = int(entry["version"])
        of_event.validate(event)
        assert json.loads(received) == event


def test_rights_that_the_page_names_are_enough(service: Service, redis_server: RedisServer) -> None:
    """A user of Redis with exactly these can read in a group, and cannot read anything else."""
    page = (DOCS / "events.md").read_text()
    [rights] = re.findall(r"ACL SETUSER reader on >… (.*?)`", page)
    [more] = re.findall(r"also `(.*?)`", page)
    stream = service.keys.events(0)
    rights = rights.replace("lr:*:events", stream.replace("{10}", "*"))
    with redis_server.client() as redis:
        redis.execute_command("ACL", "SETUSER", "reader", "reset", "on", ">made-up", *rights.split(), *more.split())
        try:
            redis.execute_command("AUTH", "reader", "made-up")
            redis.xgroup_create(stream, "readers", id="0", mkstream=True)
            redis.execute_command("XREADGROUP", "GROUP", "readers", "me", "STREAMS", stream, ">")
            redis.execute_command("XREAD", "STREAMS", stream, "0")
            with pytest.raises(ResponseError, match="no permissions"):
                redis.get(service.keys.project_names())
        finally:
            with redis_server.client() as other:
                other.execute_command("ACL", "DELUSER", "reader")

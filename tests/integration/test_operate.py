import asyncio
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import uuid
from base64 import urlsafe_b64decode
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest
from click.testing import CliRunner, Result
from joserfc.jwk import OctKey, OKPKey
from redis.asyncio import Redis

from api.stack.admin_tokens import AdminTokens
from api.stack.errors import KnownError
from login_relay.cli import COMMANDS, main
from projects.project import KEY_PREFIXES, KeyKind
from projects.store import Projects
from runtime.redis.keys import Keys
from runtime.settings import Settings, variable
from statemachine.commands import CompleteSession, ConsumeSession, encode_command
from statemachine.store.command_stream import CommandStream
from tests.support.eventually import wait_until
from tests.support.relay import PROJECT, SEALED, Relay

RFC_3339 = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z")

Operate = Callable[..., Awaitable[Result]]


@pytest.fixture
def environment(settings: Settings) -> dict[str, str]:
    """What an operator would have in the environment to work on the relay of this test."""
    assert settings.redis_url is not None
    return {
        variable("redis_url"): settings.redis_url,
        variable("prefix"): settings.prefix,
        variable("partitions"): str(settings.partitions),
    }


@pytest.fixture
def operate(environment: dict[str, str]) -> Operate:
    """Run `login-relay …` on the relay of this test."""

    async def run(*arguments: str, text: str | None = None, **variables: str) -> Result:
        # In a thread: the command has an event loop of its own.
        return await asyncio.to_thread(
            CliRunner().invoke, main, arguments, input=text, env=environment | variables, catch_exceptions=False
        )

    return run


def shown(result: Result) -> Any:  # noqa: ANN401 - JSON
    """Return what a command printed as one JSON value on standard output."""
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def refused(result: Result, exit_code: int) -> str:
    """Return the one line on standard error of a command that failed with `exit_code`."""
    assert result.exit_code == exit_code, result.output
    assert result.stdout == ""
    [line] = result.stderr.splitlines()
    assert line.startswith("login-relay: ")
    return line


async def test_created_project_is_one_json_object_with_keys_that_work(operate: Operate, projects: Projects) -> None:
    """A script can rely on the names; the keys match what is stored, which is not the keys."""
    made = shown(await operate("projects", "create", "acme", "--json"))
    assert list(made) == ["project_id", "name", *KeyKind]
    assert str(uuid.UUID(made["project_id"])) == made["project_id"]
    assert made["name"] == "acme"
    project, now = await projects.read(made["project_id"])
    assert project is not None
    assert not project.allow_client_complete
    for kind in KeyKind:
        assert made[kind].startswith(KEY_PREFIXES[kind])
        assert project.keys[kind].matches(made[kind], now)


async def test_project_may_let_clients_complete(operate: Operate, projects: Projects) -> None:
    """The flag is stored, and told by the list."""
    await operate("projects", "create", "acme", "--allow-client-complete")
    assert (await projects.find("acme")).allow_client_complete
    [listed] = shown(await operate("projects", "list", "--json"))
    assert listed["allow_client_complete"] is True


async def test_project_is_updated_in_what_is_said_alone(operate: Operate, projects: Projects) -> None:
    """Origins are added and taken away one by one; what is not named stays as it is."""
    app, local = "https://app.example.com", "http://localhost:3000"
    await operate(
        "projects", "create", "acme", "--allow-origin", "HTTPS://app.example.com:443/", "--allow-origin", local
    )
    assert (await projects.find("acme")).allowed_origins == (local, app)
    for arguments, origins, complete in (
        (("--allow-client-complete",), (local, app), True),
        (("--allow-origin", "https://b.example"), (local, app, "https://b.example"), True),
        (("--forbid-origin", app, "--forbid-origin", "https://b.example"), (local,), True),
        (("--no-allow-client-complete",), (local,), False),
        ((), (local,), False),
    ):
        assert (await operate("projects", "update", "acme", *arguments)).exit_code == 0
        project = await projects.find("acme")
        assert (project.allowed_origins, project.allow_client_complete) == (origins, complete)
    [listed] = shown(await operate("projects", "list", "--json"))
    assert listed["allowed_origins"] == [local]
    assert local in (await operate("projects", "list")).stdout


@pytest.mark.parametrize(
    "origin",
    [
        *(
            "*",
            "null",
            "",
            "app.example.com",
            "https://",
            "ftp://a.example",
            "https://a.example/path",
            "https://*.a.example",
        ),
        *("https://user@a.example", "https://a.example?x", "https://a.example https://b.example", "https://ä.example"),
    ],
)
async def test_origin_that_is_none_is_refused(operate: Operate, projects: Projects, origin: str) -> None:
    """No wildcard, no path, no user: what browsers send has none either."""
    assert "https://app.example.com" in refused(
        await operate("projects", "create", "acme", "--allow-origin", origin), 2
    )
    assert await projects.list_all() == []


async def test_people_are_told_that_keys_are_shown_once(operate: Operate) -> None:
    """The keys are on standard output, the warning beside them."""
    result = await operate("projects", "create", "acme")
    assert re.findall(r"\b(?:pck|ssk|sak)_[\w-]{43}\b", result.stdout)
    assert "shown this once" in result.stderr


async def test_name_is_taken_once(operate: Operate) -> None:
    """A second project of a name is refused in one line, and the first stays as it is."""
    made = shown(await operate("projects", "create", "acme", "--json"))
    assert "'acme' exists already" in refused(await operate("projects", "create", "acme"), 1)
    assert [row["project_id"] for row in shown(await operate("projects", "list", "--json"))] == [made["project_id"]]


@pytest.mark.parametrize("name", ["", "a" * 65, "tab\there", " ends", "new\nline", PROJECT, PROJECT.upper(), "\ud800"])
async def test_name_that_cannot_be_one_is_refused(operate: Operate, projects: Projects, name: str) -> None:
    """Names are short and printable and never read as an id: what looks one up stays unambiguous."""
    refused(await operate("projects", "create", "--", name), 2)
    assert await projects.list_all() == []


async def test_list_shows_projects_and_no_keys(operate: Operate) -> None:
    """By name, with ids and times; without any there is a hint."""
    assert "projects create" in (await operate("projects", "list")).stdout
    made = [shown(await operate("projects", "create", name, "--json")) for name in ("beta", "acme")]
    text = (await operate("projects", "list")).stdout
    assert [line.split()[0] for line in text.splitlines()] == ["name", "acme", "beta"]
    assert all(project["project_id"] in text for project in made)
    assert not any(project[kind] in text for project in made for kind in KeyKind)
    listed = shown(await operate("projects", "list", "--json"))
    assert all(RFC_3339.fullmatch(row["created_at"]) for row in listed)


async def test_rotated_key_replaces_the_old_one_after_the_overlap(operate: Operate, projects: Projects) -> None:
    """Both are valid for the overlap that was asked for; the other keys are as before."""
    made = shown(await operate("projects", "create", "acme", "--json"))
    arguments = ("--key", "secret", "--overlap", "10m", "--json")
    rotated = shown(await operate("projects", "rotate", made["project_id"], *arguments))
    assert list(rotated) == ["project_id", "name", KeyKind.SECRET_SERVER, "previous_keys_valid_until"]
    project, now = await projects.read(made["project_id"])
    assert project is not None
    secret = project.keys[KeyKind.SECRET_SERVER]
    assert secret.matches(rotated[KeyKind.SECRET_SERVER], now)
    assert secret.matches(made[KeyKind.SECRET_SERVER], now + 500_000)
    assert not secret.matches(made[KeyKind.SECRET_SERVER], now + 600_001)
    assert project.keys[KeyKind.PUBLISHABLE_CLIENT].matches(made[KeyKind.PUBLISHABLE_CLIENT], now)


async def test_rotation_without_options_replaces_all_keys(operate: Operate, projects: Projects) -> None:
    """By name too; the old keys stay valid for a day."""
    made = shown(await operate("projects", "create", "acme", "--json"))
    rotated = shown(await operate("projects", "rotate", "acme", "--json"))
    project, now = await projects.read(made["project_id"])
    assert project is not None
    for kind in KeyKind:
        assert project.keys[kind].matches(rotated[kind], now)
        assert project.keys[kind].matches(made[kind], now + 86_000_000)
        assert not project.keys[kind].matches(made[kind], now + 86_400_001)


@pytest.mark.parametrize(
    ("overlap", "milliseconds"), [("0", 0), ("30s", 30_000), ("24h", 86_400_000), ("7d", 604_800_000)]
)
async def test_overlap_is_a_length_of_time(
    operate: Operate, projects: Projects, overlap: str, milliseconds: int
) -> None:
    """Seconds, minutes, hours, days, or none at all."""
    await operate("projects", "create", "acme")
    await operate("projects", "rotate", "acme", "--overlap", overlap)
    project = await projects.find("acme")
    _, now = await projects.read(project.id)
    assert now - 5_000 + milliseconds <= project.keys[KeyKind.SECRET_SERVER].previous_until <= now + milliseconds


@pytest.mark.parametrize("overlap", ["", "10", "-1s", "1w", "1.5h", "٣s", "1234567s"])
async def test_overlap_that_is_none_is_refused(operate: Operate, overlap: str) -> None:
    """In one line that shows how to say it."""
    await operate("projects", "create", "acme")
    assert "10m" in refused(await operate("projects", "rotate", "acme", "--overlap", overlap), 2)


async def test_project_is_deleted_when_the_question_is_answered_with_yes(operate: Operate, projects: Projects) -> None:
    """No answer and another answer leave it; `--yes` does not ask. The name is free afterwards."""
    await operate("projects", "create", "acme")
    for answer in ("", "n\n"):
        assert (await operate("projects", "delete", "acme", text=answer)).exit_code == 1
    assert [project.name for project in await projects.list_all()] == ["acme"]
    assert (await operate("projects", "delete", "acme", text="y\n")).exit_code == 0
    assert await projects.list_all() == []
    made = shown(await operate("projects", "create", "acme", "--json"))
    assert (await operate("projects", "delete", made["project_id"], "--yes")).exit_code == 0


@pytest.mark.parametrize("command", ["rotate", "update", "delete"])
async def test_unknown_project_is_refused(operate: Operate, command: str) -> None:
    """In one line, before any question."""
    assert "'nobody'" in refused(await operate("projects", command, "nobody"), 1)


async def test_session_is_shown_without_its_secrets(operate: Operate, relay: Relay) -> None:
    """State, version, times and the client's facts; no code, digest, key or token."""
    initiated = await relay.initiate()
    pending = shown(await operate("sessions", "show", initiated.session_id, "--json"))
    assert (pending["state"], pending["version"], pending["completed_at"]) == ("pending", 1, None)
    await relay.complete(initiated.session_id)
    await relay.work()
    completed = shown(await operate("sessions", "show", initiated.session_id, "--json"))
    assert (completed["state"], completed["version"], completed["project_id"]) == ("completed", 2, PROJECT)
    assert completed["client_name"] == "tool"
    times = [completed[name] for name in ("created_at", "completed_at", "expires_at", "deadline", "forgotten_at")]
    assert all(RFC_3339.fullmatch(time) for time in times)
    assert times == sorted(times)
    text = (await operate("sessions", "show", initiated.session_id)).stdout
    assert "completed" in text
    key = relay.keys.session(initiated.session_id)
    digest: bytes = await relay.redis.execute_command("HGET", key, "polling_digest")
    for output in (text, json.dumps(completed)):
        assert initiated.polling_code not in output
        assert initiated.login_code not in output
        assert digest.hex() not in output


async def test_session_that_is_not_there_is_refused(operate: Operate, relay: Relay) -> None:
    """Unknown is exit code 1. What is no session id is exit code 2, and is not repeated: it may be a polling code."""
    assert "no session" in refused(await operate("sessions", "show", "00" + 24 * "a"), 1)
    polling_code = (await relay.initiate()).polling_code
    assert polling_code not in refused(await operate("sessions", "show", polling_code), 2)
    assert polling_code not in refused(await operate("events", "--session", polling_code), 2)
    refused(await operate("sessions", "show", "01" + 24 * "a"), 2)  # of a partition that does not exist


async def bury(relay: Relay, redis: Redis, command: bytes) -> str:
    """Move a command to the dead letters; returns how operators name it."""
    await relay.record(command)
    [entry] = await relay.read()
    await relay.stream.move_to_dead_letters(entry._replace(deliveries=6), "handler failed: KeyError")
    stream = relay.keys.dead_letters(entry.partition)
    newest: list[tuple[bytes, object]] = await redis.execute_command("XREVRANGE", stream, "+", "-", "COUNT", 1)
    return f"{entry.partition}:{newest[0][0].decode()}"


async def test_dead_letter_is_shown_without_its_token(operate: Operate, relay: Relay, redis: Redis) -> None:
    """Why it is there, and of the command all but the sealed token."""
    session_id = (await relay.initiate()).session_id
    command = CompleteSession("id", session_id, "api", SEALED)
    letter = await bury(relay, redis, encode_command(command))
    listed = shown(await operate("dead-letters", "list", "--json"))
    assert listed == shown(await operate("dead-letters", "show", letter, "--json"))
    assert (listed["id"], listed["reason"], listed["deliveries"]) == (letter, "handler failed: KeyError", 6)
    assert listed["command"]["session_id"] == session_id
    assert RFC_3339.fullmatch(listed["moved_at"])
    for output in (await operate("dead-letters", "list"), await operate("dead-letters", "show", letter)):
        assert session_id in output.stdout
    sealed = msgspec.to_builtins(command)["sealed_token"]
    assert sealed not in json.dumps(listed)


async def test_dead_letter_that_is_no_command_is_shown(operate: Operate, relay: Relay, redis: Redis) -> None:
    """Undecodable bytes are told by their number."""
    letter = await bury(relay, redis, b"\xff no command")
    listed = shown(await operate("dead-letters", "list", "--json"))
    assert (listed["id"], listed["bytes"], listed["command"]) == (letter, 12, {})
    assert letter in (await operate("dead-letters", "list")).stdout


async def test_no_dead_letters_is_told(operate: Operate) -> None:
    """Nothing is the usual case."""
    assert (await operate("dead-letters", "list")).stdout == "No dead letters.\n"
    assert (await operate("dead-letters", "list", "--json")).stdout == ""


async def test_more_dead_letters_than_a_page_are_all_listed(operate: Operate, relay: Relay, redis: Redis) -> None:
    """The list goes on from page to page, and repeats nothing."""
    async with redis.pipeline() as pipeline:
        for number in range(1_001):
            fields = ("entry", f"{number}-1", "command", "", "reason", "undecodable", "deliveries", 6)
            pipeline.execute_command("XADD", relay.keys.dead_letters(0), "*", *fields)
        await pipeline.execute()
    listed = [json.loads(line) for line in (await operate("dead-letters", "list", "--json")).stdout.splitlines()]
    assert [row["entry"] for row in listed] == [f"{number}-1" for number in range(1_001)]


async def test_replayed_dead_letter_is_decided(operate: Operate, relay: Relay, redis: Redis) -> None:
    """It goes back to the workers as a new entry, once, and is no dead letter any more."""
    session_id = (await relay.initiate()).session_id
    letter = await bury(relay, redis, encode_command(CompleteSession("id", session_id, "api", SEALED)))
    result = await operate("dead-letters", "replay", letter)
    assert result.exit_code == 0, result.output
    [entry] = await relay.read()
    assert entry.id in result.stdout
    assert not await relay.handlers.handle([entry])
    assert (await relay.session(session_id)).state == "completed"
    assert (await operate("dead-letters", "list")).stdout == "No dead letters.\n"
    assert letter in refused(await operate("dead-letters", "replay", letter), 1)
    assert await relay.backlog() == 0


async def test_dead_consume_is_not_replayed(operate: Operate, relay: Relay, redis: Redis) -> None:
    """Its poll has ended: decided now it would hand the token to nobody. The session waits for the next poll."""
    session_id = (await relay.completed()).session_id
    letter = await bury(relay, redis, encode_command(ConsumeSession("id", session_id, "api", 4_000)))
    assert "ConsumeSession" in refused(await operate("dead-letters", "replay", letter), 1)
    assert await relay.backlog() == 0
    assert shown(await operate("dead-letters", "list", "--json"))["id"] == letter
    assert (await relay.session(session_id)).state == "completed"


async def test_dropped_dead_letter_is_gone(operate: Operate, relay: Relay, redis: Redis) -> None:
    """Several at once; the others stay."""
    letters = [await bury(relay, redis, b"entry %d" % number) for number in range(3)]
    assert (await operate("dead-letters", "drop", *letters[:2])).exit_code == 0
    assert shown(await operate("dead-letters", "list", "--json"))["id"] == letters[2]
    refused(await operate("dead-letters", "drop", letters[0]), 1)


@pytest.mark.parametrize("letter", ["x", "0", "0:1", "1:1-1", "0:1-1-1", f"0:{2**64}0-1"])
async def test_name_of_no_dead_letter_is_refused(operate: Operate, letter: str) -> None:
    """Malformed, or of a partition that does not exist."""
    for command in ("show", "replay", "drop"):
        refused(await operate("dead-letters", command, letter), 2)


async def test_status_shows_backlog_and_ages(operate: Operate, relay: Relay, redis: Redis) -> None:
    """What is unread, what a worker has, how old each is, and what died."""
    now = await relay.now()
    for age in (900_000, 600_000, 300_000):
        await redis.execute_command("XADD", relay.keys.commands(0), f"{now - age}-0", "command", "")
    await relay.read("busy", 1)
    await redis.xadd(relay.keys.dead_letters(0), {"reason": "undecodable"})
    found = shown(await operate("status", "--json"))
    [partition] = found["partitions"]
    assert 600_000 <= partition.pop("oldest_unread_ms") < 700_000
    assert 900_000 <= partition.pop("oldest_pending_ms") < 1_000_000
    assert partition == {"partition": 0, "backlog": 3, "pending": 1, "dead_letters": 1}
    [worker] = found["workers"]
    assert (worker["consumer"], worker["pending"], worker["alive"]) == ("busy", 1, False)
    assert "busy" in (await operate("status")).stdout


async def test_status_counts_a_worker_of_several_partitions_once(
    operate: Operate, redis: Redis, settings: Settings
) -> None:
    """A row for each partition; a worker reads them all, and is one worker."""
    keys = Keys(settings.prefix, 2)
    stream = CommandStream(redis, keys)
    await stream.ensure_groups()
    for partition in keys.partitions:
        await redis.xadd(keys.commands(partition), {"command": b""})
    assert len(await stream.read(redis, "busy", 10, block_ms=1)) == 2
    found = shown(await operate("status", "--json", **{variable("partitions"): "2"}))
    assert [(row["partition"], row["pending"]) for row in found["partitions"]] == [(0, 1), (1, 1)]
    assert [(worker["consumer"], worker["pending"]) for worker in found["workers"]] == [("busy", 2)]
    for partition in keys.partitions:
        await redis.delete(keys.commands(partition))


async def test_status_works_before_the_first_worker(operate: Operate, redis: Redis, keys: Keys) -> None:
    """On an empty Redis, and on one that an API has written to."""
    empty = shown(await operate("status", "--json"))
    assert empty["workers"] == []
    assert empty["partitions"][0]["oldest_unread_ms"] is None
    await redis.xadd(keys.commands(0), {"command": b"early"})
    [partition] = shown(await operate("status", "--json"))["partitions"]
    assert partition["backlog"] == 1
    assert partition["oldest_unread_ms"] is not None
    assert "No worker has been seen." in (await operate("status")).stdout


@pytest.mark.usefixtures("worker")
async def test_working_worker_is_alive(environment: dict[str, str]) -> None:
    """Its sign of life says where it runs. A new consumer is dead until its first one."""

    async def is_alive() -> bool:
        return await command("health", "worker") == (0, b"alive\n")

    # Processes of their own: what this one writes while a command is run in it would count as the command's.
    async def command(*arguments: str) -> tuple[int | None, bytes]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "login_relay", *arguments),
            env=os.environ | environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        output, _ = await process.communicate()
        return process.returncode, output

    await wait_until(is_alive, within=20)
    _, output = await command("status", "--json")
    [worker] = json.loads(output)["workers"]
    assert (worker["alive"], worker["host"], worker["pid"]) == (True, socket.gethostname(), os.getpid())


async def test_worker_without_a_sign_of_life_is_unhealthy(operate: Operate, relay: Relay) -> None:
    """A consumer that once read is not enough."""
    await relay.read()
    assert socket.gethostname() in refused(await operate("health", "worker"), 1)


async def test_worker_of_another_machine_is_not_this_one_s_health(
    operate: Operate, relay: Relay, redis: Redis, keys: Keys
) -> None:
    """A container's check is about its own worker, however well the others are."""
    await relay.read("elsewhere:1:a")
    sign = json.dumps({"host": "elsewhere", "pid": 1, "started_at": 0.0})
    await redis.set(keys.worker("elsewhere:1:a"), sign, ex=60)
    refused(await operate("health", "worker"), 1)


async def test_api_that_does_not_answer_is_unhealthy(operate: Operate) -> None:
    """Nothing listens there; the line says where."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))  # bound but not listening: refused
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert url in refused(await operate("health", "api", "--url", url), 1)


async def test_events_are_printed_in_order(operate: Operate, relay: Relay) -> None:
    """For people a line each, for programs a CloudEvent each, on demand of one session only."""
    first, second = await relay.completed(), await relay.initiate()
    printed = [json.loads(line) for line in (await operate("events", "--json")).stdout.splitlines()]
    assert [(event["type"], event["subject"], event["version"]) for event in printed] == [
        ("session.initiated", first.session_id, 1),
        ("session.completed", first.session_id, 2),
        ("session.initiated", second.session_id, 1),
    ]
    assert printed[0]["data"]["project_id"] == PROJECT
    lines = (await operate("events", "--session", first.session_id)).stdout.splitlines()
    assert [line.split()[1] for line in lines] == ["session.initiated", "session.completed"]


async def test_followed_events_are_those_to_come(relay: Relay, environment: dict[str, str]) -> None:
    """They are printed as they happen, until Ctrl-C ends it without a word."""
    before = (await relay.initiate()).session_id
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "login_relay", "events", "--follow", "--json"),
        env=os.environ | environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    first = asyncio.create_task(process.stdout.readline())
    initiated = []

    async def is_told() -> bool:
        initiated.append((await relay.initiate()).session_id)
        return first.done()

    await wait_until(is_told, within=20)
    subject = json.loads(first.result())["subject"]
    assert subject in initiated
    assert subject != before
    after = initiated[initiated.index(subject) + 1 :]
    for session_id in after:
        assert json.loads(await process.stdout.readline())["subject"] == session_id
    process.send_signal(signal.SIGINT)
    rest, errors = await process.communicate()
    assert (process.returncode, rest, errors) == (-signal.SIGINT, b"", b"")


async def token_for(operate: Operate, key_file: Path, *options: str, **variables: str) -> str:
    """Return an admin access token for PROJECT."""
    result = await operate("admin-token", "--key", str(key_file), "--project", PROJECT, *options, **variables)
    assert result.exit_code == 0, result.stderr
    return result.stdout.strip()


async def generate(operate: Operate, folder: Path) -> tuple[Path, Settings]:
    """Make a key; returns its file and settings that name its public half."""
    result = await operate("admin-token", "--generate", str(folder / "admin.jwk"))
    assert result.exit_code == 0, result.stderr
    (folder / "jwks.json").write_text(result.stdout)
    return folder / "admin.jwk", Settings(admin_jwks_file=str(folder / "jwks.json"))


async def test_token_of_a_generated_key_is_accepted(operate: Operate, tmp_path: Path) -> None:
    """For its projects, by who knows only the public half; the private half is its owner's alone."""
    key_file, settings = await generate(operate, tmp_path)
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert json.loads(key_file.read_text())["d"] not in (tmp_path / "jwks.json").read_text()
    tokens = AdminTokens.from_settings(settings)
    token = await token_for(operate, key_file)
    tokens.check(token, PROJECT)
    with pytest.raises(KnownError, match="NOT_ADMIN"):
        tokens.check(token, str(uuid.uuid4()))


async def test_token_has_the_claim_and_the_life_that_were_asked_for(operate: Operate, tmp_path: Path) -> None:
    """The claim's name is a setting, as it is for who checks."""
    key_file, _ = await generate(operate, tmp_path)
    other = str(uuid.uuid4())
    options = ("--project", other, "--expires-in", "10m")
    token = await token_for(operate, key_file, *options, **{variable("admin_projects_claim"): "tenants"})
    payload = token.split(".")[1]
    claims = json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert claims["tenants"] == [PROJECT, other]
    assert claims["exp"] - claims["iat"] == 600


async def test_key_in_use_is_not_overwritten(operate: Operate, tmp_path: Path) -> None:
    """A second `--generate` is refused and leaves the first key."""
    key_file, _ = await generate(operate, tmp_path)
    key = key_file.read_bytes()
    assert "exists" in refused(await operate("admin-token", "--generate", str(key_file)), 1)
    assert key_file.read_bytes() == key


@pytest.mark.parametrize(
    "key",
    [
        OctKey.generate_key(256, {"use": "sig"}).as_dict(private=True),
        OKPKey.generate_key("X25519", private=True).as_dict(private=True),
        OKPKey.generate_key("Ed25519", private=True).as_dict(private=False),
        {"kty": "OKP"},
        {"keys": []},
        [],
    ],
    ids=["shared secret", "for agreement", "public", "incomplete", "a set", "no object"],
)
async def test_key_that_cannot_sign_is_refused(operate: Operate, tmp_path: Path, key: object) -> None:
    """In one line, which does not repeat the key."""
    path = tmp_path / "key.jwk"
    path.write_text(json.dumps(key))
    line = refused(await operate("admin-token", "--key", str(path), "--project", PROJECT), 1)
    assert str(path) in line
    assert not isinstance(key, dict) or all(str(value) not in line for name, value in key.items() if name in "dk")


async def test_admin_token_options_that_do_not_go_together_are_refused(operate: Operate, tmp_path: Path) -> None:
    """Half of what is needed, both uses at once, a token that nobody could use."""
    key_file, _ = await generate(operate, tmp_path)
    for arguments in (
        [],
        ["--key", str(key_file)],
        ["--project", PROJECT],
        ["--generate", "x", "--project", PROJECT],
        ["--key", str(key_file), "--project", PROJECT, "--expires-in", "0"],
        ["--key", str(key_file), "--project", "acme"],
    ):
        refused(await operate("admin-token", *arguments), 2)


@pytest.mark.parametrize("command", ["status", "projects list", "events", "dead-letters list", "health worker"])
async def test_redis_that_is_not_there_is_told_in_one_line(operate: Operate, command: str) -> None:
    """Exit code 1; a password in the URL is not repeated."""
    url = "redis://user:opensesame@127.0.0.1:1/0"
    line = refused(await operate(*command.split(), **{variable("redis_url"): url}), 1)
    assert "Redis cannot be reached" in line
    assert "opensesame" not in line


@pytest.mark.parametrize(
    ("setting", "value"),
    [("redis_url", "localhost"), ("partitions", "0"), ("port", "http"), ("redis_urll", "redis://localhost")],
)
async def test_bad_setting_is_told_in_one_line(operate: Operate, setting: str, value: str) -> None:
    """Exit code 2, with the variable's name."""
    assert variable(setting) in refused(await operate("status", **{variable(setting): value}), 2)


async def test_without_a_redis_the_line_says_what_to_do(operate: Operate, tmp_path: Path) -> None:
    """Neither the setting nor a running `serve`: both are named, with the folder that was looked in."""
    line = refused(await operate("status", **{variable("redis_url"): "", variable("state_dir"): str(tmp_path)}), 2)
    assert all(word in line for word in (variable("redis_url"), "login-relay serve", str(tmp_path)))


@pytest.mark.parametrize(
    "arguments",
    [["nothing"], ["status", "--nothing"], ["status", "more"], ["projects", "create"], ["serve", "--port", "0"]],
)
async def test_wrong_usage_is_told_in_one_line(operate: Operate, arguments: list[str]) -> None:
    """With the place of the help."""
    assert "--help`" in refused(await operate(*arguments), 2)


@pytest.mark.parametrize("arguments", [[], ["projects"], ["dead-letters"]])
async def test_group_without_a_command_shows_its_help(operate: Operate, arguments: list[str]) -> None:
    """On standard error, with exit code 2: nothing was done."""
    result = await operate(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Commands:" in result.stderr


def test_help_says_of_each_command_what_the_command_says() -> None:
    """The lines are kept apart from the commands, so that the help imports none of them."""
    context = click.Context(main)
    for name, place in COMMANDS.items():
        command = main.get_command(context, name)
        assert command is not None
        assert place.line == command.get_short_help_str(limit=100)


def test_help_is_quick() -> None:
    """It imports neither Redis' client nor the web framework: a shell's completion waits for it."""
    code = (
        "import sys; from login_relay.cli import COMMANDS, main\n"
        "try: main(['--help'])\n"
        "except SystemExit: assert not {'redis', 'litestar', 'httpx'} & sys.modules.keys()"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert "serve" in result.stdout

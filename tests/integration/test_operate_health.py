import asyncio
import json
import os
import socket
import sys

import pytest
from redis.asyncio import Redis

from runtime.redis.keys import Keys
from tests.support.eventually import wait_until
from tests.support.operate import Operate, refused
from tests.support.relay import Relay


@pytest.mark.usefixtures("worker")
async def test_working_worker_is_alive(environment: dict[str, str]) -> None:
    """Its sign of life says where it runs. A new consumer counts as dead until its first one."""

    async def is_alive() -> bool:
        return await command("health", "worker") == (0, b"alive\n")

    # Own processes: what this one writes while it runs a command would count as the command's output.
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
    """A consumer that read at some time is not enough."""
    await relay.read()
    assert socket.gethostname() in refused(await operate("health", "worker"), 1)


async def test_worker_of_another_machine_is_not_this_one_s_health(
    operate: Operate, relay: Relay, redis: Redis, keys: Keys
) -> None:
    """A container checks its own worker; healthy workers elsewhere do not count."""
    await relay.read("elsewhere:1:a")
    sign = json.dumps({"host": "elsewhere", "pid": 1, "started_at": 0.0})
    await redis.set(keys.worker("elsewhere:1:a"), sign, ex=60)
    refused(await operate("health", "worker"), 1)


async def test_api_that_does_not_answer_is_unhealthy(operate: Operate) -> None:
    """Nothing listens there; the line names the address."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))  # bound but not listening: refused
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert url in refused(await operate("health", "api", "--url", url), 1)

"""The master secrets of running API processes: read again, compared, and in no other process and no log."""

import asyncio
import json
from pathlib import Path
from signal import SIGTERM

import msgspec
import pytest

from runtime.master_secret import new_master_secret
from runtime.master_secrets import read_master_secrets, write_master_secrets
from tests.support.eventually import wait_until
from tests.support.redis_server import RedisServer
from tests.support.services import Service, StartService
from tokens.announcing import PERIOD, Announcement

WITHIN = 4 * PERIOD  # seconds


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with one secret."""
    path = tmp_path / "keys.json"
    write_master_secrets(path, [new_master_secret()], is_new=True)
    return path


class Announced:
    """What the API processes of a service say that they have."""

    def __init__(self, server: RedisServer, service: Service) -> None:
        self._server = server
        self._service = service

    def fingerprints(self) -> list[list[str]]:
        """Return the fingerprints of each process."""
        with self._server.client() as redis:
            found = redis.zrange(self._service.keys.master_secrets(), 0, -1)
        assert isinstance(found, list)
        return [[*msgspec.json.decode(one, type=Announcement).fingerprints] for one in found]

    def wait(self, *expected: Path | None) -> None:
        """Wait until there is one process for each of these files, with what is in it."""
        wanted = sorted([one.fingerprint for one in read_master_secrets(file)] if file else [] for file in expected)
        asyncio.run(wait_until(lambda: sorted(self.fingerprints()) == wanted, within=WITHIN))


def test_file_is_read_again_by_every_process_without_a_restart(
    redis_server: RedisServer, start_service: StartService, path: Path
) -> None:
    """Of two APIs, one with two processes; a defective file changes nothing, and each process logs why."""
    service = start_service(workers=0, apis=1, keys_file=str(path))
    service.start_api("--workers", "2")
    service.wait_until_ready()
    announced = Announced(redis_server, service)
    announced.wait(path, path, path)
    kept = read_master_secrets(path)
    write_master_secrets(path, (new_master_secret(), *kept))
    announced.wait(path, path, path)
    before = announced.fingerprints()
    path.write_text('{"keys": []}')
    asyncio.run(wait_until(lambda: service.output.count("must have 1 to 8 keys") == 3, within=WITHIN))
    assert announced.fingerprints() == before
    write_master_secrets(path, kept)
    announced.wait(path, path, path)
    for api in service.apis:
        api.send(SIGTERM)
        assert api.wait() == 0
    assert announced.fingerprints() == []


def test_only_api_processes_read_the_file(redis_server: RedisServer, start_service: StartService, path: Path) -> None:
    """A worker starts with a file that it could not read, and no secret is in a log, in Redis or in an environment."""
    service = start_service(keys_file=str(path), log_level="debug")
    Announced(redis_server, service).wait(path)
    secrets = [one["k"] for one in json.loads(path.read_text())["keys"]]
    path.chmod(0o644)
    worker = service.start_worker()
    service.wait_until_ready()
    assert worker.is_running
    assert str(path) not in worker.output
    asyncio.run(wait_until(lambda: "chmod 600" in service.apis[0].output, within=WITHIN))
    assert not any(secret in service.output for secret in secrets)


def test_process_without_the_file_beside_one_with_it_is_seen(
    redis_server: RedisServer, start_service: StartService, path: Path
) -> None:
    """Each announces what it has; logins work on both."""
    service = start_service(keys_file=str(path))
    service.start_api(LOGIN_RELAY_KEYS_FILE="")
    service.wait_until_ready()
    Announced(redis_server, service).wait(path, None)

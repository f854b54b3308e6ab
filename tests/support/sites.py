"""Services whose Redis, connections and files a test may harm, each with a proxy in front of its API."""

import asyncio
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx
from redis.asyncio import Redis

from runtime.redis.keys import Keys
from tests.support.eventually import wait_until
from tests.support.proxy import Proxy
from tests.support.redis_process import RedisProcess
from tests.support.services import ProjectKeys, Service, StartService

PACKAGES = ("api", "worker", "statemachine", "projects", "events", "runtime", "login_relay", "login_relay_client")
CLIENT_TIMEOUT = 30.0  # seconds; longer than any answer may take, so that a late one is noticed and not cut off


class Login(NamedTuple):
    """The answer to initiate that a tool got."""

    session_id: str
    login_code: str
    polling_code: str


class Client:
    """A tool and a backend, on one connection pool."""

    def __init__(self, url: str, project: ProjectKeys) -> None:
        self.http = httpx.AsyncClient(base_url=f"{url}/api/v1/auth", trust_env=False, timeout=CLIENT_TIMEOUT)
        self.project = project

    async def initiate(self, **body: object) -> Login:
        """Start a session."""
        response = await self.http.post("/cli", headers=self.project.client_headers, json=body)
        assert response.status_code == 200, response.text
        made = response.json()
        return Login(made["session_id"], made["login_code"], made["polling_code"])

    async def complete(self, login: Login, key: str | None = None, token: str | None = None) -> httpx.Response:
        """Complete a session with a token that follows from its id, unless another is given; `key` is of this login."""
        return await self.http.post(
            "/cli/complete",
            headers=self.project.server_headers | key_of(login, key),
            json={"login_code": login.login_code, "refresh_token": token or f"rt-{login.session_id}"},
        )

    async def poll(self, login: Login, key: str | None = None, wait: int = 0) -> httpx.Response:
        """Poll a session; `key` is of this login."""
        headers = self.project.client_headers | key_of(login, key) | ({"prefer": f"wait={wait}"} if wait else {})
        return await self.http.post("/cli/poll", headers=headers, json={"polling_code": login.polling_code})

    async def completed(self) -> Login:
        """Start a session and complete it."""
        login = await self.initiate()
        response = await self.complete(login)
        assert response.status_code == 200, response.text
        return login


def key_of(login: Login, key: str | None) -> dict[str, str]:
    """Return the header of an Idempotency-Key that no other login has."""
    return {} if key is None else {"idempotency-key": f"{key}-{login.session_id}"}


class Site:
    """A running service with a proxy in front of its first API."""

    def __init__(self, service: Service, look: Redis) -> None:
        self.service = service
        self.look = look
        """A connection to Redis that no fault affects."""
        self.to_api = Proxy(urlsplit(service.url).port or 80)
        self.client: Client
        """Through the proxy."""

    async def open(self) -> None:
        """Start the proxy and its client."""
        await self.to_api.start()
        self.client = Client(f"http://127.0.0.1:{self.to_api.port}", self.service.project)

    async def close(self) -> None:
        """End both."""
        await self.client.http.aclose()
        await self.to_api.close()

    @property
    def keys(self) -> Keys:
        """The keys of the service."""
        return self.service.keys

    async def versions(self, session_id: str) -> list[tuple[str, int]]:
        """Return the types and versions of a session's events."""
        entries: list[tuple[bytes, dict[bytes, bytes]]] = await self.look.execute_command(
            "XRANGE", self.keys.events(0), "-", "+"
        )
        return [
            (fields[b"type"].decode(), int(fields[b"version"]))
            for _, fields in entries
            if fields[b"subject"].decode() == session_id
        ]

    async def until_ready(self) -> None:
        """Return when all processes serve; unlike `Service.wait_until_ready`, it does not block the proxies."""
        await asyncio.to_thread(self.service.wait_until_ready)

    async def is_at_rest(self) -> bool:
        """Return whether every command was decided."""
        stream = self.keys.commands(0)
        return not await self.look.xlen(stream) and not (await self.look.xpending(stream, "workers"))["pending"]


class OwnSite(Site):
    """A site on a Redis of its own, with a proxy in front of that too."""

    def __init__(self, service: Service, redis: RedisProcess, to_redis: Proxy) -> None:
        super().__init__(service, redis.client)
        self.redis = redis
        self.to_redis = to_redis


def copy_packages(folder: Path) -> dict[str, str]:
    """Copy our packages, so that they can be changed; returns the variables of a process that runs the copy."""
    for name in PACKAGES:
        spec = find_spec(name)
        assert spec
        assert spec.origin
        shutil.copytree(Path(spec.origin).parent, folder / name)
    return {"PYTHONPATH": str(folder)}


def change(file: Path, old: str, new: str) -> None:
    """Change a copied file in one place."""
    text = file.read_text()
    assert text.count(old) == 1, (file.name, old)
    file.write_text(text.replace(old, new))


class StartSite:
    """Starts sites: `await start_site(workers=2, outcome_wait_ms=…)`."""

    def __init__(self, redis: RedisProcess, start_service: StartService) -> None:
        self._redis = redis
        self._start_service = start_service
        self.sites: list[OwnSite] = []

    async def __call__(
        self, *, apis: int = 1, workers: int = 1, through_proxy: bool = True, **settings: object
    ) -> OwnSite:
        """Start a service, as `start_service` does, with its proxies."""
        to_redis = Proxy(self._redis.port)
        await to_redis.start()
        url = f"redis://127.0.0.1:{to_redis.port}/0" if through_proxy else self._redis.url
        service: Service = await asyncio.to_thread(
            self._start_service, **{"apis": apis, "workers": workers, "redis_url": url, **settings}
        )
        site = OwnSite(service, self._redis, to_redis)
        await site.open()
        self.sites.append(site)
        return site


async def receives_its_token(client: Client, login: Login, key: str | None = None) -> None:
    """Poll until the answer is final, which must be the token."""

    async def polled() -> dict[str, str]:
        answer = await client.poll(login, key=key)
        return {} if answer.status_code == 503 or answer.json()["status"] == "waiting" else answer.json()

    assert await wait_until(polled, within=20) == {"status": "success", "refresh_token": f"rt-{login.session_id}"}

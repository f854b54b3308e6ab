"""An attacker on the Internet, at an address of their choice, and the audit events that they cause."""

import asyncio
import itertools
import json
import uuid
from collections.abc import Mapping
from typing import Any, NamedTuple

import httpx

from runtime.codes import new_login_code, new_polling_code, new_session_id
from tests.support.redis_server import RedisServer
from tests.support.services import ProjectKeys, Service, create_project

PROXIES = "127.0.0.0/8"
"""The trusted proxies of a service under attack, so that attackers can choose addresses."""

USER_AGENT = f"attacker/1 \x9b31m{'x' * 300}".encode("latin-1")
"""With a sequence that colours a terminal (ECMA-48's CSI), and too long."""

USER_AGENT_TOLD = ("attacker/1 31m" + "x" * 300)[:200]
"""The form in which events contain it."""

INVALID_POLLING_CODE = "INVALID_POLLING_CODE"
INVALID_LOGIN_CODE = "Invalid login code or the code has expired"

_addresses = itertools.count(1)
# Shared, as making one takes longer than an attack. It keeps no connection: some servers here close idle ones soon.
_http = httpx.Client(trust_env=False, timeout=30.0, limits=httpx.Limits(max_keepalive_connections=0))


def new_address() -> str:
    """Return an address that nobody else in the tests has (RFC 2544's range, then on)."""
    number = next(_addresses)
    return f"198.18.{number // 250}.{number % 250 + 1}"


class Login(NamedTuple):
    """The answer to initiate that a tool got."""

    login_code: str
    polling_code: str
    session_id: str


class Client:
    """A client at an address, with the keys of a project; its requests go round all API processes."""

    def __init__(self, service: Service, project: ProjectKeys, address: str | None = None) -> None:
        self.service = service
        self.project = project
        self.address = address or new_address()
        self._urls = itertools.cycle(service.urls)

    def post(self, path: str, body: Mapping[str, object], headers: Mapping[str, str] | None = None) -> httpx.Response:
        """Send a request as a tool does, or with other headers as somebody else."""
        return _http.post(
            f"{next(self._urls)}/api/v1/auth/cli{path}",
            json=body,
            headers=[
                *((name.encode(), value.encode()) for name, value in (headers or self.project.client_headers).items()),
                (b"x-forwarded-for", self.address.encode()),
                (b"user-agent", USER_AGENT),
            ],
        )

    def initiate(self, **body: object) -> Login:
        """Start a login."""
        answer = self.post("", body)
        assert answer.status_code == httpx.codes.OK, answer.text
        told = answer.json()
        return Login(told["login_code"], told["polling_code"], told["session_id"])

    def poll(self, polling_code: str, **body: object) -> httpx.Response:
        """Ask for a token."""
        return self.post("/poll", {"polling_code": polling_code, **body})

    def complete(self, login_code: str, headers: Mapping[str, str] | None = None, **body: object) -> httpx.Response:
        """Complete a login, as a backend does."""
        return self.post("/complete", {"login_code": login_code, **body}, headers or self.project.server_headers)

    def guess_polling_code(self) -> httpx.Response:
        """Poll with a well-formed code of no session."""
        return self.poll(new_polling_code(new_session_id(0)).text)

    def guess_login_code(self, headers: Mapping[str, str] | None = None, **body: object) -> httpx.Response:
        """Complete with a well-formed code of no session."""
        return self.complete(new_login_code(), headers, **body)


def new_project(service: Service, *, allow_client_complete: bool = False) -> ProjectKeys:
    """Return a project of a test's own."""
    name = f"p-{uuid.uuid4().hex[:8]}"
    return asyncio.run(create_project(service.settings, name, allow_client_complete=allow_client_complete))


class Audit(NamedTuple):
    """An audit event."""

    type: str
    subject: str
    data: dict[str, Any]


def refusals(server: RedisServer, service: Service, project: ProjectKeys) -> list[Audit]:
    """Return the audit events of attacks on a project, in order."""
    return [audit for audit in audits(server, service, project) if audit.type != "audit.project_changed"]


def audits(server: RedisServer, service: Service, project: ProjectKeys) -> list[Audit]:
    """Return the audit events of a project, without those of sessions' lives, in order."""
    with server.client() as redis:
        entries = [
            fields
            for partition in service.keys.partitions
            for _, fields in redis.xrange(service.keys.events(partition))
        ]
    found = [
        Audit(fields[b"type"].decode(), fields[b"subject"].decode(), json.loads(fields[b"data"]))
        for fields in entries
        if fields[b"type"].startswith(b"audit.")
    ]
    return [audit for audit in found if audit.data["project_id"] == project.project_id]

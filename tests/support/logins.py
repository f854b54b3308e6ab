"""Logins over the HTTP API of a running service."""

import httpx

from tests.support.services import ProjectKeys, Service

CLI = "/api/v1/auth/cli"
WHOLE_LIFE = [("session.initiated", 1), ("session.completed", 2), ("session.consumed", 3)]
"""The types and versions of the events of a login, from beginning to end."""


async def log_in(url: str, project: ProjectKeys, subject: str = "ada") -> str:
    """Do a whole login; returns its session id."""
    async with httpx.AsyncClient(base_url=f"{url}/api/v1/auth", timeout=30, trust_env=False) as client:
        started = (await client.post("/cli", headers=project.client_headers)).raise_for_status().json()
        body = {"login_code": started["login_code"], "subject": subject}
        (await client.post("/cli/complete", headers=project.server_headers, json=body)).raise_for_status()
        body = {"polling_code": started["polling_code"]}
        polled = await client.post("/cli/poll", headers=project.client_headers, json=body)
        assert polled.status_code == 201
        return str(started["session_id"])


class Caller:
    """A tool and a backend, each request on a connection of its own."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def initiate(self, lifetime_ms: int = 60_000) -> dict[str, str]:
        """Start a login."""
        started: dict[str, str] = self._post("", expires_in_millis=lifetime_ms).json()
        return started

    def poll(self, started: dict[str, str], **headers: str) -> httpx.Response:
        """Ask for the token."""
        return self._post("/poll", headers, polling_code=started["polling_code"])

    def complete(self, started: dict[str, str], **headers: str) -> httpx.Response:
        """Complete the login."""
        return self._post("/complete", self._service.project.server_headers | headers, login_code=started["login_code"])

    def _post(self, path: str, headers: dict[str, str] | None = None, **body: object) -> httpx.Response:
        sent = self._service.project.client_headers | (headers or {})
        return httpx.post(f"{self._service.url}{CLI}{path}", headers=sent, json=body, trust_env=False, timeout=10)

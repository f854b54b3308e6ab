"""A client of a running service that checks every answer against the OpenAPI document."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import httpx

from tests.support.conformance import check
from tests.support.services import ProjectKeys, Service

INITIATE, POLL, COMPLETE, CANCEL = ENDPOINTS = ("/auth/cli", "/auth/cli/poll", "/auth/cli/complete", "/auth/cli/cancel")
KEYS = ("publishable-client-key", "secret-server-key", "super-secret-admin-key")
ISSUER, AUDIENCE = "https://issuer.example", "login-relay of the tests"


Headers = Mapping[str, str] | Mapping[bytes, bytes]


class Login(NamedTuple):
    """The answer to initiate that a tool got."""

    login_code: str
    polling_code: str


class Wire:
    """A client of a running service."""

    def __init__(self, service: Service, project: ProjectKeys | None = None) -> None:
        self.service = service
        self.project = project or service.project
        """The service's own project, whose client access may not complete, unless another is given."""
        self.client = httpx.Client(
            base_url=service.url, trust_env=False, timeout=30.0, event_hooks={"response": [check]}
        )

    @property
    def keys(self) -> dict[str, str]:
        """The project's keys, by the names of their headers without prefix."""
        return dict(zip(KEYS, self.project[1:], strict=True))

    def headers(self, *names: str, prefix: str = "x-stack-", **values: str) -> dict[str, str]:
        """Return headers: the project's id, the named keys, and others (with `_` for `-`)."""
        given = {
            "project-id": self.project.project_id,
            **{name: self.keys[name] for name in names},
            **{name.replace("_", "-"): value for name, value in values.items()},
        }
        return {prefix + name: value for name, value in given.items()}

    @property
    def client_headers(self) -> dict[str, str]:
        """What a tool sends."""
        return self.headers("publishable-client-key")

    @property
    def server_headers(self) -> dict[str, str]:
        """What a backend sends."""
        return self.headers("secret-server-key")

    def post(
        self,
        path: str,
        prefix: str = "/api/v1",
        *,
        headers: Headers | None = None,
        json: object = None,
        content: bytes | Iterator[bytes] | None = None,
    ) -> httpx.Response:
        """Send a request to an endpoint, as a backend unless headers are given."""
        headers = self.server_headers if headers is None else headers
        return self.client.post(prefix + path, headers=headers, json=json, content=content)

    def send(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        prefix: str = "/api/v1",
        *,
        access_token: str | None = None,
        json: object = None,
    ) -> httpx.Response:
        """Send a request by any method: as a tool unless headers are given, with an access token if one is."""
        given = dict(self.client_headers if headers is None else headers)
        if access_token is not None:
            given["x-stack-access-token"] = access_token
        return self.client.request(method, prefix + path, headers=given, json=json)

    def initiate(self, **body: object) -> Login:
        """Start a login."""
        response = self.post(INITIATE, json=body, headers=self.client_headers)
        assert response.status_code == httpx.codes.OK, response.text
        return Login(response.json()["login_code"], response.json()["polling_code"])

    def poll(self, login: Login, **headers: str) -> httpx.Response:
        """Ask for a login's token."""
        return self.post(POLL, json={"polling_code": login.polling_code}, headers={**self.client_headers, **headers})

    def complete(self, login: Login, headers: Mapping[str, str] | None = None, /, **body: object) -> httpx.Response:
        """Complete a login."""
        given = {"login_code": login.login_code, **body}
        return self.post(COMPLETE, json=given, headers={**self.server_headers, **(headers or {})})

    @contextlib.contextmanager
    def later(self, act: Callable[[], object], after: float = 0.3) -> Iterator[None]:
        """Do something that many seconds after the context was entered, while it waits for an answer."""
        timer = threading.Timer(after, act)
        timer.start()
        try:
            yield
        finally:
            timer.join()

    def completed(self, **body: object) -> Login:
        """Start and complete a login."""
        login = self.initiate(**body)
        assert self.complete(login).json() == {}
        return login


StartWire = Callable[..., Wire]

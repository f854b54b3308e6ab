"""An OAuth client of a running service, which checks every answer against the OpenAPI document."""

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

import httpx

from tests.support.conformance import DOCUMENT, fits
from tests.support.services import ProjectKeys, Service
from tests.support.wire import Wire

DEVICE_AUTHORIZATION, TOKEN, REVOKE, INTROSPECT = (
    *("/oauth/device_authorization", "/oauth/token"),
    *("/oauth/revoke", "/oauth/introspect"),
)
DEVICE_CODE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
PAGE = "https://app.example/device"
_OF_ALL = {
    "cache-control": "no-store, max-age=0",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


def check(response: httpx.Response) -> None:
    """Fail unless the answer is one that the document describes; an httpx event hook."""
    response.read()
    assert re.fullmatch(r"[0-9a-f]{32}", response.headers["x-request-id"])
    assert "known-error" not in str(response.headers)
    assert response.headers["content-security-policy"].startswith("default-src 'none'")
    path = urlsplit(str(response.request.url)).path
    operation = DOCUMENT["paths"].get(path, {}).get(response.request.method.lower())
    if operation is None:
        return
    assert dict(response.headers).items() >= _OF_ALL.items()
    assert response.headers["pragma"] == "no-cache"
    answer = operation["responses"][str(response.status_code)]
    if answer.get("content"):
        assert response.headers["content-type"] == "application/json"
        fits(response.json(), answer["content"]["application/json"]["schema"], f"{path}: {response.text}")
    else:
        assert response.content == b""
    if response.status_code in {429, 503}:
        assert int(response.headers["retry-after"]) >= 1


class OAuthWire:
    """A client of a running service, and its backend."""

    def __init__(self, service: Service, project: ProjectKeys) -> None:
        self.service = service
        self.project = project
        self.backend = Wire(service, project)
        self.client = httpx.Client(
            base_url=service.url, trust_env=False, timeout=30.0, event_hooks={"response": [check]}
        )

    @property
    def issuer(self) -> str:
        """The issuer of the project's tokens."""
        return f"{self.service.settings.public_url}/api/v1/projects/{self.project.project_id}"

    def post(self, path: str, headers: Mapping[str, str] | None = None, /, **form: str) -> httpx.Response:
        """Send a form as the public client, unless it names another or none (an empty `client_id`)."""
        return self.client.post(path, headers=headers, data={"client_id": self.project.project_id, **form})

    def start(self, **form: str) -> dict[str, str]:
        """Start a login."""
        response = self.post(DEVICE_AUTHORIZATION, None, **form)
        assert response.status_code == httpx.codes.OK, response.text
        started: dict[str, str] = response.json()
        return started

    def approve(self, started: Mapping[str, str], **body: object) -> httpx.Response:
        """Complete a login, as its backend does."""
        given = {"login_code": started["user_code"], **({"subject": "ada"} | body)}
        return self.backend.post("/auth/cli/complete", json={k: v for k, v in given.items() if v is not None})

    def ask(self, started: Mapping[str, str], headers: Mapping[str, str] | None = None, **form: str) -> httpx.Response:
        """Ask for the tokens of a login, without being held."""
        given = {"grant_type": DEVICE_CODE_GRANT, "device_code": started["device_code"], **form}
        return self.post(TOKEN, {"prefer": "wait=0", **(headers or {})}, **given)

    def refresh(self, refresh_token: str, **form: str) -> httpx.Response:
        """Refresh."""
        return self.post(TOKEN, None, grant_type="refresh_token", refresh_token=refresh_token, **form)

    def introspect(self, token: str) -> dict[str, object]:
        """Ask whether a token is good, as a resource server."""
        auth = (self.project.project_id, self.project.secret_server_key)
        response = self.client.post(INTROSPECT, data={"token": token}, auth=auth)
        assert response.status_code == httpx.codes.OK, response.text
        found: dict[str, object] = response.json()
        return found

    def logged_in(self, **form: str) -> dict[str, str]:
        """Do a whole login; return its tokens."""
        started = self.start(**form)
        assert self.approve(started).status_code == httpx.codes.OK
        response = self.ask(started)
        assert response.status_code == httpx.codes.OK, response.text
        tokens: dict[str, str] = response.json()
        return tokens


def error(response: httpx.Response) -> tuple[int, str]:
    """Return the status and the word of an error."""
    assert set(response.json()) == {"error", "error_description"}
    return response.status_code, response.json()["error"]

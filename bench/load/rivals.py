"""The rivals: other servers with a device flow (RFC 8628), and how a tool and a person log in with each."""

import contextlib
import re
import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

import httpx
from litestar.status_codes import HTTP_200_OK, HTTP_400_BAD_REQUEST

from bench.load.browser import Browser, expect, location
from bench.load.loads import CODES, FORM
from bench.load.servers import Server, free_port, listening, process
from bench.load.wrk import Load

FOLDER = Path(__file__).parent.parent / "rivals"
NODE_MODULES = FOLDER / "oidc-provider" / "node_modules"
DJANGO = FOLDER / "django-oauth-toolkit"
DJANGO_BIN = DJANGO / ".venv" / "bin"
DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"
CSRF_TOKEN = "x" * 32  # Django compares that of the form with that of the cookie
XSRF = re.compile(rb'name="xsrf" value="(\w+)"')


class Rival(NamedTuple):
    """A running rival."""

    server: Server
    authorization: str
    """The path of its device authorization endpoint."""
    token: str
    """The path of its token endpoint."""
    scope: str
    cookies: dict[str, str]
    """Those that a browser has from the start."""
    approve: Callable[[Browser, str], Awaitable[None]]
    """What a person sends who approves a user code, in the fewest requests that the rival accepts."""

    @property
    def asked(self) -> dict[str, str]:
        """The form of a device authorization request."""
        return {"client_id": "tool", "scope": self.scope}

    def loads(self) -> dict[str, Load]:
        """Return the requests that can be repeated: pending token requests, and device authorization requests."""
        with httpx.Client(base_url=f"http://127.0.0.1:{self.server.port}", trust_env=False) as http:
            codes = [
                http.post(self.authorization, data=self.asked).raise_for_status().json()["device_code"]
                for _ in range(CODES)
            ]
        polls = [urlencode(_poll(code)) for code in codes]
        return {
            "poll": Load(self.server.port, self.token, FORM, polls, refused=True),
            "initiate": Load(self.server.port, self.authorization, FORM, [urlencode(self.asked)]),
        }

    async def log_in(self, tool: Browser, person: Browser) -> None:
        """Ask for a device code, poll once while it is pending, approve, and get the token.

        Raises:
            RuntimeError: the rival refused one of these.

        """
        asked = expect(await tool.submit(self.authorization, **self.asked), HTTP_200_OK).fields
        poll = _poll(asked["device_code"])
        expect(await tool.submit(self.token, **poll), HTTP_400_BAD_REQUEST)  # authorization_pending
        await self.approve(person, asked["user_code"])
        _ = expect(await tool.submit(self.token, **poll), HTTP_200_OK).fields["access_token"]


@contextlib.contextmanager
def oidc_provider(redis_url: str) -> Iterator[Rival]:
    """Run `oidc-provider`, one process of Node, on a Redis."""
    port = free_port()
    environment = {"PORT": str(port), "REDIS_URL": redis_url, "NODE_ENV": "production"}
    with process("node", str(NODE_MODULES.parent / "server.mjs"), environment=environment) as started:
        server = listening(started, port)
        yield Rival(server, "/device/auth", "/token", "openid offline_access", {}, _approve_with_oidc_provider)


async def _approve_with_oidc_provider(person: Browser, user_code: str) -> None:
    form = XSRF.search(expect(await person.get("/device"), HTTP_200_OK).body)
    answer = await person.submit("/device", xsrf=form[1].decode() if form else "", user_code=user_code, confirm="yes")
    while answer.status != HTTP_200_OK:  # over the interaction, where the rival's operator asks for consent
        answer = await person.get(location(answer))


@contextlib.contextmanager
def django_oauth_toolkit(_redis_url: str) -> Iterator[Rival]:
    """Run `django-oauth-toolkit`, one process of granian, on a new SQLite database."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="login-relay-bench-") as folder:
        environment = {
            "DATABASE": f"{folder}/db.sqlite3",
            "DJANGO_SETTINGS_MODULE": "settings",
            "PYTHONPATH": str(DJANGO),
        }
        prepared = subprocess.run(
            [DJANGO_BIN / "python", DJANGO / "prepare.py"], env=environment, check=True, capture_output=True, text=True
        )
        options = ("--interface", "wsgi", "--factory", "--port", str(port), "--backlog", "4096", "--no-ws")
        command = (str(DJANGO_BIN / "granian"), *options, "django.core.wsgi:get_wsgi_application")
        with process(*command, environment=environment) as started:
            server = listening(started, port)
            cookies = {"sessionid": prepared.stdout.strip(), "csrftoken": CSRF_TOKEN}
            yield Rival(
                server, "/o/device-authorization/", "/o/token/", "read", cookies, _approve_with_django_oauth_toolkit
            )


async def _approve_with_django_oauth_toolkit(person: Browser, user_code: str) -> None:
    entered = await person.submit("/o/device/", user_code=user_code, csrfmiddlewaretoken=CSRF_TOKEN)
    confirmed = await person.submit(location(entered), action="accept", csrfmiddlewaretoken=CSRF_TOKEN)
    location(confirmed)  # raises unless it was accepted


def _poll(device_code: str) -> dict[str, str]:
    return {"client_id": "tool", "grant_type": DEVICE_CODE, "device_code": device_code}


RIVALS: dict[str, Callable[[str], contextlib.AbstractContextManager[Rival]]] = {
    "oidc-provider": oidc_provider,
    "django-oauth-toolkit": django_oauth_toolkit,
}

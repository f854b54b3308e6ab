"""A browser as far as a rival's pages need one: forms, and cookies that it sends back."""

import re
from urllib.parse import urlencode

from bench.load.client import Connection, Response

COOKIE = re.compile(rb"(?mi)^set-cookie: ([^=;]+)=([^;\r]*)")
LOCATION = re.compile(rb"(?mi)^location: (?:https?://[^/]+)?([^\r]+)")


class Browser(Connection):
    """A connection with cookies. Their paths do not matter here: all go to one server."""

    def __init__(self, port: int, cookies: dict[str, str]) -> None:
        super().__init__(port)
        self._cookies = cookies

    async def get(self, path: str) -> Response:
        """Return a page."""
        return await self._request("GET", path, {}, "")

    async def submit(self, path: str, **fields: str) -> Response:
        """Send a form and return the answer."""
        return await self._request(
            "POST", path, {"content-type": "application/x-www-form-urlencoded"}, urlencode(fields)
        )

    async def _request(self, method: str, path: str, headers: dict[str, str], content: str) -> Response:
        if self._cookies:
            headers["cookie"] = "; ".join(f"{name}={value}" for name, value in self._cookies.items())
        self.write(method, path, headers, content)
        response = await self.receive()
        for name, value in COOKIE.findall(response.head):
            self._cookies[name.decode()] = value.decode()
        return response


def location(response: Response) -> str:
    """Return the path to which an answer redirects.

    Raises:
        RuntimeError: it does not.

    """
    found = LOCATION.search(response.head)
    if found is None:
        raise unexpected(response)
    return found[1].decode()


def expect(response: Response, status: int) -> Response:
    """Return the answer. Raises `RuntimeError` if it has another status."""
    if response.status != status:
        raise unexpected(response)
    return response


def unexpected(response: Response) -> RuntimeError:
    """Return the error that shows an answer."""
    return RuntimeError(f"answered {response.status}: {response.body[:500].decode(errors='replace')}")

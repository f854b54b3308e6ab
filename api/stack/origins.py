"""Cross-origin requests of web pages (Fetch §3.2, CORS): refused, unless a project allows the page's origin.

A preflight does not carry the project's header, so it passes if any project allows the origin; what the request itself
is answered may be read only if its own project does. There are no cookies, no credentials and no wildcard: a page gets
no further than anybody who holds the same key.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from cachetools import TTLCache
from litestar import Request, route
from litestar.handlers import HTTPRouteHandler
from litestar.response.base import ASGIResponse

from api.request.headers import Header, Headers
from api.stack.access import Access
from api.stack.headers import PREFIXES, spellings
from projects.store import Projects
from runtime.redis.connections import COMMAND_TIMEOUT, REDIS_TROUBLE

CACHED_ORIGINS = 10_000  # those that nobody allows included
PREFLIGHT_AGE = 600  # seconds for which a browser need not ask again; what it then sends is judged anyway

_SENT = frozenset({"authorization", "content-type", "idempotency-key", "prefer", "x-request-id"})
_READABLE = ", ".join(
    [
        *("preference-applied", "retry-after"),
        *(spelling for name in ("actual-status", "known-error", "request-id") for spelling in spellings(name)),
    ]
).encode()


def readable_by(origin: bytes) -> tuple[Header, ...]:
    """Return what lets a page of an origin read an answer."""
    return (
        (b"access-control-allow-origin", origin),
        (b"access-control-expose-headers", _READABLE),
        (b"vary", b"Origin"),
    )


class Origins:
    """Says which pages may call."""

    def __init__(self, projects: Projects, access: Access, cache_ms: int) -> None:
        self._projects = projects
        self._access = access
        self._known: TTLCache[str, bool] = TTLCache(CACHED_ORIGINS, cache_ms / 1000)

    async def readable_by(self, origin: bytes, headers: Headers) -> tuple[Header, ...]:
        """Return what lets a page of an origin read the answer to a request with these headers, if it may."""
        try:
            async with asyncio.timeout(COMMAND_TIMEOUT):
                may_read = await self._access.is_origin_allowed(headers, origin.decode("latin-1"))
        except REDIS_TROUBLE:  # what is answered says so; a page need not read it
            may_read = False
        return readable_by(origin) if may_read else ()

    async def may_ask(self, origin: str) -> bool:
        """Whether a preflight of this origin passes."""
        if origin not in self._known:
            self._known[origin] = await self._projects.is_origin_allowed(origin)
        return self._known[origin]


def preflight_endpoint(origins: Origins, paths: Sequence[str], methods: str = "POST") -> HTTPRouteHandler:
    """Return the endpoint of preflights for paths that take these `methods`, separated by commas."""

    @route(list(paths), http_method=["OPTIONS"], status_code=200)
    async def preflight(request: Request[Any, Any, Any]) -> ASGIResponse:
        headers = dict(request.scope["headers"])
        answered = {"allow": f"OPTIONS, {methods}"}
        origin = headers.get(b"origin", b"").decode("latin-1")
        if b"access-control-request-method" in headers and await origins.may_ask(origin):
            asked = headers.get(b"access-control-request-headers", b"").decode("latin-1").lower().split(",")
            sent = [name for name in map(str.strip, asked) if name in _SENT or name.startswith(PREFIXES)]
            answered |= {
                "access-control-allow-origin": origin,
                "access-control-allow-methods": methods,
                "access-control-allow-headers": ", ".join(sent),
                "access-control-max-age": str(PREFLIGHT_AGE),
                "vary": "Origin",
            }
        return ASGIResponse(status_code=204, headers=answered)

    return preflight

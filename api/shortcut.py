"""Litestar with a shortcut: what goes to a `Route` directly, and what passes through Litestar (ADR 19)."""

import re
from collections.abc import Coroutine, Mapping
from typing import Any, cast

from litestar import Litestar, Request, Response
from litestar.types import HTTPScope, LifeSpanReceive, LifeSpanScope, LifeSpanSend, Message, Receive, Scope, Send

from api.oauth.dialect import is_of_oauth
from api.request.endpoint import Dialect, Route
from api.request.incoming import discard
from api.request.note import Noting

_PLAIN_HOST = re.compile(rb"[0-9A-Za-z.:_\[\]-]*")


class Api(Litestar):
    """Litestar, except that a POST to exactly the path of one of the routes goes to that route directly."""

    routes_of_post: Mapping[str, Route] = {}

    def __call__(
        self, scope: Scope | LifeSpanScope, receive: Receive | LifeSpanReceive, send: Send | LifeSpanSend
    ) -> Coroutine[Any, Any, None]:
        """Answer a request."""
        asked = cast("HTTPScope", scope)
        if asked.get("method") == "POST":
            route = self.routes_of_post.get(asked["path"])
            if route is not None and _is_plain(asked):
                return route(asked, cast("Receive", receive), cast("Send", send))
        return super().__call__(scope, receive, send)


def _is_plain(scope: HTTPScope) -> bool:
    """Return whether there is nothing about the host that Litestar might object to."""
    for name, value in scope["headers"]:
        if name == b"host":
            return _PLAIN_HOST.fullmatch(value) is not None
    return True


class OfLitestar:
    """Completes what Litestar answers: its handlers of GET and OPTIONS, and what it refuses itself."""

    def __init__(self, noting: Noting, dialect: Dialect, of_oauth: Dialect) -> None:
        self._noting = noting
        self._dialect = dialect
        self._of_oauth = of_oauth

    def refusal(self, request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
        """Return the answer to an error (an exception handler)."""
        path = request.scope["path"]
        answer = self._of(path).refusal(error, path)
        headers = {name.decode(): value.decode() for name, value in answer.headers}
        media_type = answer.media_type.decode().partition(";")[0]  # Litestar adds the charset
        return Response(answer.body, status_code=answer.status, headers=headers, media_type=media_type)

    async def finish(self, message: Message, scope: Scope) -> None:
        """Note the end of a request that no `Route` answered, and complete its head (a `before_send` hook)."""
        if message["type"] != "http.response.start":
            return
        headers, status = dict(scope["headers"]), message["status"]
        note = self._noting.unanswered(cast("HTTPScope", scope), headers)  # only HTTP is served
        if note is None:
            return
        self._noting.end(note, status)
        dialect = self._of(scope["path"])
        message["status"], message["headers"] = await dialect.head(note, headers, status, [*message["headers"]])

    def _of(self, path: str) -> Dialect:
        return self._of_oauth if is_of_oauth(path) else self._dialect


async def begin(noting: Noting, request: Request[Any, Any, Any]) -> None:
    """Note a request, and discard its body, which no endpoint reads. A `Route` does its own."""
    if request.scope["method"] != "POST":
        headers = dict(request.scope["headers"])
        note = noting.begin(request.scope, headers)
        note.is_cut = not await discard(request.receive, headers)

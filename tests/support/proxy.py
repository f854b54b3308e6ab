"""A TCP proxy that breaks connections the way networks do. It knows no protocol, so it is for Redis and HTTP alike."""

import asyncio
import random
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable


class Proxy:
    """Forwards to a port, which may change, and breaks connections when told to."""

    def __init__(
        self, target_port: int, target_host: str = "127.0.0.1", *, tls: "ssl.SSLContext | None" = None
    ) -> None:
        """With `tls`, clients have to use TLS; the target does not."""
        self.target_host = target_host
        self.target_port = target_port
        self.port = 0
        """Where it listens; known once started."""
        self.links: set[_Link] = set()
        self.replies_to_cut = 0
        self.request_left: int | None = None
        self.reply_left: int | None = None
        """How many bytes of the next longer request or reply are forwarded; see `break_off`."""
        self.stalled_until = 0.0
        self.awaited: tuple[bytes, Callable[[_Link], bool]] | None = None
        """The content that `at` waits for, and what to do then."""
        self._server: asyncio.Server | None = None
        self._tls = tls

    async def start(self) -> None:
        """Listen on a free port of the loopback address."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Side(_Link(self)), "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]

    def cut_replies(self, count: int) -> None:
        """Execute, then drop: close the connections of the next `count` replies, which are not forwarded."""
        self.replies_to_cut += count

    def break_off(self, *, request: int | None = None, reply: int | None = None) -> None:
        """Forward only so many bytes of the next longer request, or of the next longer reply; then close."""
        self.request_left, self.reply_left = request, reply

    def half_open(self, count: int, choose: random.Random) -> None:
        """Let connections swallow everything, in both directions, as if the peer's machine had lost power."""
        links = list(self.links)
        for link in choose.sample(links, min(count, len(links))):
            link.is_dead = True

    def at(self, content: bytes, act: "Callable[[_Link], bool]") -> None:
        """Do something, once, when a request with this content arrives; it is forwarded if `act` returns true."""
        self.awaited = content, act

    def die_at(self, content: bytes, *, executed: bool) -> None:
        """Make the connection half open that sends this content next: swallow the request, or only its reply."""

        def die(link: _Link) -> bool:
            link.is_dead = True
            return executed

        self.at(content, die)

    def stall(self, seconds: float) -> None:
        """Let requests through and hold back the replies for that long."""
        self.stalled_until = asyncio.get_running_loop().time() + seconds

    def heal(self) -> None:
        """Stop doing harm. Connections that are half open stay so: their owners have to notice."""
        self.replies_to_cut = 0

    async def close(self) -> None:
        """Close everything."""
        if self._server is not None:
            self._server.close()
        for link in list(self.links):
            link.close()


class _Link:
    """A client's connection with the one to the target that belongs to it."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.is_dead = False
        self._client: asyncio.Transport | None = None
        self._target: asyncio.Transport | None = None
        self._early: list[bytes] = []
        """Data that the client sent before the connection to the target was open."""
        self._held: list[bytes] = []
        """Replies that wait for a stall to be over."""

    def open(self, client: asyncio.Transport) -> None:
        self._client = client
        self.proxy.links.add(self)
        self._connecting = asyncio.create_task(self._connect())

    async def _connect(self) -> None:
        try:
            loop = asyncio.get_running_loop()
            await loop.create_connection(
                lambda: _Side(self, of_target=True), self.proxy.target_host, self.proxy.target_port
            )
        except OSError:
            self.close()

    def target_opened(self, target: asyncio.Transport) -> None:
        self._target = target
        target.writelines(self._early)
        self._early.clear()
        if self._client is None:
            target.abort()

    def request(self, data: bytes) -> None:
        if self._target is None:
            self._early.append(data)
        elif (left := self.proxy.request_left) is not None and left < len(data):
            self.proxy.request_left = None
            self._target.write(data[:left])
            asyncio.get_running_loop().call_soon(self.close)  # the target gets it first
        elif not self.is_dead:
            match self.proxy.awaited:
                case (content, act) if content in data:
                    self.proxy.awaited = None
                    if not act(self):
                        return
            self._target.write(data)

    def reply(self, data: bytes) -> None:
        proxy = self.proxy
        if self.is_dead:
            return
        if (left := proxy.reply_left) is not None and self._client is not None and left < len(data):
            proxy.reply_left = None
            self._client.write(data[:left])
            asyncio.get_running_loop().call_soon(self.close)
            return
        if proxy.replies_to_cut > 0:
            proxy.replies_to_cut -= 1
            self.close()
            return
        loop = asyncio.get_running_loop()
        if self._held:
            self._held.append(data)
        elif proxy.stalled_until > loop.time():
            self._held.append(data)
            loop.call_at(proxy.stalled_until, self._release)
        elif self._client is not None:
            self._client.write(data)

    def _release(self) -> None:
        if self._client is not None:
            self._client.writelines(self._held)
        self._held.clear()

    def closed(self, *, by_target: bool) -> None:
        """One side closed: close the other after delivering what was sent. A dead peer sends no FIN either."""
        if by_target and self.is_dead:
            return
        for transport in (self._client, self._target):
            if transport is not None:
                transport.close()
        self._forget()

    def close(self) -> None:
        for transport in (self._client, self._target):
            if transport is not None:
                transport.abort()
        self._forget()

    def _forget(self) -> None:
        self.proxy.links.discard(self)
        self._client = self._target = None


class _Side(asyncio.Protocol):
    def __init__(self, link: _Link, *, of_target: bool = False) -> None:
        self._link = link
        self._of_target = of_target

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast("asyncio.Transport", transport)  # uvloop's are no subclass of it
        if self._of_target:
            self._link.target_opened(stream)
        else:
            self._link.open(stream)

    def data_received(self, data: bytes) -> None:
        if self._of_target:
            self._link.reply(data)
        else:
            self._link.request(data)

    def connection_lost(self, _: Exception | None) -> None:
        self._link.closed(by_target=self._of_target)

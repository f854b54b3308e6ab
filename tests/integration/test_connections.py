import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from runtime.errors import SettingError
from runtime.redis.connections import (
    command_client,
    given_redis_url,
    reader_client,
    subscriber,
)
from runtime.redis.subscriber import Subscriber
from runtime.settings import Settings
from tests.support.certificate import self_signed
from tests.support.proxy import Proxy
from tests.support.redis_server import embedded_server

MakeClient = Callable[[Settings, str], Redis]

Make = Callable[[Settings, str], Redis | Subscriber]

every_client = pytest.mark.parametrize("make", [command_client, reader_client])
every_kind = pytest.mark.parametrize("make", [command_client, reader_client, subscriber])


@every_client
async def test_client_pins_the_shape_of_replies(make: MakeClient, settings: Settings) -> None:
    """RESP3, bytes, a name that operators can read in CLIENT LIST, on any server."""
    async with make(settings, "login-relay:test") as client:
        assert (await client.execute_command("HELLO"))[b"proto"] == 3
        assert (await client.client_info())["name"] == "login-relay:test"


@every_client
async def test_client_reaches_a_unix_socket_with_a_password(
    make: MakeClient, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Each kind of connection takes all three schemes of URL, with the user and the database in it."""
    folder = tmp_path_factory.mktemp("s")
    socket = Path(folder, "s")
    with embedded_server(folder, unixsocket=str(socket)) as server:
        settings = Settings(redis_url=f"unix://:hunter2@{socket}?db=3")
        async with command_client(Settings(redis_url=f"redis://127.0.0.1:{server.port}"), "admin") as admin:
            await admin.config_set("requirepass", "hunter2")
        async with make(settings, "login-relay:test") as client:
            assert (await client.client_info())["db"] == 3


@every_client
async def test_client_finds_its_url_in_a_file(make: MakeClient, settings: Settings, tmp_path: Path) -> None:
    """As a mounted secret, with or without a line feed at its end."""
    for end in ("", "\n"):
        (tmp_path / "url").write_text(f"{settings.redis_url}{end}")
        given = Settings(redis_url_file=str(tmp_path / "url"))
        assert given_redis_url(given) == settings.redis_url
        async with make(given, "login-relay:test") as client:
            assert (await client.client_info())["name"] == "login-relay:test"
    given = Settings(redis_url=settings.redis_url, redis_url_file=str(tmp_path / "missing"))
    assert given_redis_url(given) == settings.redis_url


@every_kind
@pytest.mark.parametrize("content", [None, b"", b"\n", b"\xff", b"http://:hunter2@redis"])
def test_file_without_a_url_is_told_by_its_variable(make: Make, tmp_path: Path, content: bytes | None) -> None:
    """It is missing, is empty, or holds something else, which the message does not repeat."""
    if content is not None:
        (tmp_path / "url").write_bytes(content)
    with pytest.raises(SettingError, match="LOGIN_RELAY_REDIS_URL_FILE") as refused:
        _ = make(Settings(redis_url_file=str(tmp_path / "url")), "x")
    assert "hunter2" not in str(refused.value)
    assert refused.value.__cause__ is None


@every_client
async def test_rule_of_ours_wins_over_the_urls_parameters(make: MakeClient, settings: Settings) -> None:
    """A time-out in the URL would break the order that start-up checks."""
    given = Settings(redis_url=f"{settings.redis_url}?socket_timeout=77&protocol=2")
    async with make(given, "login-relay:test") as client:
        assert client.connection_pool.connection_kwargs["socket_timeout"] < 77
        assert (await client.execute_command("HELLO"))[b"proto"] == 3


@every_kind
@pytest.mark.parametrize(
    "url", ["http://:hunter2@redis", "redis.internal:6379/hunter2", "redis://h?socket_timeout=hunter2"]
)
def test_malformed_url_is_told_without_its_password(make: Make, url: str) -> None:
    """One line that names the variable; the URL may hold a password."""
    with pytest.raises(SettingError, match="LOGIN_RELAY_REDIS_URL") as refused:
        _ = make(Settings(redis_url=url), "x")
    assert "hunter2" not in str(refused.value)
    assert refused.value.__cause__ is None


@every_kind
def test_missing_url_is_told(make: Make) -> None:
    """Only `serve` brings its own Redis."""
    with pytest.raises(SettingError, match="LOGIN_RELAY_REDIS_URL is not set"):
        _ = make(Settings(), "x")


@pytest.fixture
async def tls_url(redis_url: str, tmp_path: Path) -> AsyncIterator[str]:
    """The URL of the server of the tests behind TLS, which the embedded one does not speak."""
    certificate = tmp_path / "certificate"
    certificate.write_bytes(self_signed("127.0.0.1"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    target = urlsplit(redis_url)
    proxy = Proxy(target.port or 6379, target.hostname or "127.0.0.1", tls=context)
    await proxy.start()
    yield f"rediss://127.0.0.1:{proxy.port}/0?ssl_ca_certs={certificate}"
    await proxy.close()


@every_client
async def test_client_speaks_tls(make: MakeClient, tls_url: str) -> None:
    """Also for replies that are longer than what TLS sends in one piece."""
    async with make(Settings(redis_url=tls_url), "login-relay:test") as client:
        word = "x" * 1_000_000
        assert await asyncio.gather(*(client.execute_command("ECHO", word) for _ in range(3))) == [word.encode()] * 3
        assert (await client.client_info())["name"] == "login-relay:test"


@every_client
async def test_client_trusts_no_other_certificate(make: MakeClient, tls_url: str) -> None:
    """Without the authority in the URL there is no connection."""
    async with make(Settings(redis_url=tls_url.partition("?")[0]), "login-relay:test") as client:
        with pytest.raises(RedisConnectionError, match="certificate verify failed"):
            await client.ping()

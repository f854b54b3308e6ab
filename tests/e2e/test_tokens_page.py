"""The blocks of docs/tokens.md, each run as it stands there against the keys of a running service."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from joserfc import jwt

from runtime.master_secrets import MasterSecretsFile
from tests.support.oauth_services import enter_oauth_wire, oauth_settings
from tests.support.oauth_wire import OAuthWire
from tests.support.redis_server import RedisServer, free_port
from tests.support.services import services
from tokens.access_tokens import AccessTokens, Grant
from tokens.signing_keys import ALGORITHM, SigningKeys

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build/token-checks"  # what is installed once stays there
GO_PATH = Path("/usr/share/gocode")
GO_JOSE = "gopkg.in/square/go-jose.v2"
JOSE = "jose@6.1.3"

PYTHON_MAIN = """
import json, sys
def subject(token):
    try:
        return check(token)["sub"]
    except jwt.InvalidTokenError:
        return None
    except jwt.PyJWKClientError:
        return None
print(json.dumps([subject(token) for token in sys.argv[1:]]))
"""
NODE_MAIN = """
const subject = (token) => check(token).then((claims) => claims.sub, () => null)
console.log(JSON.stringify(await Promise.all(process.argv.slice(2).map(subject))))
"""
GO_HEAD = f"""package main

import (
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"time"

	"{GO_JOSE}"
	"{GO_JOSE}/jwt"
)
"""
GO_MAIN = """
func main() {
	answer, err := http.Get(os.Args[1])
	if err != nil {
		panic(err)
	}
	var keys jose.JSONWebKeySet
	if err := json.NewDecoder(answer.Body).Decode(&keys); err != nil {
		panic(err)
	}
	subjects := []*string{}
	for _, token := range os.Args[2:] {
		claims, err := check(token, &keys)
		if err != nil {
			subjects = append(subjects, nil)
		} else {
			subjects = append(subjects, &claims.Subject)
		}
	}
	json.NewEncoder(os.Stdout).Encode(subjects)
}
"""

pytestmark = pytest.mark.timeout(200)


def needed(what: str, *, there: bool) -> None:
    """Skip a test if what it needs is missing, and say so."""
    if not there:
        pytest.skip(f"{what} missing; see docs/tokens.md")


def block(language: str, wire: OAuthWire) -> str:
    """Return the page's block in a language, for a service and its project."""
    [found] = re.findall(rf"```{language}\n(.*?)```", (ROOT / "docs/tokens.md").read_text(), re.DOTALL)
    return (
        str(found).replace("https://relay.example.com", wire.service.url).replace("PROJECT_ID", wire.project.project_id)
    )


def python(wire: OAuthWire, folder: Path) -> list[str]:
    """Return the command of the block for PyJWT."""
    (folder / "check.py").write_text(block("python", wire) + PYTHON_MAIN)
    return [sys.executable, str(folder / "check.py")]


def node(wire: OAuthWire, _: Path) -> list[str]:
    """Return the command of the block for jose."""
    needed("node or npm", there=bool(shutil.which("node") and shutil.which("npm")))
    BUILD.mkdir(parents=True, exist_ok=True)
    if not (BUILD / "node_modules/jose").exists():
        install = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--prefix", str(BUILD), JOSE]
        done = subprocess.run(install, capture_output=True, text=True, check=False, timeout=120)
        needed(f"{JOSE} (npm says: {done.stderr[-200:]})", there=done.returncode == 0)
    (BUILD / "check.mjs").write_text(block("js", wire) + NODE_MAIN)
    return ["node", str(BUILD / "check.mjs")]


def go(wire: OAuthWire, folder: Path) -> list[str]:
    """Return the command of the block for go-jose, as Debian packages it."""
    needed("go", there=bool(shutil.which("go")))
    needed("Debian's golang-gopkg-square-go-jose.v2-dev", there=(GO_PATH / "src" / GO_JOSE).exists())
    (folder / "check.go").write_text(GO_HEAD + block("go", wire) + GO_MAIN)
    offline = {"GO111MODULE": "off", "GOPATH": str(GO_PATH), "GOCACHE": str(BUILD / "go-cache"), "GOFLAGS": "-p=1"}
    build = ["go", "build", "-o", str(folder / "check"), str(folder / "check.go")]
    done = subprocess.run(build, env=os.environ | offline, capture_output=True, text=True, check=False, timeout=180)
    assert done.returncode == 0, done.stderr
    return [str(folder / "check"), f"{wire.issuer}/.well-known/jwks.json"]


@pytest.fixture(scope="module")
def wire(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OAuthWire]:
    """A service that is reached at its public URL."""
    with services(redis_server, tmp_path_factory) as start_service, contextlib.ExitStack() as stack:
        port = free_port()
        own = oauth_settings(tmp_path_factory.mktemp("keys")) | {"public_url": f"http://127.0.0.1:{port}"}
        service = start_service(apis=0, **own)
        service.start_api_at(port)
        service.wait_until_ready()
        yield enter_oauth_wire(stack, service)


@pytest.mark.parametrize("command_of", [python, node, go])
def test_block_takes_access_tokens_and_refuses_everything_else(
    wire: OAuthWire, tmp_path: Path, command_of: Callable[[OAuthWire, Path], list[str]]
) -> None:
    """The token of a login; not one that is expired, altered, or of another audience, issuer, project or kind."""
    command = command_of(wire, tmp_path)
    started = wire.start()
    assert wire.approve(started).json() == {}
    login = wire.ask(started).json()["access_token"]
    tokens = [login, *refused(wire, login)]
    done = subprocess.run([*command, *tokens], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["ada", *[None] * (len(tokens) - 1)]


def refused(wire: OAuthWire, login: str) -> list[str]:
    """Return tokens that no resource server may take, most of them signed with the project's own key."""
    settings, project_id = wire.service.settings, wire.project.project_id
    assert settings.keys_file
    assert settings.public_url
    secrets = MasterSecretsFile(Path(settings.keys_file)).secrets
    keys, now = SigningKeys(lambda: secrets), time.time()
    ours, elsewhere = (AccessTokens(keys, url, 300) for url in (settings.public_url, "https://evil.example"))
    grant = Grant(project_id, "0084b16ba1cbbb1e5a92d2ff3d", "mallory", project_id, "cli", (project_id,))
    head, claims, signature = login.split(".")
    ring = keys.of_project(project_id)
    other_kind = jwt.encode(
        {"alg": ALGORITHM, "typ": "JWT", "kid": ring.kid},
        jwt.decode(login, ring.keys, algorithms=[ALGORITHM]).claims,
        ring.signer,
        algorithms=[ALGORITHM],
    )
    return [
        ours.sign(grant, now - 400),
        ours.sign(grant._replace(audience=("another",)), now),
        ours.sign(grant._replace(project_id="another"), now),
        elsewhere.sign(grant, now),
        other_kind,
        f"{head}.{claims}.{signature[::-1]}",
        "no token",
    ]

"""One service for all tests of the OAuth dialect, with a project that lets OAuth clients log in."""

import asyncio
import contextlib
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from projects.oauth import OAuth
from projects.project import DEFAULT_POLICY, Policy
from runtime.master_secrets import new_master_secret, write_master_secrets
from runtime.settings import Settings
from tests.support.oauth_wire import PAGE, OAuthWire
from tests.support.redis_server import RedisServer
from tests.support.services import ProjectKeys, create_project, services

OPEN = OAuth(is_on=True, verification_uri=PAGE, scopes=("cli", "repo"))
ORIGIN = "https://app.example"

StartOAuth = Callable[..., OAuthWire]


def keys_file(folder: Path) -> str:
    """Return the path of a new file with one master secret."""
    path = folder / "keys.json"
    write_master_secrets(path, [new_master_secret()], is_new=True)
    return str(path)


@pytest.fixture
def start_oauth(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartOAuth]:
    """Start services with settings of one's own: `start_oauth(throttle_polls=True)`."""
    with contextlib.ExitStack() as stack:
        start_service = stack.enter_context(services(redis_server, tmp_path_factory))

        def start(*, policy: Policy = DEFAULT_POLICY, oauth: OAuth = OPEN, **settings: object) -> OAuthWire:
            made = {"keys_file": keys_file(tmp_path_factory.mktemp("keys")), "public_url": "https://relay.example"}
            service = start_service(**(made | settings))
            return _wire(stack, OAuthWire(service, _project(service.settings, oauth, policy)))

        yield start


@pytest.fixture(scope="session")
def oauth(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OAuthWire]:
    """A service shared by all tests."""
    made = {"keys_file": keys_file(tmp_path_factory.mktemp("keys")), "public_url": "https://relay.example"}
    with contextlib.ExitStack() as stack:
        service = stack.enter_context(services(redis_server, tmp_path_factory))(**made)
        yield _wire(stack, OAuthWire(service, _project(service.settings, OPEN, DEFAULT_POLICY)))


def _project(settings: Settings, oauth: OAuth, policy: Policy) -> ProjectKeys:
    return asyncio.run(
        create_project(settings, f"oauth-{uuid.uuid4().hex[:8]}", oauth=oauth, policy=policy, allowed_origins=[ORIGIN])
    )


def _wire(stack: contextlib.ExitStack, wire: OAuthWire) -> OAuthWire:
    stack.enter_context(wire.client)
    stack.enter_context(wire.backend.client)
    return wire

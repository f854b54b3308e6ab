"""One service for all tests of the wire, and a client that checks every answer against the OpenAPI document."""

import asyncio
import contextlib
import json
from collections.abc import Iterator

import pytest
from joserfc.jwk import ECKey, KeySet, OKPKey

from tests.support.oauth_services import ORIGIN, enter_oauth_wire, oauth_settings
from tests.support.oauth_wire import OAuthWire
from tests.support.redis_server import RedisServer
from tests.support.services import create_project, services
from tests.support.wire import AUDIENCE, ISSUER, StartWire, Wire


@pytest.fixture
def start_wire(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartWire]:
    """Start services with settings of one's own: `start_wire(workers=0, backlog_limit=1)`."""
    with contextlib.ExitStack() as stack:
        start_service = stack.enter_context(services(redis_server, tmp_path_factory))

        def start(**settings: object) -> Wire:
            wire = Wire(start_service(**settings))
            stack.enter_context(wire.client)
            return wire

        yield start


@pytest.fixture(scope="session")
def admin_keys() -> KeySet:
    """The keys of an issuer of admin access tokens; the service knows the public halves."""
    return KeySet([OKPKey.generate_key("Ed25519", {"kid": "ed"}), ECKey.generate_key("P-256", {"kid": "ec"})])


@pytest.fixture(scope="session")
def wire(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory, admin_keys: KeySet) -> Iterator[Wire]:
    """A service with all features on, shared by all tests."""
    jwks_file = tmp_path_factory.mktemp("issuer") / "jwks.json"
    jwks_file.write_text(json.dumps(admin_keys.as_dict(private=False)))
    with services(redis_server, tmp_path_factory) as start_service:
        trust = {"admin_jwks_file": str(jwks_file), "admin_issuer": ISSUER, "admin_audience": AUDIENCE}
        wire = Wire(start_service(**trust))
        with wire.client:
            yield wire


@pytest.fixture(scope="session")
def signing_wire(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    """A service that signs access tokens, shared by all tests; pages of one origin may call."""
    with services(redis_server, tmp_path_factory) as start_service:
        service = start_service(**oauth_settings(tmp_path_factory.mktemp("keys")))
        project = asyncio.run(create_project(service.settings, "signing", allowed_origins=[ORIGIN]))
        wire = Wire(service, project)
        with wire.client:
            yield wire


@pytest.fixture(scope="session")
def signing_oauth(signing_wire: Wire) -> Iterator[OAuthWire]:
    """The same service, for another project that lets OAuth clients log in."""
    with contextlib.ExitStack() as stack:
        yield enter_oauth_wire(stack, signing_wire.service)


@pytest.fixture(scope="session")
def open_wire(wire: Wire) -> Iterator[Wire]:
    """The same service for another project, whose client access may complete."""
    project = asyncio.run(create_project(wire.service.settings, "open", allow_client_complete=True))
    open_wire = Wire(wire.service, project)
    with open_wire.client:
        yield open_wire

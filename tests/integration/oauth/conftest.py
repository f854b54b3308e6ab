"""One service for all tests of the OAuth dialect, with a project that lets OAuth clients log in."""

import contextlib
from collections.abc import Iterator

import pytest

from projects.oauth import OAuth
from projects.project import DEFAULT_POLICY, Policy
from tests.support.oauth_services import OPEN, StartOAuth, enter_oauth_wire, oauth_settings
from tests.support.oauth_wire import OAuthWire
from tests.support.redis_server import RedisServer
from tests.support.services import services


@pytest.fixture
def start_oauth(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartOAuth]:
    """Start services with settings of one's own: `start_oauth(throttle_polls=True)`."""
    with contextlib.ExitStack() as stack:
        start_service = stack.enter_context(services(redis_server, tmp_path_factory))

        def start(*, policy: Policy = DEFAULT_POLICY, oauth: OAuth = OPEN, **settings: object) -> OAuthWire:
            service = start_service(**(oauth_settings(tmp_path_factory.mktemp("keys")) | settings))
            return enter_oauth_wire(stack, service, oauth, policy)

        yield start


@pytest.fixture(scope="session")
def oauth(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OAuthWire]:
    """A service shared by all tests."""
    with contextlib.ExitStack() as stack:
        start_service = stack.enter_context(services(redis_server, tmp_path_factory))
        yield enter_oauth_wire(stack, start_service(**oauth_settings(tmp_path_factory.mktemp("keys"))))

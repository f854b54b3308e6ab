"""Services and projects that let OAuth clients log in."""

import asyncio
import contextlib
import uuid
from collections.abc import Callable
from pathlib import Path

from projects.oauth import OAuth
from projects.project import DEFAULT_POLICY, Policy
from runtime.master_secret import new_master_secret
from runtime.master_secrets import write_master_secrets
from tests.support.oauth_wire import PAGE, OAuthWire
from tests.support.services import Service, create_project

OPEN = OAuth(is_on=True, verification_uri=PAGE, scopes=("cli", "repo"))
ORIGIN = "https://app.example"

StartOAuth = Callable[..., OAuthWire]


def oauth_settings(folder: Path) -> dict[str, object]:
    """Return the settings that turn OAuth on, with a new file of one master secret."""
    path = folder / "keys.json"
    write_master_secrets(path, [new_master_secret()], is_new=True)
    return {"keys_file": str(path), "public_url": "https://relay.example"}


def enter_oauth_wire(
    stack: contextlib.ExitStack, service: Service, oauth: OAuth = OPEN, policy: Policy = DEFAULT_POLICY
) -> OAuthWire:
    """Return a client of a service and a new project of it; both end with the stack."""
    name = f"oauth-{uuid.uuid4().hex[:8]}"
    project = asyncio.run(create_project(service.settings, name, oauth=oauth, policy=policy, allowed_origins=[ORIGIN]))
    wire = OAuthWire(service, project)
    stack.enter_context(wire.client)
    stack.enter_context(wire.backend.client)
    return wire

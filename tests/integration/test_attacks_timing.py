"""What the time of an answer could reveal: whatever was wrong, the calls that take time are the same."""

import sys
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

from api.stack.access import Access
from api.stack.admin_tokens import AdminTokens
from api.stack.errors import KnownError
from projects.project import KeyKind
from projects.store import Projects
from runtime.settings import Settings

NAMES = {
    KeyKind.PUBLISHABLE_CLIENT: b"x-stack-publishable-client-key",
    KeyKind.SECRET_SERVER: b"x-stack-secret-server-key",
    KeyKind.SUPER_SECRET_ADMIN: b"x-stack-super-secret-admin-key",
}


class Calls:
    """The digests that are made and compared, in order, as the interpreter's profiler sees them."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def __call__(self, _: object, event: str, called: Callable[..., Any]) -> None:
        """Note a call of a function that is written in C."""
        if event == "c_call" and called.__name__ in {"openssl_sha256", "compare_digest", "_compare_digest"}:
            self.made.append(called.__name__)


@pytest.mark.parametrize("kind", NAMES)
async def test_unknown_project_and_wrong_key_take_the_same_work(
    projects: Projects, settings: Settings, kind: KeyKind
) -> None:
    """As many digests are made and compared, even for a key that is right but for its last character."""
    project_id, keys = await projects.create("acme", allow_client_complete=False)
    access = Access(projects, AdminTokens.from_settings(settings), settings.project_cache_ms)

    async def calls(project: str, key: str) -> list[str]:
        calls = Calls()
        headers = {b"x-stack-project-id": project.encode(), NAMES[kind]: key.encode()}
        for _ in range(2):  # the first reads the project, the second has it at hand
            calls.made.clear()
            sys.setprofile(calls)
            try:
                await access.check(headers)
            except KnownError:
                pass
            finally:
                sys.setprofile(None)
        return calls.made

    right = keys[kind]
    right_work = await calls(project_id, right)
    assert len(right_work) == 3  # a digest, compared with the current one and with the one before
    assert await calls(project_id, right[:-1] + ("A" if right[-1] != "A" else "B")) == right_work
    assert await calls(project_id, "wrong") == right_work
    assert await calls(str(uuid4()), right) == right_work

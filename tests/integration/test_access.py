import asyncio
import gc
import weakref

import pytest

from api.request.address import Sender
from api.stack.access import Access
from api.stack.admin_tokens import AdminTokens
from api.stack.errors import KnownError
from projects.store import Projects
from runtime.settings import Settings


class FromNowhere:
    """Stands for a request: it tells who sent it."""

    def __call__(self) -> Sender:
        """Return a sender."""
        return Sender("192.0.2.1", "192.0.2.1", "")


async def refuse(access: Access, request: FromNowhere, headers: dict[bytes, bytes]) -> None:
    """Check a request that is refused."""
    try:
        await access.check(headers, request)
    except KnownError:
        return
    raise AssertionError("it was not refused")


@pytest.mark.parametrize("key", [{}, {b"x-stack-publishable-client-key": b"pck_wrong"}], ids=["no key", "wrong key"])
@pytest.mark.parametrize("exists", [True, False])
async def test_request_that_is_refused_is_let_go_at_once(
    projects: Projects, settings: Settings, key: dict[bytes, bytes], *, exists: bool
) -> None:
    """No cycle holds it until Python collects garbage: the server would not close its connection before that."""
    project_id, _ = await projects.create("acme", allow_client_complete=False)
    if not exists:
        project_id = "00000000-0000-4000-8000-000000000000"
    access = Access(projects, AdminTokens.from_settings(settings), settings.project_cache_ms)
    headers = {b"x-stack-project-id": project_id.encode(), b"x-stack-access-type": b"client", **key}
    request = FromNowhere()
    await refuse(access, request, headers)
    left = weakref.ref(request)
    gc.disable()
    try:
        await asyncio.create_task(refuse(access, request, headers))
        del request
        assert left() is None
    finally:
        gc.enable()

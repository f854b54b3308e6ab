"""Who is asking: project, access type and keys, from the request's headers.

Projects are cached for some seconds, so that checking a key costs no round trip; a revoked key works that long at most.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple
from uuid import UUID

from api.request.address import Sender
from api.request.headers import Headers, header
from api.stack import headers as names
from api.stack.admin_tokens import AdminTokens
from api.stack.errors import KnownError
from projects.project import NO_PROJECT, KeyKind, Project
from projects.store import Projects
from runtime.address import UNKNOWN_ADDRESS
from statemachine.session import Flow

CACHED_PROJECTS = 10_000  # ids that do not exist included, so that asking for them costs Redis nothing either


class AccessType(IntEnum):
    """The access types; a higher one may do all that a lower one may."""

    CLIENT = 1
    SERVER = 2
    ADMIN = 3


def _unknown() -> Sender:
    return Sender(UNKNOWN_ADDRESS, UNKNOWN_ADDRESS, "")


class Caller(NamedTuple):
    """A checked caller."""

    project: Project
    access_type: AccessType
    headers: Headers
    sender: Callable[[], Sender]

    @property
    def flow(self) -> Flow:
        """The interface that this is."""
        return Flow.CLI

    @property
    def is_backend(self) -> bool:
        """Whether the key is one that only backends and administrators have."""
        return self.access_type >= AccessType.SERVER

    def key_name(self) -> str:
        """Return what tells the caller's key from others of the project, and is no secret."""
        key = header(self.headers, _KEYS[self.access_type].header)
        return hashlib.sha256(key.encode()).hexdigest()[:16] if key else "admin-access-token"


def require_server_access(caller: Caller) -> None:
    """Let only backends and administrators pass.

    Raises:
        KnownError: `INSUFFICIENT_ACCESS_TYPE`.

    """
    if not caller.is_backend:
        raise KnownError(
            "INSUFFICIENT_ACCESS_TYPE",
            actual_access_type=caller.access_type.name.lower(),
            allowed_access_types=["server", "admin"],
        )


class _KeyRule(NamedTuple):
    header: tuple[bytes, ...]
    kind: KeyKind
    missing: str
    wrong: str


_KEYS = {
    AccessType.CLIENT: _KeyRule(
        names.PUBLISHABLE_CLIENT_KEY,
        KeyKind.PUBLISHABLE_CLIENT,
        "PUBLISHABLE_CLIENT_KEY_REQUIRED_FOR_PROJECT",
        "INVALID_PUBLISHABLE_CLIENT_KEY",
    ),
    AccessType.SERVER: _KeyRule(
        names.SECRET_SERVER_KEY,
        KeyKind.SECRET_SERVER,
        "SERVER_AUTHENTICATION_REQUIRED",
        "INVALID_SECRET_SERVER_KEY",
    ),
    AccessType.ADMIN: _KeyRule(
        names.SUPER_SECRET_ADMIN_KEY,
        KeyKind.SUPER_SECRET_ADMIN,
        "ADMIN_AUTHENTICATION_REQUIRED",
        "INVALID_SUPER_SECRET_ADMIN_KEY",
    ),
}
_ACCESS_TYPES = {access_type.name.lower(): access_type for access_type in AccessType}


class _TimedRead(NamedTuple):
    project: Project | None
    now: int
    """Redis' time in milliseconds."""
    at: float
    """The same moment by this machine's monotonic clock, in seconds."""
    asked_at: float
    """When the read began. A change after this may not be in it."""


class Access:
    """Checks callers."""

    def __init__(self, projects: Projects, admin_tokens: AdminTokens, cache_ms: int) -> None:
        self._projects = projects
        self._admin_tokens = admin_tokens
        # Reads under way are cached, not their results: a thousand polls that find the entry gone share one read.
        self._reads: dict[str, asyncio.Task[_TimedRead]] = {}
        self._cached_for = cache_ms / 1000

    async def check(self, headers: Headers, sender: Callable[[], Sender] = _unknown) -> Caller:
        """Check who asks.

        Raises:
            KnownError: by the table in `api.stack.errors`, in the order of its rows.

        """
        admin_token = header(headers, names.ADMIN_ACCESS_TOKEN)
        access_type = _access_type(headers, admin_token)
        project_id = header(headers, names.PROJECT_ID)
        if project_id is None:
            raise KnownError("ACCESS_TYPE_WITHOUT_PROJECT_ID", request_type=access_type.name.lower())
        project, now = await self.project(project_id)
        try:
            self._check_credential(headers, admin_token, access_type, project or NO_PROJECT, now)
        # Without a name: an exception in a variable is in a cycle with its own traceback. Until Python collects that,
        # the request stays referenced, and the server does not close its connection.
        except KnownError:
            if project is not None:
                raise
        if project is None:
            raise KnownError("CURRENT_PROJECT_NOT_FOUND", project_id=project_id)
        return Caller(project, AccessType.ADMIN if admin_token is not None else access_type, headers, sender)

    async def is_origin_allowed(self, headers: Headers, origin: str) -> bool:
        """Whether the project that a request names lets pages of an origin call."""
        project, _ = await self.project(header(headers, names.PROJECT_ID) or "")
        return project is not None and origin in project.allowed_origins

    def _check_credential(
        self, headers: Headers, admin_token: str | None, access_type: AccessType, project: Project, now: int
    ) -> None:
        """Check a credential; as much work for a project that there is as for one that there is not."""
        if admin_token is not None:
            self._admin_tokens.check(admin_token, project.id)
            return
        rule = _KEYS[access_type]
        key = header(headers, rule.header)
        if key is None:
            details = {"project_id": project.id} if access_type is AccessType.CLIENT else {}
            raise KnownError(rule.missing, **details)
        if not project.keys[rule.kind].matches(key, now):
            raise KnownError(rule.wrong, project_id=project.id)

    async def project(self, project_id: str) -> tuple[Project | None, int]:
        """Return a project and the Redis time (milliseconds) by which its keys are to be judged."""
        now = time.monotonic()
        task = self._reads.get(project_id)
        if task is None or (task.done() and not self._is_fresh(task, now)):
            if not _is_uuid(project_id):
                return None, 0
            task = self._start_reading(project_id)
        if not task.done():
            await asyncio.shield(task)
            now = time.monotonic()
        read = task.result()
        return read.project, read.now + int((now - read.at) * 1000)

    def _is_fresh(self, task: "asyncio.Task[_TimedRead]", now: float) -> bool:
        return not task.cancelled() and task.exception() is None and now - task.result().asked_at < self._cached_for

    def _start_reading(self, project_id: str) -> "asyncio.Task[_TimedRead]":
        # The one read first goes first: it is over, or soon will be. An entry that is read anew becomes the youngest.
        self._reads.pop(project_id, None)
        if len(self._reads) >= CACHED_PROJECTS:
            del self._reads[next(iter(self._reads))]
        task = self._reads[project_id] = asyncio.create_task(self._read(project_id))
        return task

    async def _read(self, project_id: str) -> _TimedRead:
        asked_at = time.monotonic()
        return _TimedRead(*await self._projects.read(project_id), time.monotonic(), asked_at)


def _access_type(headers: Headers, admin_token: str | None) -> AccessType:
    """Return the access type that is named, else that of the strongest key that was sent."""
    named = header(headers, names.ACCESS_TYPE)
    if named is not None:
        if named not in _ACCESS_TYPES:
            raise KnownError("INVALID_ACCESS_TYPE")
        return _ACCESS_TYPES[named]
    if admin_token is not None:
        return AccessType.ADMIN
    for access_type in sorted(AccessType, reverse=True):
        if header(headers, _KEYS[access_type].header) is not None:
            return access_type
    raise KnownError("ACCESS_TYPE_REQUIRED")


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False

"""Projects: the tenants of a relay, each with three keys that are kept only as SHA-256.

A key is 256 random bits, so a plain hash is enough: there is nothing to guess, and no need to slow a guesser down.
"""

import hashlib
import hmac
import re
import secrets
import uuid
from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import NamedTuple

from redis.asyncio import Redis

from statemachine.audit import tell_change
from statemachine.audit_events import KeyRotated, ProjectChanged
from statemachine.errors import ProjectNameTakenError, UnknownProjectError
from statemachine.events import rfc3339
from statemachine.keys import Keys
from statemachine.scripts import Argument, Call, Script, run_script

KEY_BYTES = 32

NO_DIGEST = bytes(32)  # nothing that SHA-256 is known to give

_CREATE = Script.named("create_project")
_CHANGE = Script.named("change_project")


MAX_NAME_LENGTH = 64


# RFC 6454 §6.2, as browsers write it: lower case, no path, and the port only where it is not the scheme's own.
_ORIGIN = re.compile(r"(https?)://([a-z0-9_.-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?")
_OWN_PORTS = {"http": "80", "https": "443"}


def normalise_origin(text: str) -> str | None:
    """Return a web origin as browsers send it; None if `text` is none that a project may allow."""
    if not (found := _ORIGIN.fullmatch(text.lower().removesuffix("/"))):
        return None
    scheme, host, port = found.groups()
    return f"{scheme}://{host}" if port in (None, _OWN_PORTS[scheme]) else f"{scheme}://{host}:{port}"


def is_project_name(text: str) -> bool:
    """Whether `text` can name a project: 1 to 64 printable characters that do not read as an id.

    A UUID is an id to `Projects.find`, however it is written.
    """
    if not 1 <= len(text) <= MAX_NAME_LENGTH or not text.isprintable() or text != text.strip():
        return False
    try:
        uuid.UUID(text)
    except ValueError:
        return True
    return False


class KeyKind(StrEnum):
    """The three keys of a project."""

    PUBLISHABLE_CLIENT = "publishable_client_key"
    """For tools: it ships inside them and is no secret."""
    SECRET_SERVER = "secret_server_key"  # noqa: S105 - the name of a key, not a key
    """For backends: it completes logins."""
    SUPER_SECRET_ADMIN = "super_secret_admin_key"  # noqa: S105 - the name of a key, not a key
    """For administrators."""


KEY_PREFIXES = {
    KeyKind.PUBLISHABLE_CLIENT: "pck_",
    KeyKind.SECRET_SERVER: "ssk_",
    KeyKind.SUPER_SECRET_ADMIN: "sak_",
}


class KeyDigest(NamedTuple):
    """What is stored of a key, and of the one it replaced."""

    current: bytes
    previous: bytes
    """32 zeros if there is none: as long as a digest, so that comparing takes as long."""
    previous_until: int
    """Redis time in milliseconds until which the previous key is valid."""

    def matches(self, key: str, now: int) -> bool:
        """Compare in constant time; both digests always, so that the time tells nothing."""
        digest = hashlib.sha256(key.encode()).digest()
        is_current = hmac.compare_digest(digest, self.current)
        is_previous = hmac.compare_digest(digest, self.previous)
        return is_current | (is_previous & (now <= self.previous_until))


class Project(NamedTuple):
    """A project as it is stored."""

    id: str
    name: str
    allow_client_complete: bool
    """Whether the publishable key may complete logins, as the browser side of some clients does."""
    created_at: int
    keys: Mapping[KeyKind, KeyDigest]
    allowed_origins: tuple[str, ...] = ()
    """The web origins (RFC 6454) whose pages may call the API for it; sorted."""


class ProjectRead(NamedTuple):
    """A project and the Redis time in milliseconds at which it was read."""

    project: Project | None
    now: int


class Projects:
    """The projects in Redis. Each lives in its own hash; a second hash makes names unique, a set finds origins.

    What is changed is told in an event afterwards (`statemachine.audit.tell_change`).
    """

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    async def create(
        self, name: str, *, allow_client_complete: bool, allowed_origins: Collection[str] = ()
    ) -> tuple[str, dict[KeyKind, str]]:
        """Create a project; returns its id and its keys, which nothing can show again.

        The origins are such as `normalise_origin` returns.

        Raises:
            ProjectNameTakenError: another project has the name.

        """
        project_id = str(uuid.uuid4())
        keys = {kind: _new_key(kind) for kind in KeyKind}
        origins = sorted(set(allowed_origins))
        arguments: list[Argument] = [project_id, name, " ".join(origins)]
        arguments += ["allow_client_complete", int(allow_client_complete)]
        for kind, key in keys.items():
            arguments += [kind.value, hashlib.sha256(key.encode()).digest()]
        named = (self._keys.project_names(), self._keys.project(project_id), self._keys.allowed_origins())
        now = await run_script(self._redis, _CREATE, Call(named, tuple(arguments)))
        if not isinstance(now, int) or not now:
            raise ProjectNameTakenError(name)
        await tell_change(
            self._redis, self._keys, ProjectChanged(project_id, "created", name, allow_client_complete, origins), now
        )
        return project_id, keys

    async def update(self, project: Project, *, allow_client_complete: bool, allowed_origins: Collection[str]) -> None:
        """Change what a project allows; API processes notice within the time for which they keep a project.

        Raises:
            UnknownProjectError: it has been deleted.

        """
        origins = sorted(set(allowed_origins))
        now = await self._change(project, " ".join(origins), "allow_client_complete", int(allow_client_complete))
        changed = ProjectChanged(project.id, "updated", project.name, allow_client_complete, origins)
        await tell_change(self._redis, self._keys, changed, now)

    async def is_origin_allowed(self, origin: str) -> bool:
        """Whether any project allows an origin."""
        found: list[bytes] = await self._redis.execute_command(
            *("ZRANGEBYLEX", self._keys.allowed_origins(), f"[{origin} ", f"({origin}!", "LIMIT", 0, 1)
        )
        return bool(found)

    async def read(self, project_id: str) -> ProjectRead:
        """Read a project and Redis' time in one round trip."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.execute_command("HGETALL", self._keys.project(project_id))
            pipeline.execute_command("TIME")
            fields, (seconds, microseconds) = await pipeline.execute()
        now = seconds * 1000 + microseconds // 1000
        return ProjectRead(_project(project_id, fields) if fields else None, now)

    async def list_all(self) -> list[Project]:
        """Return all projects by name."""
        names: dict[bytes, bytes] = await self._redis.execute_command("HGETALL", self._keys.project_names())
        found = [(await self.read(project_id.decode())).project for _, project_id in sorted(names.items())]
        return [project for project in found if project is not None]

    async def find(self, name_or_id: str) -> Project:
        """Return the project of this name or id.

        Raises:
            UnknownProjectError: there is none.

        """
        by_name: bytes | None = await self._redis.execute_command("HGET", self._keys.project_names(), name_or_id)
        project = (await self.read(by_name.decode() if by_name else name_or_id)).project
        if project is None:
            raise UnknownProjectError(name_or_id)
        return project

    async def rotate(self, project: Project, kinds: list[KeyKind], overlap_ms: int) -> dict[KeyKind, str]:
        """Give a project new keys of these kinds; the keys they replace stay valid for `overlap_ms`.

        Raises:
            UnknownProjectError: it has been deleted.

        """
        now = await self._now()
        keys = {kind: _new_key(kind) for kind in kinds}
        fields: list[Argument] = []
        for kind, key in keys.items():
            fields += [kind, hashlib.sha256(key.encode()).digest()]
            fields += [f"{kind}:previous", project.keys[kind].current, f"{kind}:previous_until", now + overlap_ms]
        await self._change(project, "=", *fields)
        rotated = KeyRotated(project.id, [kind.value for kind in kinds], rfc3339(now + overlap_ms))
        await tell_change(self._redis, self._keys, rotated, now)
        return keys

    async def delete(self, project: Project) -> None:
        """Delete a project: its keys stop working within the cache time of the API processes."""
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.execute_command("DEL", self._keys.project(project.id))
            pipeline.execute_command("HDEL", self._keys.project_names(), project.name)
            if project.allowed_origins:
                members = [f"{origin} {project.id}" for origin in project.allowed_origins]
                pipeline.execute_command("ZREM", self._keys.allowed_origins(), *members)
            await pipeline.execute()
        deleted = ProjectChanged(
            project.id, "deleted", project.name, project.allow_client_complete, list(project.allowed_origins)
        )
        await tell_change(self._redis, self._keys, deleted, await self._now())

    async def _change(self, project: Project, allowed_origins: str, *fields: Argument) -> int:
        """Write fields of a project, and its origins unless they are `=`; returns Redis' time in milliseconds."""
        keys = (self._keys.project(project.id), self._keys.allowed_origins())
        call = Call(keys, (project.id, allowed_origins, *fields))
        now = await run_script(self._redis, _CHANGE, call)
        if not isinstance(now, int) or not now:
            raise UnknownProjectError(project.id)
        return now

    async def _now(self) -> int:
        seconds, microseconds = await self._redis.time()
        return int(seconds * 1000 + microseconds // 1000)


def _new_key(kind: KeyKind) -> str:
    return KEY_PREFIXES[kind] + secrets.token_urlsafe(KEY_BYTES)


def _project(project_id: str, fields: Mapping[bytes, bytes]) -> Project:
    keys = {
        kind: KeyDigest(
            fields[kind.encode()],
            fields.get(f"{kind}:previous".encode(), NO_DIGEST),
            int(fields.get(f"{kind}:previous_until".encode(), 0)),
        )
        for kind in KeyKind
    }
    return Project(
        project_id,
        fields[b"name"].decode(),
        fields[b"allow_client_complete"] == b"1",
        int(fields[b"created_at"]),
        keys,
        tuple(fields.get(b"allowed_origins", b"").decode().split()),
    )

"""Creates, changes, finds and deletes projects in Redis. An event publishes each change afterwards."""

import hashlib
import uuid
from collections.abc import Collection, Mapping
from typing import Literal, NamedTuple

from redis.asyncio import Redis

from projects.audit import tell_change
from projects.audit_events import KeyRotated, ProjectChanged
from projects.errors import ProjectNameTakenError, UnknownProjectError
from projects.oauth import NO_OAUTH, OAuth
from projects.project import DEFAULT_POLICY, KEY_PREFIXES, NO_DIGEST, KeyDigest, KeyKind, Policy, Project
from runtime.clock import milliseconds_of, redis_now, rfc3339
from runtime.codes import new_key
from runtime.redis.keys import Keys
from runtime.redis.scripts import Argument, Script, run_script

_CREATE = Script.named("projects", "create_project")
_CHANGE = Script.named("projects", "change_project")


class ProjectRead(NamedTuple):
    """A project and the Redis time in milliseconds at which it was read."""

    project: Project | None
    now: int


class Projects:
    """The projects in Redis: one hash for each, one hash that keeps names unique, and a set of allowed origins.

    An event publishes each change afterwards (`projects.audit.tell_change`).
    """

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    async def create(
        self,
        name: str,
        *,
        allow_client_complete: bool,
        allowed_origins: Collection[str] = (),
        policy: Policy = DEFAULT_POLICY,
        oauth: OAuth = NO_OAUTH,
    ) -> tuple[str, dict[KeyKind, str]]:
        """Create a project and return its id and its keys, which cannot be shown again.

        The origins must be in the form that `normalise_origin` returns.

        Raises:
            ProjectNameTakenError: another project has the name.

        """
        project_id = str(uuid.uuid4())
        keys = {kind: new_key(KEY_PREFIXES[kind]) for kind in KeyKind}
        origins = sorted(set(allowed_origins))
        fields: list[Argument] = ["allow_client_complete", int(allow_client_complete)]
        fields += [*_policy_fields(policy), *_oauth_fields(oauth)]
        for kind, key in keys.items():
            fields += [kind.value, hashlib.sha256(key.encode()).digest()]
        call = _CREATE.call(
            names=self._keys.project_names(),
            project=self._keys.project(project_id),
            allowed_origins=self._keys.allowed_origins(),
            project_id=project_id,
            name=name,
            origins=" ".join(origins),
            fields=fields,
        )
        now = await run_script(self._redis, _CREATE, call)
        if not isinstance(now, int) or not now:
            raise ProjectNameTakenError(name)
        created = _changed(project_id, "created", name, (allow_client_complete, origins, policy, oauth))
        await tell_change(self._redis, self._keys, created, now)
        return project_id, keys

    async def update(
        self,
        project: Project,
        *,
        allow_client_complete: bool,
        allowed_origins: Collection[str],
        policy: Policy | None = None,
        oauth: OAuth | None = None,
    ) -> None:
        """Change what a project allows. API processes follow when their cached copy of the project expires.

        Without `policy` or `oauth` the project's own does not change.

        Raises:
            UnknownProjectError: the project has been deleted.

        """
        origins = sorted(set(allowed_origins))
        policy, oauth = policy or project.policy, oauth or project.oauth
        fields = ("allow_client_complete", int(allow_client_complete), *_policy_fields(policy), *_oauth_fields(oauth))
        now = await self._change(project, " ".join(origins), *fields)
        changed = _changed(project.id, "updated", project.name, (allow_client_complete, origins, policy, oauth))
        await tell_change(self._redis, self._keys, changed, now)

    async def is_origin_allowed(self, origin: str) -> bool:
        """Return whether any project allows an origin."""
        found: list[bytes] = await self._redis.execute_command(
            *("ZRANGEBYLEX", self._keys.allowed_origins(), f"[{origin} ", f"({origin}!", "LIMIT", 0, 1)
        )
        return bool(found)

    async def read(self, project_id: str) -> ProjectRead:
        """Return a project and Redis' time, read in one round trip."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.execute_command("HGETALL", self._keys.project(project_id))
            pipeline.execute_command("TIME")
            fields, (seconds, microseconds) = await pipeline.execute()
        now = milliseconds_of(seconds, microseconds)
        return ProjectRead(_project(project_id, fields) if fields else None, now)

    async def list_all(self) -> list[Project]:
        """Return all projects, sorted by name."""
        names: dict[bytes, bytes] = await self._redis.execute_command("HGETALL", self._keys.project_names())
        found = [(await self.read(project_id.decode())).project for _, project_id in sorted(names.items())]
        return [project for project in found if project is not None]

    async def find(self, name_or_id: str) -> Project:
        """Return the project with this name or id.

        Raises:
            UnknownProjectError: there is no such project.

        """
        by_name: bytes | None = await self._redis.execute_command("HGET", self._keys.project_names(), name_or_id)
        project = (await self.read(by_name.decode() if by_name else name_or_id)).project
        if project is None:
            raise UnknownProjectError(name_or_id)
        return project

    async def rotate(self, project: Project, kinds: list[KeyKind], overlap_ms: int) -> dict[KeyKind, str]:
        """Replace a project's keys of these kinds and return the new ones; the old ones stay valid for `overlap_ms`.

        Raises:
            UnknownProjectError: the project has been deleted.

        """
        now = await redis_now(self._redis)
        keys = {kind: new_key(KEY_PREFIXES[kind]) for kind in kinds}
        fields: list[Argument] = []
        for kind, key in keys.items():
            fields += [kind, hashlib.sha256(key.encode()).digest()]
            fields += [f"{kind}:previous", project.keys[kind].current, f"{kind}:previous_until", now + overlap_ms]
        await self._change(project, "=", *fields)
        rotated = KeyRotated(project.id, [kind.value for kind in kinds], rfc3339(now + overlap_ms))
        await tell_change(self._redis, self._keys, rotated, now)
        return keys

    async def delete(self, project: Project) -> None:
        """Delete a project. Its keys stop working when the cached copies of the API processes expire."""
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.execute_command("DEL", self._keys.project(project.id))
            pipeline.execute_command("HDEL", self._keys.project_names(), project.name)
            if project.allowed_origins:
                members = [f"{origin} {project.id}" for origin in project.allowed_origins]
                pipeline.execute_command("ZREM", self._keys.allowed_origins(), *members)
            await pipeline.execute()
        allowed = (project.allow_client_complete, project.allowed_origins, project.policy, project.oauth)
        deleted = _changed(project.id, "deleted", project.name, allowed)
        await tell_change(self._redis, self._keys, deleted, await redis_now(self._redis))

    async def _change(self, project: Project, origins: str, *fields: Argument) -> int:
        """Write fields of a project, and its origins unless they are `=`; return Redis' time in milliseconds.

        Raises:
            UnknownProjectError: the project has been deleted.

        """
        call = _CHANGE.call(
            project=self._keys.project(project.id),
            allowed_origins=self._keys.allowed_origins(),
            project_id=project.id,
            origins=origins,
            fields=fields,
        )
        now = await run_script(self._redis, _CHANGE, call)
        if not isinstance(now, int) or not now:
            raise UnknownProjectError(project.id)
        return now


def _policy_fields(policy: Policy) -> list[Argument]:
    """Return a policy as fields of its project's hash. A rule that the relay's setting decides is an empty text."""
    return [
        *("longest_lifetime_ms", policy.longest_lifetime_ms or ""),
        *("require_binding", int(policy.require_binding)),
        *("live_sessions_per_address", policy.live_sessions_per_address or ""),
        *("refresh_token_idle_ms", policy.refresh_token_idle_ms or ""),
        *("refresh_token_life_ms", policy.refresh_token_life_ms or ""),
        *("claim_anonymous", int(policy.claim_anonymous)),
    ]


def _oauth_fields(oauth: OAuth) -> list[Argument]:
    """Return the rules for OAuth clients as fields of their project's hash."""
    return [
        *("oauth", int(oauth.is_on)),
        *("verification_uri", oauth.verification_uri),
        *("verification_uri_complete", oauth.verification_uri_complete),
        *("scopes", " ".join(oauth.scopes)),
        *("audience", oauth.audience),
    ]


def _changed(
    project_id: str,
    change: Literal["created", "updated", "deleted"],
    name: str,
    allowed: tuple[bool, Collection[str], Policy, OAuth],
) -> ProjectChanged:
    allow_client_complete, origins, policy, oauth = allowed
    return ProjectChanged(
        *(project_id, change, name, allow_client_complete, list(origins)),
        *policy[:-1],
        claim_anonymous=policy.claim_anonymous,
        oauth=oauth.is_on,
        verification_uri=oauth.verification_uri or None,
    )


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
        Policy(
            int(fields.get(b"longest_lifetime_ms") or 0) or None,
            fields.get(b"require_binding") == b"1",
            int(fields.get(b"live_sessions_per_address") or 0) or None,
            int(fields.get(b"refresh_token_idle_ms") or 0) or None,
            int(fields.get(b"refresh_token_life_ms") or 0) or None,
            fields.get(b"claim_anonymous") == b"1",
        ),
        OAuth(
            fields.get(b"oauth") == b"1",
            fields.get(b"verification_uri", b"").decode(),
            fields.get(b"verification_uri_complete", b"").decode(),
            tuple(fields.get(b"scopes", b"").decode().split()) or NO_OAUTH.scopes,
            fields.get(b"audience", b"").decode(),
        ),
    )

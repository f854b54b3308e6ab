import hashlib
import uuid

import msgspec
import pytest
from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError

from projects.audit import Refusals
from projects.audit_events import BindingFailed
from projects.errors import ProjectNameTakenError, UnknownProjectError
from projects.project import (
    KEY_PREFIXES,
    NO_DIGEST,
    KeyDigest,
    KeyKind,
)
from projects.store import Projects
from runtime.clock import rfc3339
from runtime.redis.keys import Keys
from tests.support.relay import Relay

NOW = 1_000


def digest(key: str) -> bytes:
    """Return what is stored of a key."""
    return hashlib.sha256(key.encode()).digest()


async def test_project_is_kept_with_digests_for_keys(projects: Projects, redis: Redis, keys: Keys) -> None:
    """A project has a UUID, a name and three keys, of which only SHA-256 is stored (docs/wire.md 2)."""
    project_id, made = await projects.create("acme", allow_client_complete=True)
    assert str(uuid.UUID(project_id)) == project_id
    assert {kind: made[kind][:4] for kind in KeyKind} == KEY_PREFIXES
    assert all(len(key) == 4 + 43 for key in made.values())
    project, now = await projects.read(project_id)
    assert project is not None
    assert (project.id, project.name, project.allow_client_complete) == (project_id, "acme", True)
    assert now - 60_000 < project.created_at <= now
    assert project.keys == {kind: KeyDigest(digest(made[kind]), NO_DIGEST, 0) for kind in KeyKind}
    stored = await redis.execute_command("HGETALL", keys.project(project_id))
    assert not [key for key in made.values() if key.encode() in repr(stored).encode()]


async def test_client_access_may_not_complete_unless_said_so(projects: Projects) -> None:
    """The default for each project is no."""
    project_id, _ = await projects.create("acme", allow_client_complete=False)
    project, _ = await projects.read(project_id)
    assert project is not None
    assert not project.allow_client_complete


async def test_name_is_unique_until_its_project_is_deleted(projects: Projects) -> None:
    """Creating a project under a taken name changes nothing of the project that has it."""
    first, made = await projects.create("acme", allow_client_complete=False)
    with pytest.raises(ProjectNameTakenError):
        await projects.create("acme", allow_client_complete=True)
    project = await projects.find("acme")
    assert (project.id, project.allow_client_complete) == (first, False)
    assert project.keys[KeyKind.SECRET_SERVER].matches(made[KeyKind.SECRET_SERVER], NOW)
    await projects.delete(project)
    assert (await projects.create("acme", allow_client_complete=False))[0] != first


async def test_projects_are_listed_by_name_and_found_by_name_or_id(projects: Projects) -> None:
    """Operators name a project either way."""
    ids = {name: (await projects.create(name, allow_client_complete=False))[0] for name in ("b", "c", "a")}
    assert [(project.name, project.id) for project in await projects.list_all()] == sorted(ids.items())
    assert (await projects.find("b")).id == (await projects.find(ids["b"])).id == ids["b"]
    with pytest.raises(UnknownProjectError):
        await projects.find("d")


async def test_deleted_project_is_gone(projects: Projects) -> None:
    """Neither its id nor its name finds anything."""
    project_id, _ = await projects.create("acme", allow_client_complete=False)
    await projects.delete(await projects.find("acme"))
    assert (await projects.read(project_id)).project is None
    assert await projects.list_all() == []
    with pytest.raises(UnknownProjectError):
        await projects.find(project_id)


async def test_rotated_key_is_valid_for_its_overlap(projects: Projects) -> None:
    """The old key works for the stated time beside the new one; keys that were not named stay."""
    project_id, made = await projects.create("acme", allow_client_complete=False)
    new = await projects.rotate(await projects.find("acme"), [KeyKind.SECRET_SERVER], overlap_ms=60_000)
    assert set(new) == {KeyKind.SECRET_SERVER}
    project, now = await projects.read(project_id)
    assert project is not None
    stored = project.keys[KeyKind.SECRET_SERVER]
    assert now - 5_000 < stored.previous_until - 60_000 <= now
    for moment, old_is_valid in ((now, True), (stored.previous_until, True), (stored.previous_until + 1, False)):
        assert stored.matches(new[KeyKind.SECRET_SERVER], moment)
        assert stored.matches(made[KeyKind.SECRET_SERVER], moment) is old_is_valid
    assert project.keys[KeyKind.SUPER_SECRET_ADMIN] == KeyDigest(digest(made[KeyKind.SUPER_SECRET_ADMIN]), NO_DIGEST, 0)


async def test_second_rotation_ends_the_first_key(projects: Projects) -> None:
    """Only one key is valid beside the current one."""
    project_id, made = await projects.create("acme", allow_client_complete=False)
    kind = KeyKind.PUBLISHABLE_CLIENT
    second = (await projects.rotate(await projects.find("acme"), [kind], overlap_ms=60_000))[kind]
    third = (await projects.rotate(await projects.find("acme"), [kind], overlap_ms=60_000))[kind]
    project, now = await projects.read(project_id)
    assert project is not None
    assert [project.keys[kind].matches(key, now) for key in (made[kind], second, third)] == [False, True, True]


@pytest.mark.parametrize(
    ("key", "now", "matches"),
    [
        ("current", NOW + 1, True),
        ("previous", NOW, True),
        ("previous", NOW + 1, False),
        ("other", NOW, False),
        ("", NOW, False),
    ],
)
def test_key_matches_by_digest_and_time(*, key: str, now: int, matches: bool) -> None:
    """The current key always, the previous one up to its end, nothing else."""
    assert KeyDigest(digest("current"), digest("previous"), NOW).matches(key, now) is matches
    assert KeyDigest(digest("current"), NO_DIGEST, 0).matches(key, now) is (key == "current")


async def told(redis: Redis, keys: Keys) -> list[tuple[str, str, dict[str, object]]]:
    """Return the type, the subject and the data of every event."""
    entries = await redis.execute_command("XRANGE", keys.events(0), "-", "+")
    return [
        (fields[b"type"].decode(), fields[b"subject"].decode(), msgspec.json.decode(fields[b"data"]))
        for _, fields in entries
    ]


async def test_every_change_is_told_and_no_key_is(projects: Projects, redis: Redis, keys: Keys) -> None:
    """Creation, update, rotation and deletion are events of the project, in that order, with its new properties."""
    origin = "https://app.example.com"
    id_, made = await projects.create("acme", allow_client_complete=False)
    await projects.update(await projects.find("acme"), allow_client_complete=True, allowed_origins=[origin])
    kinds = [KeyKind.SECRET_SERVER, KeyKind.PUBLISHABLE_CLIENT]
    new = await projects.rotate(await projects.find("acme"), kinds, overlap_ms=60_000)
    rotated = await projects.find("acme")
    await projects.delete(rotated)
    until = rfc3339(rotated.keys[KeyKind.SECRET_SERVER].previous_until)
    before = {"name": "acme", "allow_client_complete": False, "allowed_origins": []}
    after = {"name": "acme", "allow_client_complete": True, "allowed_origins": [origin]}
    assert await told(redis, keys) == [
        ("audit.project_changed", id_, {"project_id": id_, "change": "created", **before}),
        ("audit.project_changed", id_, {"project_id": id_, "change": "updated", **after}),
        ("audit.key_rotated", id_, {"project_id": id_, "keys": kinds, "previous_valid_until": until}),
        ("audit.project_changed", id_, {"project_id": id_, "change": "deleted", **after}),
    ]
    everything = repr(await told(redis, keys))
    assert not [key for key in (*made.values(), *new.values()) if key in everything or digest(key).hex() in everything]


async def test_deleted_project_comes_back_by_no_change(projects: Projects, redis: Redis, keys: Keys) -> None:
    """A change by a caller that read the project before its deletion does not bring it back."""
    id_, _ = await projects.create("acme", allow_client_complete=False)
    found = await projects.find("acme")
    await projects.delete(found)
    with pytest.raises(UnknownProjectError):
        await projects.rotate(found, list(KeyKind), overlap_ms=0)
    with pytest.raises(UnknownProjectError):
        await projects.update(found, allow_client_complete=True, allowed_origins=["https://a.example"])
    assert not await redis.exists(keys.project(id_), keys.allowed_origins())
    assert len(await told(redis, keys)) == 2


async def test_origin_is_allowed_as_long_as_a_project_allows_it(projects: Projects) -> None:
    """Of two projects that share it, either may be deleted first; a prefix or an extension of it is another origin."""
    origin = "https://app.example.com"
    ids = [(await projects.create(name, allow_client_complete=False, allowed_origins=[origin]))[0] for name in "ab"]
    for other in ("https://app.example.co", "https://app.example.com:8443", "https://app.example.com ", "", "["):
        assert not await projects.is_origin_allowed(other)
    first, second = [await projects.find(id_) for id_ in ids]
    await projects.delete(first)
    assert await projects.is_origin_allowed(origin)
    await projects.update(second, allow_client_complete=False, allowed_origins=["https://b.example"])
    assert not await projects.is_origin_allowed(origin)
    assert await projects.is_origin_allowed("https://b.example")


async def test_stolen_key_can_be_rotated_when_the_server_is_full(own_relay: Relay) -> None:
    """An attack may have filled it: the rotation is published, refusals are not, and no caller gets an error."""
    projects, redis, keys = Projects(own_relay.redis, own_relay.keys), own_relay.redis, own_relay.keys
    id_, _ = await projects.create("acme", allow_client_complete=False)
    await redis.config_set("maxmemory", "1")
    new = await projects.rotate(await projects.find("acme"), [KeyKind.PUBLISHABLE_CLIENT], overlap_ms=0)
    project, now = await projects.read(id_)
    assert project is not None
    assert project.keys[KeyKind.PUBLISHABLE_CLIENT].matches(new[KeyKind.PUBLISHABLE_CLIENT], now)
    refusals = Refusals(redis, keys, window_ms=600_000, retention_ms=600_000)
    await refusals.tell(BindingFailed(id_, "192.0.2.1"), "cause", now)
    with pytest.raises(OutOfMemoryError):
        await projects.create("other", allow_client_complete=False)
    await projects.delete(project)
    await redis.config_set("maxmemory", "0")
    await refusals.tell(BindingFailed(id_, "192.0.2.1"), "cause", now)
    assert [type_ for type_, _, _ in await told(redis, keys)] == [
        *("audit.project_changed", "audit.key_rotated", "audit.project_changed", "audit.binding_failed")
    ]

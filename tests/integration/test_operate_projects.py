import re
import shlex
import uuid

import pytest

from projects.oauth import OAuth
from projects.project import KEY_PREFIXES, KeyKind
from projects.store import Projects
from runtime.clock import rfc3339
from tests.support.operate import RFC_3339, Operate, refused, shown
from tests.support.relay import PROJECT


async def test_created_project_is_one_json_object_with_keys_that_work(operate: Operate, projects: Projects) -> None:
    """A script can rely on the names; the keys match the stored digests, and are not stored."""
    made = shown(await operate("projects", "create", "acme", "--json"))
    assert list(made) == ["project_id", "name", *KeyKind]
    assert str(uuid.UUID(made["project_id"])) == made["project_id"]
    assert made["name"] == "acme"
    project, now = await projects.read(made["project_id"])
    assert project is not None
    assert not project.allow_client_complete
    for kind in KeyKind:
        assert made[kind].startswith(KEY_PREFIXES[kind])
        assert project.keys[kind].matches(made[kind], now)


async def test_project_may_let_clients_complete(operate: Operate, projects: Projects) -> None:
    """The flag is stored and shown by the list."""
    await operate("projects", "create", "acme", "--allow-client-complete")
    assert (await projects.find("acme")).allow_client_complete
    [listed] = shown(await operate("projects", "list", "--json"))
    assert listed["allow_client_complete"] is True


async def test_project_is_updated_in_what_is_said_alone(operate: Operate, projects: Projects) -> None:
    """Origins are added and removed one by one; everything else stays as it is."""
    app, local = "https://app.example.com", "http://localhost:3000"
    await operate(
        "projects", "create", "acme", "--allow-origin", "HTTPS://app.example.com:443/", "--allow-origin", local
    )
    assert (await projects.find("acme")).allowed_origins == (local, app)
    for arguments, origins, complete in (
        (("--allow-client-complete",), (local, app), True),
        (("--allow-origin", "https://b.example"), (local, app, "https://b.example"), True),
        (("--forbid-origin", app, "--forbid-origin", "https://b.example"), (local,), True),
        (("--no-allow-client-complete",), (local,), False),
        ((), (local,), False),
    ):
        assert (await operate("projects", "update", "acme", *arguments)).exit_code == 0
        project = await projects.find("acme")
        assert (project.allowed_origins, project.allow_client_complete) == (origins, complete)
    [listed] = shown(await operate("projects", "list", "--json"))
    assert listed["allowed_origins"] == [local]
    assert local in (await operate("projects", "list")).stdout


@pytest.mark.parametrize(
    "origin",
    [
        *(
            "*",
            "null",
            "",
            "app.example.com",
            "https://",
            "ftp://a.example",
            "https://a.example/path",
            "https://*.a.example",
        ),
        *("https://user@a.example", "https://a.example?x", "https://a.example https://b.example", "https://ä.example"),
    ],
)
async def test_origin_that_is_none_is_refused(operate: Operate, projects: Projects, origin: str) -> None:
    """No wildcard, no path, no user: what browsers send has none either."""
    assert "https://app.example.com" in refused(
        await operate("projects", "create", "acme", "--allow-origin", origin), 2
    )
    assert await projects.list_all() == []


async def test_people_are_told_that_keys_are_shown_once(operate: Operate) -> None:
    """The keys are on standard output, the warning is on standard error."""
    result = await operate("projects", "create", "acme")
    assert re.findall(r"\b(?:pck|ssk|sak)_[\w-]{43}\b", result.stdout)
    assert "shown this once" in result.stderr


async def test_name_is_taken_once(operate: Operate) -> None:
    """A second project of a name is rejected in one line, and the first stays as it is."""
    made = shown(await operate("projects", "create", "acme", "--json"))
    assert "'acme' exists already" in refused(await operate("projects", "create", "acme"), 1)
    assert [row["project_id"] for row in shown(await operate("projects", "list", "--json"))] == [made["project_id"]]


@pytest.mark.parametrize("name", ["", "a" * 65, "tab\there", " ends", "new\nline", PROJECT, PROJECT.upper(), "\ud800"])
async def test_name_that_cannot_be_one_is_refused(operate: Operate, projects: Projects, name: str) -> None:
    """Names are short and printable and never look like an id, so that a look-up is unambiguous."""
    refused(await operate("projects", "create", "--", name), 2)
    assert await projects.list_all() == []


async def test_list_shows_projects_and_no_keys(operate: Operate) -> None:
    """By name, with ids and times; without any there is a hint."""
    assert "projects create" in (await operate("projects", "list")).stdout
    made = [shown(await operate("projects", "create", name, "--json")) for name in ("beta", "acme")]
    text = (await operate("projects", "list")).stdout
    assert [line.split()[0] for line in text.splitlines()] == ["name", "acme", "beta"]
    assert all(project["project_id"] in text for project in made)
    assert not any(project[kind] in text for project in made for kind in KeyKind)
    listed = shown(await operate("projects", "list", "--json"))
    assert all(RFC_3339.fullmatch(row["created_at"]) for row in listed)


async def test_what_a_project_asks_of_its_sessions_is_listed_and_changed(operate: Operate) -> None:
    """An update changes only what it names; a project without a policy uses the settings."""

    async def policies() -> list[tuple[object, ...]]:
        fields = ("longest_lifetime_ms", "require_binding", "live_sessions_per_address")
        return [tuple(row[field] for field in fields) for row in shown(await operate("projects", "list", "--json"))]

    await operate("projects", "create", "silent")
    strict = ("--longest-lifetime", "24h", "--require-binding", "--live-sessions-per-address", "10")
    await operate("projects", "create", "strict", *strict)
    assert await policies() == [(None, False, None), (86_400_000, True, 10)]
    listed = (await operate("projects", "list")).stdout
    assert "default" in listed.splitlines()[1]
    assert "at most 24 h, bound, 10 live per address" in listed.splitlines()[2]
    await operate("projects", "update", "strict", "--longest-lifetime", "1s")
    await operate("projects", "update", "silent", "--require-binding")
    assert await policies() == [(None, True, None), (1_000, True, 10)]
    await operate("projects", "update", "strict", "--no-require-binding", "--allow-client-complete")
    assert await policies() == [(None, True, None), (1_000, False, 10)]


async def test_a_project_may_shorten_the_life_of_its_tokens(operate: Operate) -> None:
    """For tokens that are not used, and for all."""
    await operate("projects", "create", "acme", "--token-idle", "7d")
    await operate("projects", "update", "acme", "--token-life", "90d")
    [row] = shown(await operate("projects", "list", "--json"))
    assert (row["refresh_token_idle_ms"], row["refresh_token_life_ms"]) == (7 * 86_400_000, 90 * 86_400_000)
    listed = (await operate("projects", "list")).stdout
    assert "tokens idle at most 7 d, tokens live at most 90 d" in listed
    refused(await operate("projects", "update", "acme", "--token-life", "401d"), 2)


@pytest.mark.parametrize("lifetime", ["0", "25h", "2d", "soon"])
async def test_lifetime_that_no_session_may_have_is_refused(operate: Operate, lifetime: str) -> None:
    """The wire's bounds are a second and a day (docs/wire.md 3)."""
    refused(await operate("projects", "create", "acme", "--longest-lifetime", lifetime), 2)


async def test_rotated_key_replaces_the_old_one_after_the_overlap(operate: Operate, projects: Projects) -> None:
    """Both are valid for the overlap that was asked for; the other keys are as before."""
    made = shown(await operate("projects", "create", "acme", "--json"))
    arguments = ("--key", "secret", "--overlap", "10m", "--json")
    rotated = shown(await operate("projects", "rotate", made["project_id"], *arguments))
    assert list(rotated) == ["project_id", "name", KeyKind.SECRET_SERVER, "previous_keys_valid_until"]
    project, now = await projects.read(made["project_id"])
    assert project is not None
    secret = project.keys[KeyKind.SECRET_SERVER]
    assert secret.matches(rotated[KeyKind.SECRET_SERVER], now)
    assert secret.matches(made[KeyKind.SECRET_SERVER], now + 500_000)
    assert not secret.matches(made[KeyKind.SECRET_SERVER], now + 600_001)
    assert project.keys[KeyKind.PUBLISHABLE_CLIENT].matches(made[KeyKind.PUBLISHABLE_CLIENT], now)


async def test_rotation_without_options_replaces_all_keys(operate: Operate, projects: Projects) -> None:
    """By name too; the old keys stay valid for a day."""
    made = shown(await operate("projects", "create", "acme", "--json"))
    rotated = shown(await operate("projects", "rotate", "acme", "--json"))
    project, now = await projects.read(made["project_id"])
    assert project is not None
    for kind in KeyKind:
        assert project.keys[kind].matches(rotated[kind], now)
        assert project.keys[kind].matches(made[kind], now + 86_000_000)
        assert not project.keys[kind].matches(made[kind], now + 86_400_001)


@pytest.mark.parametrize("choice", [("--key", "secret"), ()])
async def test_stolen_key_is_worth_nothing_after_what_rotation_says_was_typed(
    operate: Operate, projects: Projects, choice: tuple[str, ...]
) -> None:
    """Rotation alone leaves it valid; the output says until when, and what to type if the key leaked."""
    stolen = shown(await operate("projects", "create", "acme", "--json"))
    says = (await operate("projects", "rotate", "acme", *choice)).stderr
    project, now = await projects.read(stolen["project_id"])
    assert project is not None
    assert project.keys[KeyKind.SECRET_SERVER].matches(stolen[KeyKind.SECRET_SERVER], now)
    assert rfc3339(project.keys[KeyKind.SECRET_SERVER].previous_until) in says
    _, *typed = shlex.split(re.findall(r"`(login-relay .*)`", says)[0])
    says = (await operate(*typed)).stderr
    assert "five seconds" in says
    project, now = await projects.read(stolen["project_id"])
    assert project is not None
    for kind in KeyKind:
        is_replaced = kind is KeyKind.SECRET_SERVER or not choice
        assert project.keys[kind].matches(stolen[kind], now + 1) is not is_replaced


async def test_help_of_rotate_says_what_to_do_about_a_leaked_key(operate: Operate) -> None:
    """By default the old key stays valid, which is wrong for a leaked key."""
    text = " ".join((await operate("projects", "rotate", "--help")).stdout.split())
    assert "the old keys stay valid for the overlap" in text
    assert "leaked key, use `--overlap 0`" in text


@pytest.mark.parametrize(
    ("overlap", "milliseconds"), [("0", 0), ("30s", 30_000), ("24h", 86_400_000), ("7d", 604_800_000)]
)
async def test_overlap_is_a_length_of_time(
    operate: Operate, projects: Projects, overlap: str, milliseconds: int
) -> None:
    """Seconds, minutes, hours, days, or none at all."""
    await operate("projects", "create", "acme")
    await operate("projects", "rotate", "acme", "--overlap", overlap)
    project = await projects.find("acme")
    _, now = await projects.read(project.id)
    assert now - 5_000 + milliseconds <= project.keys[KeyKind.SECRET_SERVER].previous_until <= now + milliseconds


@pytest.mark.parametrize("overlap", ["", "10", "-1s", "1w", "1.5h", "٣s", "1234567s"])
async def test_overlap_that_is_none_is_refused(operate: Operate, overlap: str) -> None:
    """In one line, which shows the valid form."""
    await operate("projects", "create", "acme")
    assert "10m" in refused(await operate("projects", "rotate", "acme", "--overlap", overlap), 2)


async def test_project_is_deleted_when_the_question_is_answered_with_yes(operate: Operate, projects: Projects) -> None:
    """Any other answer, or no answer, keeps it; `--yes` skips the question. The name is free afterwards."""
    await operate("projects", "create", "acme")
    for answer in ("", "n\n"):
        assert (await operate("projects", "delete", "acme", text=answer)).exit_code == 1
    assert [project.name for project in await projects.list_all()] == ["acme"]
    assert (await operate("projects", "delete", "acme", text="y\n")).exit_code == 0
    assert await projects.list_all() == []
    made = shown(await operate("projects", "create", "acme", "--json"))
    assert (await operate("projects", "delete", made["project_id"], "--yes")).exit_code == 0


@pytest.mark.parametrize("command", ["rotate", "update", "delete"])
async def test_unknown_project_is_refused(operate: Operate, command: str) -> None:
    """In one line, before any question."""
    assert "'nobody'" in refused(await operate("projects", command, "nobody"), 1)


async def test_project_opens_to_oauth_clients_only_if_it_is_told_to(operate: Operate, projects: Projects) -> None:
    """Off by default; an update changes only what it names, and an empty text puts a default back."""
    made = shown(await operate("projects", "create", "acme", "--json"))
    assert not (await projects.find("acme")).oauth.is_on
    page, template = "https://app.example/device", "https://app.example/device/{user_code}"
    opened = OAuth(is_on=True, verification_uri=page)
    scoped = opened._replace(scopes=("cli", "repo:read"))
    for arguments, expected in (
        (("--oauth", "--verification-uri", page), opened),
        (("--scopes", "cli repo:read"), scoped),
        (("--verification-uri-complete", template), scoped._replace(verification_uri_complete=template)),
        (("--audience", "api"), scoped._replace(verification_uri_complete=template, audience="api")),
        (("--verification-uri-complete", "", "--audience", ""), scoped),
        ((), scoped),
        (("--no-oauth",), scoped._replace(is_on=False)),
    ):
        assert (await operate("projects", "update", "acme", *arguments)).exit_code == 0
        assert (await projects.find("acme")).oauth == expected
        [listed] = shown(await operate("projects", "list", "--json"))
        assert listed["oauth"] is expected.is_on
        assert listed["verification_uri"] == page
        assert listed["verification_uri_complete"] == (expected.verification_uri_complete or None)
        assert listed["scopes"] == list(expected.scopes)
        assert listed["audience"] == (expected.audience or made["project_id"])
    assert (await operate("projects", "list")).stdout.splitlines()[-1].endswith("off")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--oauth",), "--verification-uri"),
        (("--verification-uri", "http://app.example/device"), "https://"),
        (("--verification-uri-complete", "https://app.example/device"), "{user_code}"),
        (("--scopes", 'say"so'), "RFC 6749"),
        (("--audience", "two words"), "256"),
    ],
)
async def test_rules_for_oauth_clients_are_checked(
    operate: Operate, projects: Projects, arguments: tuple[str, ...], said: str
) -> None:
    """A page must be https, or on this machine; OAuth needs one."""
    assert said in refused(await operate("projects", "create", "acme", *arguments), 2)
    assert await projects.list_all() == []

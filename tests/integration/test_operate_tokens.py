import pytest

from projects.store import Projects
from tests.support.operate import RFC_3339, Operate, refused, shown
from tests.support.token_desk import SUBJECT, TokenDesk, caller
from tokens.lifecycle import State

ACME = ("--project", "acme", "--subject", SUBJECT)


@pytest.fixture
async def acme(projects: Projects) -> str:
    """The id of a project."""
    return (await projects.create("acme", allow_client_complete=False))[0]


async def test_tokens_of_a_subject_are_listed_without_a_secret(operate: Operate, desk: TokenDesk, acme: str) -> None:
    """Each login that works, with its times and its tool; no token and no digest."""
    token, family = await desk.open(project_id=acme)
    await desk.open(project_id=acme, subject="somebody else")
    await desk.redis.hset(
        desk.keys.family(family.id), "client", '{"client_name":"tool\\u001b[31m","hostname":"laptop"}'
    )
    [row] = shown(await operate("tokens", "list", *ACME, "--json"))
    assert (row["session_id"], row["subject"], row["flow"], row["hostname"]) == (family.id, SUBJECT, "cli", "laptop")
    assert all(RFC_3339.fullmatch(row[name]) for name in ("opened_at", "refreshed_at", "dies_at", "ends_at"))
    text = (await operate("tokens", "list", *ACME)).stdout
    assert family.id in text
    assert "\x1b" not in text
    for output in (text, str(row)):
        assert token.family_secret not in output
        assert token.digest.hex() not in output
    nobody = await operate("tokens", "list", "--project", "acme", "--subject", "nobody")
    assert "Nobody is logged in as nobody" in nobody.stdout
    assert shown(await operate("tokens", "list", "--project", "acme", "--subject", "nobody", "--json")) == []
    assert "no project has the name" in refused(await operate("tokens", "list", "--project", "x", "--subject", "y"), 1)


async def test_operator_hears_that_tokens_are_listed_by_subject(operate: Operate, acme: str) -> None:
    """A project alone is wrong usage, and the line says where subjects are found."""
    line = refused(await operate("tokens", "list", "--project", acme), 2)
    assert "login-relay events --type family.opened" in line


@pytest.mark.usefixtures("worker")
async def test_tokens_are_revoked_by_their_session(operate: Operate, desk: TokenDesk, acme: str) -> None:
    """A worker does it, once; what is over already is no error, what never was is one."""
    token, family = await desk.open(project_id=acme)
    assert shown(await operate("tokens", "revoke", family.id, "--yes", "--json"))["was_alive"]
    after = await desk.family(family.id)
    assert (after.state, after.why) == (State.REVOKED, "server")
    assert not shown(await operate("tokens", "revoke", family.id, "--json"))["was_alive"]
    assert "has no refresh token" in refused(await operate("tokens", "revoke", "00" + 24 * "a"), 1)
    assert token.text not in refused(await operate("tokens", "revoke", token.text), 2)


async def test_operator_hears_that_no_worker_revokes(operate: Operate, desk: TokenDesk, acme: str) -> None:
    """Exit code 1, and the command stays recorded; without a yes nothing is recorded."""
    _, family = await desk.open(project_id=acme)
    assert (await operate("tokens", "revoke", family.id, text="n\n")).exit_code == 1
    assert await desk.redis.xlen(desk.keys.commands(0)) == 0
    line = refused(await operate("tokens", "revoke", family.id, "--yes", LOGIN_RELAY_OUTCOME_WAIT_MS="2600"), 1)
    assert "does a worker run?" in line
    assert await desk.redis.xlen(desk.keys.commands(0)) == 1


async def test_a_subject_is_logged_out_everywhere(operate: Operate, desk: TokenDesk, acme: str) -> None:
    """At once, without a worker; others stay."""
    token, _ = await desk.open(project_id=acme, rotates=False)
    other, _ = await desk.open(project_id=acme, rotates=False, subject="somebody else")
    assert (await operate("tokens", "logout", *ACME, text="n\n")).exit_code == 1
    assert await desk.introspecting.by_token(acme, token.text)
    told = shown(await operate("tokens", "logout", *ACME, "--yes", "--json"))
    assert (told["project_id"], told["subject"]) == (acme, SUBJECT)
    assert RFC_3339.fullmatch(told["logged_out_at"])
    assert await desk.introspecting.by_token(acme, token.text) is None
    assert (await desk.refreshing.refresh(caller(acme), other.text)).refresh_token is None
    assert (await operate("tokens", "logout", *ACME, "--yes")).exit_code == 0
    assert shown(await operate("tokens", "list", *ACME, "--json")) == []

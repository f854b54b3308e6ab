"""Structs that are kept in Redis or sent to others, byte by byte: two versions side by side read each other's.

Commands and events have tables of their own (test_commands.py, test_events.py).
"""

import importlib
import pkgutil
from datetime import UTC, datetime
from types import ModuleType

import msgspec
import pytest

import api
import events
import login_relay
import login_relay_client
import projects
import runtime
import statemachine
import tokens
import worker
from api.oauth import token_endpoint as oauth_tokens
from api.oauth.device_authorization import DeviceAuthorization
from api.oauth.errors import ErrorBody
from api.oauth.introspection import Active, Inactive
from api.oauth.metadata import KeySet, Metadata
from api.request.health import Health
from api.request.note import RequestLine
from api.stack.after_login import sessions as stack_sessions
from api.stack.after_login.anonymous import Claimed, SignedUp
from api.stack.after_login.current import Ended, Refreshed
from api.stack.after_login.me import Me
from api.stack.after_login.token_endpoint import AccessTokenResponse, TokenRequest
from api.stack.cancel import Cancelled, CancelRequest
from api.stack.complete import (
    Checked,
    CompleteRequest,
    Done,
    Inspected,
    Minted,
    TokenResponse,
)
from api.stack.errors import KnownErrorBody
from api.stack.initiate import InitiateRequest, InitiateResponse
from api.stack.poll import PollRequest, PollStatus, PollSuccess
from events.cloud_event import CloudEvent
from login_relay.login import Report
from login_relay.offline.keys import Listed, Printed
from login_relay.operate.activity import Latency, RecentSession
from login_relay.operate.checks.check import Check, Level
from login_relay.operate.dead_letters import Shown
from login_relay.operate.doctor import Diagnosis
from login_relay.operate.status import PartitionStatus, Status
from login_relay.operate.top import Snapshot
from login_relay.run.demo import DemoProject
from runtime.settings import Settings
from statemachine.commands import AnyCommand
from statemachine.events import Event
from statemachine.handover import Handover
from statemachine.lifecycle import State
from statemachine.session import ClientFacts, Session, TimedSession
from statemachine.store.inspection import SessionFacts
from statemachine.store.workers import SignOfLife, WorkerStatus
from tokens.access_tokens import AccessToken
from tokens.announcing import Announcement
from tokens.family import Family, Opening

SESSION = "0" * 26
POLLING_CODE = f"lrp_{SESSION}{'x' * 32}"
DEVICE_CODE = f"lrd_{SESSION}{'x' * 32}"
LONG = {
    b"SESSION": SESSION.encode(),
    b"POLLING": POLLING_CODE.encode(),
    b"CHALLENGE": b"c" * 43,
    b"DEVICE": DEVICE_CODE.encode(),
}
"""What stands for it in the bytes below."""
AT = "2026-01-01T00:00:00.000Z"
PARTITION = PartitionStatus(0, 3, 2, 10, None, 1)
WORKER = WorkerStatus("h:1:ab", alive=True, pending=2, idle_ms=5, host="h", pid=1, up_ms=None)
AS_PARTITION = (
    b'{"partition":0,"backlog":3,"pending":2,"oldest_unread_ms":10,"oldest_pending_ms":null,"dead_letters":1}'
)
AS_WORKER = b'{"consumer":"h:1:ab","alive":true,"pending":2,"idle_ms":5,"host":"h","pid":1,"up_ms":null}'

GOLDEN: list[tuple[msgspec.Struct, bytes]] = [
    # In Redis.
    (SignOfLife("h", 1, 1.5), b'{"host":"h","pid":1,"started_at":1.5}'),
    (
        Announcement("h", 1, "https://r.example", ("00ff", "11ee")),
        b'{"host":"h","pid":1,"public_url":"https://r.example","fingerprints":["00ff","11ee"]}',
    ),
    (ClientFacts(), b"{}"),
    (ClientFacts("tool", "1", "h"), b'{"client_name":"tool","client_version":"1","hostname":"h"}'),
    (
        Opening(b"\x00\xff", b"\xff\x00", "ada", "p", 1, 2),
        b'{"family_digest":"AP8=","token_digest":"/wA=","subject":"ada","client_id":"p","idle_ms":1,"life_ms":2}',
    ),
    (
        Opening(b"", b"", "ada", "p", 1, 2, "device", rotates=True, anonymous=True, scope="a b", audience="c"),
        (
            b'{"family_digest":"","token_digest":"","subject":"ada","client_id":"p","idle_ms":1,"life_ms":2,'
            b'"flow":"device","rotates":true,"anonymous":true,"scope":"a b","audience":"c"}'
        ),
    ),
    # Sealed in Redis.
    (Handover("lrt_", "ada", "cli"), b'{"refresh_token":"lrt_","subject":"ada","scope":"cli"}'),
    # To clients: docs/wire.md 3 to 6.
    (InitiateRequest(), b'{"client_name":null,"client_version":null,"hostname":null}'),
    (
        InitiateRequest(1_000, "a", "c" * 43, "S256", "tool", "1", "h"),
        (
            b'{"expires_in_millis":1000,"anon_refresh_token":"a","code_challenge":"CHALLENGE","code_challenge_method":"S256",'
            b'"client_name":"tool","client_version":"1","hostname":"h"}'
        ),
    ),
    (
        InitiateResponse(POLLING_CODE, "WDJB-MJHT-XKQP", AT, 2, SESSION),
        b'{"polling_code":"POLLING","login_code":"WDJB-MJHT-XKQP","expires_at":"2026-01-01T00:00:00.000Z","interval":2,"session_id":"SESSION"}',
    ),
    (PollRequest("lrp_"), b'{"polling_code":"lrp_"}'),
    (PollRequest("lrp_", "v"), b'{"polling_code":"lrp_","code_verifier":"v"}'),
    (PollStatus("waiting"), b'{"status":"waiting"}'),
    (PollSuccess("success", "rt"), b'{"status":"success","refresh_token":"rt"}'),
    (CompleteRequest("CODE"), b'{"login_code":"CODE","mode":"complete"}'),
    (
        CompleteRequest("CODE", "check", "rt", "ada"),
        b'{"login_code":"CODE","mode":"check","refresh_token":"rt","subject":"ada"}',
    ),
    (
        CompleteRequest("CODE", "complete", subject="ada", scope="cli repo"),
        b'{"login_code":"CODE","mode":"complete","subject":"ada","scope":"cli repo"}',
    ),
    (CancelRequest("lrp_"), b'{"polling_code":"lrp_"}'),
    (CancelRequest("lrp_", "v"), b'{"polling_code":"lrp_","code_verifier":"v"}'),
    (Cancelled(), b"{}"),
    (
        Inspected(
            "00" + "ab" * 12, "cli", "2026-01-01T00:00:00.000Z", "2026-01-01T00:15:00.000Z", "none", address="::1"
        ),
        (
            b'{"session_id":"00abababababababababababab","flow":"cli","initiated_at":"2026-01-01T00:00:00.000Z",'
            b'"expires_at":"2026-01-01T00:15:00.000Z","cli_session_state":"none","address":"::1"}'
        ),
    ),
    (Minted(), b"{}"),
    (Done(success=True), b'{"success":true}'),
    (Checked("none"), b'{"cli_session_state":"none"}'),
    (KnownErrorBody("C", "text"), b'{"code":"C","error":"text"}'),
    (KnownErrorBody("C", "text", {"n": 1}), b'{"code":"C","error":"text","details":{"n":1}}'),
    (Health("live"), b'{"status":"live"}'),
    # To Stack's clients, after the login: docs/wire.md 10.
    (
        TokenRequest("refresh_token", "rt", "p", "s"),
        b'{"grant_type":"refresh_token","refresh_token":"rt","client_id":"p","client_secret":"s"}',
    ),
    (
        AccessTokenResponse("jwt", "Bearer", 300),
        b'{"access_token":"jwt","token_type":"Bearer","expires_in":300}',
    ),
    (
        AccessTokenResponse("jwt", "Bearer", 300, "cli"),
        b'{"access_token":"jwt","token_type":"Bearer","expires_in":300,"scope":"cli"}',
    ),
    (
        Me("ada", is_anonymous=False, is_restricted=False, signed_up_at_millis=1, last_active_at_millis=2),
        (
            b'{"id":"ada","is_anonymous":false,"is_restricted":false,"signed_up_at_millis":1,"last_active_at_millis":2,'
            b'"restricted_reason":null,"primary_email":null,"primary_email_verified":false,'
            b'"primary_email_auth_enabled":false,"display_name":null,"profile_image_url":null,"selected_team":null,'
            b'"selected_team_id":null,"client_metadata":null,"client_read_only_metadata":null,"has_password":false,'
            b'"auth_with_email":false,"otp_auth_enabled":false,"passkey_auth_enabled":false,"requires_totp_mfa":false,'
            b'"oauth_providers":[]}'
        ),
    ),
    (Ended(success=True), b'{"success":true}'),
    (Refreshed("jwt"), b'{"access_token":"jwt"}'),
    (
        stack_sessions.Listed(
            [stack_sessions.Item(SESSION, "ada", 1, 2, is_impersonation=False, is_current_session=True)],
            is_paginated=False,
        ),
        (
            b'{"items":[{"id":"SESSION","user_id":"ada","created_at":1,"last_used_at":2,"is_impersonation":false,'
            b'"is_current_session":true}],"is_paginated":false}'
        ),
    ),
    (stack_sessions.OpenRequest("ada"), b'{"user_id":"ada","is_impersonation":false}'),
    (stack_sessions.OpenRequest("ada", 1), b'{"user_id":"ada","expires_in_millis":1,"is_impersonation":false}'),
    (stack_sessions.OpenedSession("rt", "jwt"), b'{"refresh_token":"rt","access_token":"jwt"}'),
    (SignedUp("jwt", "rt", "u"), b'{"access_token":"jwt","refresh_token":"rt","user_id":"u"}'),
    (Claimed("jwt", "rt"), b'{"access_token":"jwt","refresh_token":"rt"}'),
    # To OAuth clients: docs/wire.md 9.
    (
        DeviceAuthorization(DEVICE_CODE, "BBBB-BBBB-BBBB", "https://a", "https://a?user_code=c", 900, 2, SESSION),
        (
            b'{"device_code":"DEVICE","user_code":"BBBB-BBBB-BBBB","verification_uri":"https://a",'
            b'"verification_uri_complete":"https://a?user_code=c","expires_in":900,"interval":2,"session_id":"SESSION"}'
        ),
    ),
    (
        oauth_tokens.TokenResponse("jwt", "Bearer", 300, "cli"),
        b'{"access_token":"jwt","token_type":"Bearer","expires_in":300,"scope":"cli"}',
    ),
    (
        oauth_tokens.TokenResponse("jwt", "Bearer", 300, "cli", "lrt_"),
        b'{"access_token":"jwt","token_type":"Bearer","expires_in":300,"scope":"cli","refresh_token":"lrt_"}',
    ),
    (
        Active(True, "i", "ada", "p", "cli", "p", 2, 1, SESSION, "Bearer"),  # noqa: FBT003 - it is the first
        (
            b'{"active":true,"iss":"i","sub":"ada","client_id":"p","scope":"cli","aud":"p","exp":2,"iat":1,"sid":"SESSION",'
            b'"token_type":"Bearer"}'
        ),
    ),
    (Inactive(active=False), b'{"active":false}'),
    (ErrorBody("invalid_grant", "text"), b'{"error":"invalid_grant","error_description":"text"}'),
    # To other services.
    (
        CloudEvent("1.0", f"{SESSION}.2", "login-relay", "session.completed", SESSION, AT, msgspec.Raw(b"{}"), 2),
        (
            b'{"specversion":"1.0","id":"SESSION.2","source":"login-relay","type":"session.completed","subject":"SESSION",'
            b'"time":"2026-01-01T00:00:00.000Z","data":{},"version":2}'
        ),
    ),
    (
        CloudEvent("1.0", f"{SESSION}.1", "r", "audit.poll_throttled", SESSION, AT, msgspec.Raw(b"{}"), projectid="p"),
        (
            b'{"specversion":"1.0","id":"SESSION.1","source":"r","type":"audit.poll_throttled","subject":"SESSION",'
            b'"time":"2026-01-01T00:00:00.000Z","data":{},"projectid":"p"}'
        ),
    ),
    # To operators and their programs.
    (
        RequestLine(datetime(2026, 1, 1, tzinfo=UTC), "info", "request", "POST", "/poll", 200, 1.5, "r"),
        (
            b'{"timestamp":"2026-01-01T00:00:00Z","level":"info","event":"request","method":"POST","route":"/poll",'
            b'"status":200,"ms":1.5,"request_id":"r"}'
        ),
    ),
    (
        SessionFacts("id", "p", State.COMPLETED, 2, 2, 3, 4, {State.COMPLETED: 3}, 5, None, ClientFacts("tool")),
        (
            b'{"session_id":"id","project_id":"p","state":"completed","version":2,"created_at":2,"expires_at":3,"deadline":4,'
            b'"changed_at":{"completed":3},"forgotten_at":5,"login_subject":null,'
            b'"client":{"client_name":"tool"},"address":null,"flow":"cli","client_id":null,"scope":null}'
        ),
    ),
    (
        Shown("0:1-0", AT, "undecodable", 5, "1-0", 2, {}),
        (
            b'{"id":"0:1-0","moved_at":"2026-01-01T00:00:00.000Z","reason":"undecodable","deliveries":5,"entry":"1-0",'
            b'"bytes":2,"command":{}}'
        ),
    ),
    (
        Diagnosis(1, [Check("memory", Level.FINDING, "says", "type"), Check("clock", Level.OK, "says")]),
        (
            b'{"findings":1,"checks":[{"name":"memory","level":"finding","says":"says","type":"type"},'
            b'{"name":"clock","level":"ok","says":"says"}]}'
        ),
    ),
    (
        Printed("keys.json", [Listed("a", signs=True, added_at=AT, promote_after=None, fingerprint="00ff")]),
        (
            b'{"file":"keys.json","keys":[{"kid":"a","signs":true,"added_at":"2026-01-01T00:00:00.000Z",'
            b'"promote_after":null,"fingerprint":"00ff"}]}'
        ),
    ),
    (Status([PARTITION], [WORKER]), b'{"partitions":[' + AS_PARTITION + b'],"workers":[' + AS_WORKER + b"]}"),
    (
        Snapshot(AT, 60, 0.5, {"session.consumed": 1}, {"all": Latency(1, 2, 3, 4)}, [PARTITION], [WORKER], []),
        b'{"at":"2026-01-01T00:00:00.000Z","window_s":60,"logins_per_s":0.5,"events":{"session.consumed":1},'
        b'"latencies":{"all":{"count":1,"median_ms":2,"p95_ms":3,"max_ms":4}},"partitions":['
        + AS_PARTITION
        + b'],"workers":['
        + AS_WORKER
        + b'],"sessions":[]}',
    ),
    (
        Report("logged_in", "text", "id", "rt"),
        b'{"status":"logged_in","message":"text","session_id":"id","refresh_token":"rt"}',
    ),
    (
        DemoProject("p", "demo", "pck_", "ssk_", "sak_"),
        (
            b'{"project_id":"p","name":"demo","publishable_client_key":"pck_","secret_server_key":"ssk_",'
            b'"super_secret_admin_key":"sak_"}'
        ),
    ),
]

PARTS = {stack_sessions.Item, Check, Latency, Listed, PartitionStatus, WorkerStatus, RecentSession}
"""Of those above."""
INSIDE = {
    Session,
    TimedSession,
    Family,
    AccessToken,
    Settings,
    TokenResponse,
    oauth_tokens.BroughtTokens,
    Metadata,
    KeySet,
}
"""Never written in this form, or only read."""
PACKAGES = (api, events, login_relay, login_relay_client, projects, runtime, statemachine, tokens, worker)


@pytest.mark.parametrize(
    ("struct", "data"), GOLDEN, ids=[f"{type(it).__name__}-{n}" for n, (it, _) in enumerate(GOLDEN)]
)
def test_struct_is_these_bytes(struct: msgspec.Struct, data: bytes) -> None:
    """They may gain fields and never change."""
    for name, text in LONG.items():
        data = data.replace(name, text)
    assert msgspec.json.encode(struct) == data
    assert msgspec.json.decode(data, type=type(struct)) == struct


def test_every_struct_has_golden_bytes() -> None:
    """Here, or in the tables of commands and events; structs with a leading underscore only read what others wrote."""
    known = {type(struct) for struct, _ in GOLDEN} | set(AnyCommand.__args__) | set(Event.__args__) | PARTS | INSIDE
    modules = [module for package in PACKAGES for module in _modules(package)]
    found = {
        member
        for module in modules
        for name, member in vars(module).items()
        if isinstance(member, type) and issubclass(member, msgspec.Struct) and member is not msgspec.Struct
        if member.__module__ == module.__name__ and not name.startswith("_")
    }
    assert found == known


def _modules(package: ModuleType) -> list[ModuleType]:
    names = [info.name for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
    return [importlib.import_module(name) for name in names if not name.endswith(".__main__")]

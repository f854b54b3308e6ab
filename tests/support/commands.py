"""A command of each kind, and its bytes on the stream."""

from statemachine.commands import CancelSession, Command, CompleteSession, ConsumeSession, DenySession, ExpireSession
from statemachine.lifecycle import Trigger
from tokens.commands import FamilyCommand, RefreshFamily, RevokeFamily, UpgradeFamily
from tokens.family import Opening

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

OPENING = Opening(b"\x00\xff", b"\xff\x00", "ada", "p", 1, 2)

GOLDEN: list[tuple[Command, bytes]] = [
    (
        CompleteSession("c1", "s1", "api", b"\x00sealed\xff", "ab12", "ada", "r1", TRACEPARENT, OPENING),
        (
            b'{"type":"CompleteSession","id":"c1","session_id":"s1","reply_to":"api",'
            b'"sealed_token":"AHNlYWxlZP8=","minted_token_digest":"ab12","login_subject":"ada",'
            b'"request_id":"r1","traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",'
            b'"opens":{"family_digest":"AP8=","token_digest":"/wA=","subject":"ada","client_id":"p","idle_ms":1,"life_ms":2}}'
        ),
    ),
    (
        CompleteSession("c1", "s1", "api", b""),
        (
            b'{"type":"CompleteSession","id":"c1","session_id":"s1","reply_to":"api",'
            b'"sealed_token":"","minted_token_digest":null,"login_subject":null,"request_id":null,"traceparent":null,'
            b'"opens":null}'
        ),
    ),
    (
        ConsumeSession("c2", "s1", "api", 4_000, "r2", TRACEPARENT),
        (
            b'{"type":"ConsumeSession","id":"c2","session_id":"s1","reply_to":"api","patience":4000,'
            b'"request_id":"r2","traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}'
        ),
    ),
    (
        DenySession("c3", "s1", "api", "not_me", "r3", TRACEPARENT),
        (
            b'{"type":"DenySession","id":"c3","session_id":"s1","reply_to":"api","reason":"not_me",'
            b'"request_id":"r3","traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}'
        ),
    ),
    (
        CancelSession("c4", "s1", "api", "r4", TRACEPARENT),
        (
            b'{"type":"CancelSession","id":"c4","session_id":"s1","reply_to":"api",'
            b'"request_id":"r4","traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}'
        ),
    ),
    (
        ExpireSession("c5", "s1", "operator", "r5", TRACEPARENT),
        (
            b'{"type":"ExpireSession","id":"c5","session_id":"s1","reply_to":"operator",'
            b'"request_id":"r5","traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}'
        ),
    ),
]

FAMILY_GOLDEN: list[tuple[FamilyCommand, bytes]] = [
    (
        RefreshFamily("c6", "s1", "api", 4_000, 3, b"\x00f", b"\x00t", b"\x00s", b"\x00sealed\xff", "r6", TRACEPARENT),
        (
            b'{"type":"RefreshFamily","id":"c6","family_id":"s1","reply_to":"api","patience":4000,"generation":3,'
            b'"family_digest":"AGY=","token_digest":"AHQ=","successor_digest":"AHM=","sealed_successor":"AHNlYWxlZP8=",'
            b'"request_id":"r6","traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}'
        ),
    ),
    (
        RevokeFamily("c7", "s1", "api", "client"),
        (
            b'{"type":"RevokeFamily","id":"c7","family_id":"s1","reply_to":"api","why":"client",'
            b'"request_id":null,"traceparent":null}'
        ),
    ),
    (
        UpgradeFamily("c8", "s1", "api"),
        b'{"type":"UpgradeFamily","id":"c8","family_id":"s1","reply_to":"api","request_id":null,"traceparent":null}',
    ),
]

COMMAND_OF: dict[Trigger, Command] = {command.trigger: command for command, _ in GOLDEN}
"""The command that brings each trigger; the deadline comes without one."""

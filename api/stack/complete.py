"""`POST /auth/cli/complete`: a backend, which knows the person, completes the session that a login code names."""

import hashlib
from typing import Annotated, Literal

import msgspec
from litestar import post
from litestar.handlers import HTTPRouteHandler
from msgspec import Meta

from api.logins.commanding import Outcomes, answer_within, command_id
from api.logins.guard import Guard, WrongCodeError
from api.logins.waiting import Answer
from api.request.body import PRINTABLE, parse_body
from api.request.endpoint import JsonRequest, JsonResponse, answer_in_time
from api.request.headers import idempotency_key
from api.request.note import asked_by, note_session
from api.request.refusals import Misfit
from api.stack.access import Access, require_server_access
from api.stack.errors import (
    BUSY,
    INVALID_LOGIN_CODE,
    NO_ANONYMOUS_SESSION,
    RECORDED,
    PlainError,
)
from runtime.codes import login_code_digest, mint_refresh_token, normalise_login_code
from runtime.redis.keys import Keys
from runtime.settings import Settings
from statemachine.commands import CompleteSession
from statemachine.lifecycle import Outcome, State, Trigger
from statemachine.machine import decide
from statemachine.sealing import seal
from statemachine.store.command_stream import Busy, Moved
from statemachine.store.sessions import LoginCodeHolder, SessionStore

MAX_REFRESH_TOKEN_BYTES = 8_192
MAX_SUBJECT_LENGTH = 256


class CompleteRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which login is completed, and with what."""

    login_code: Annotated[
        str,
        Meta(
            description="The code that the person brought; case, dashes and spaces do not matter.",
            extra_json_schema={"pattern": r"^[ -]*([BCDFGHJKLMNPQRSTVWXZbcdfghjklmnpqrstvwxz][ -]*){12}$"},
        ),
    ]
    mode: Annotated[
        Literal["complete", "check", "claim-anon-session"],
        Meta(description="`check` only looks; `claim-anon-session` is refused until anonymous sessions exist."),
    ] = "complete"
    refresh_token: (
        Annotated[
            str,
            Meta(
                min_length=1,
                max_length=MAX_REFRESH_TOKEN_BYTES,
                description="Handed to the tool; at most 8192 bytes in UTF-8. Absent: the relay mints one.",
            ),
        ]
        | msgspec.UnsetType
    ) = msgspec.UNSET
    subject: (
        Annotated[
            str,
            Meta(
                min_length=1,
                max_length=MAX_SUBJECT_LENGTH,
                pattern=PRINTABLE,
                description="Who the login is for, in your own terms. Told in events, as `login_subject`, and never "
                "to the tool. It is kept in clear: no secret.",
            ),
        ]
        | msgspec.UnsetType
    ) = msgspec.UNSET


class Minted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Completed with a refresh token that the relay minted."""


class Completed(msgspec.Struct, frozen=True):
    """Completed with the refresh token of the request."""

    success: Annotated[bool, Meta(extra_json_schema={"const": True})]


class Checked(msgspec.Struct, frozen=True):
    """The answer to `mode: check`: the code is good, and its session is not anonymous."""

    cli_session_state: Literal["none"]


_decoder = msgspec.json.Decoder(CompleteRequest)
_MINTED = JsonResponse(msgspec.json.encode(Minted()))
_COMPLETED = JsonResponse(msgspec.json.encode(Completed(success=True)))
_CHECKED = JsonResponse(msgspec.json.encode(Checked("none")))


class Completer:
    """Completes sessions."""

    def __init__(self, store: SessionStore, outcomes: Outcomes, keys: Keys, settings: Settings) -> None:
        self._store = store
        self._outcomes = outcomes
        self._keys = keys
        self._idempotency_ms = settings.idempotency_ms
        self._keep_ms = settings.replay_window_ms

    async def check(self, project_id: str, login_code: str) -> None:
        """Look whether a normalised login code names a pending session.

        Raises:
            WrongCodeError: it names none.
            PlainError: it names one that is not pending.

        """
        holder, _ = await self._store.find_by_login_code(project_id, login_code)
        read = await self._store.read(holder.session_id) if holder else None
        if holder is None:
            raise _wrong_code()
        if read is None or decide(read.session, Trigger.COMPLETE, read.now).outcome is not Outcome.COMPLETED:
            raise PlainError(400, INVALID_LOGIN_CODE)

    async def complete(
        self, project_id: str, login_code: str, refresh_token: str | None, login_subject: str | None, key: str | None
    ) -> None:
        """Complete the session of a normalised login code; returns when it *is* completed.

        Raises:
            WrongCodeError: the code names no session.
            PlainError: its session is not pending, the backlog is full, or no worker answered in time.

        """
        digest = login_code_digest(project_id, login_code)
        id_ = command_id("complete", digest, key)
        holder, outcome = await self._store.find_by_login_code(project_id, login_code, id_ if key else None)
        if holder is not None:
            note_session(holder.session_id)
        answer: Answer | Moved | Busy | None
        if outcome is not None:
            answer = await self._outcomes.of_recorded(self._keys.partition_of_login(digest), id_)
        elif holder is None:
            raise _wrong_code()
        else:
            command = self._command(id_, project_id, holder, refresh_token, login_subject)
            keep_ms = self._idempotency_ms if key else self._keep_ms
            answer = await self._outcomes.of(command, State.PENDING, keep_ms=keep_ms)
        match answer:
            case Answer(Outcome.COMPLETED):
                return
            case None:
                raise PlainError(503, RECORDED, retry_after=1)
            case Busy():
                raise PlainError(503, BUSY, retry_after=1)
            case _:
                raise PlainError(400, INVALID_LOGIN_CODE)

    def _command(
        self, id_: str, project_id: str, holder: LoginCodeHolder, refresh_token: str | None, login_subject: str | None
    ) -> CompleteSession:
        token = refresh_token or mint_refresh_token()
        return CompleteSession(
            id_,
            holder.session_id,
            self._outcomes.reply_to,
            seal(token, holder.sealing_key, project_id, holder.session_id),
            # Not of a token that was brought: one that is easily guessed could be found from its digest.
            None if refresh_token else hashlib.sha256(token.encode()).hexdigest(),
            login_subject,
            *asked_by(),
        )


def _wrong_code() -> WrongCodeError:
    return WrongCodeError("login", PlainError(400, INVALID_LOGIN_CODE))


def _check_refresh_token(token: str) -> None:
    if len(token.encode()) > MAX_REFRESH_TOKEN_BYTES:  # the Struct counts characters
        raise Misfit(f"Expected at most {MAX_REFRESH_TOKEN_BYTES} bytes in UTF-8", "at `$.refresh_token`")


def complete_endpoint(access: Access, guard: Guard, completer: Completer, settings: Settings) -> HTTPRouteHandler:
    """Return the endpoint."""
    reading, answering = settings.request_timeout_ms / 1000, answer_within(settings)

    @post("/auth/cli/complete", status_code=200, operation_id="complete")
    async def complete(request: JsonRequest) -> JsonResponse:
        return await answer_in_time(request, answer, reading=reading, answering=answering)

    async def answer(request: JsonRequest, content: bytes) -> JsonResponse:
        headers = dict(request.scope["headers"])
        caller = await access.check(headers)
        if not caller.project.allow_client_complete:
            require_server_access(caller)
        body = parse_body(content, headers, _decoder)
        key = idempotency_key(headers)
        refresh_token = None if body.refresh_token is msgspec.UNSET else body.refresh_token
        subject = None if body.subject is msgspec.UNSET else body.subject
        if refresh_token is not None:
            _check_refresh_token(refresh_token)
        login_code = normalise_login_code(body.login_code)
        try:
            if login_code is None:
                raise _wrong_code()
            if body.mode == "complete":
                await completer.complete(caller.project.id, login_code, refresh_token, subject, key)
                return _MINTED if refresh_token is None else _COMPLETED
            await completer.check(caller.project.id, login_code)
        except WrongCodeError as wrong:
            raise await guard.wrong_code(wrong, caller, request) from None
        if body.mode == "claim-anon-session":
            raise PlainError(400, NO_ANONYMOUS_SESSION)
        return _CHECKED

    return complete

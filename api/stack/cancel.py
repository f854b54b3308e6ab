"""`POST /auth/cli/cancel`: a tool that waits no longer ends its session."""

import msgspec

from api.logins.cancelling import Cancelling
from api.request.answer import Answer
from api.request.body import given
from api.request.endpoint import Asked
from api.stack.access import Access
from api.stack.described import (
    CODE_VERIFIER,
    IDEMPOTENCY_KEY,
    POLLING_CODE,
    answer,
    error_answers,
    header_parameter,
    json_bodies,
    json_request,
    operation,
    refusals,
)
from api.stack.errors import BUSY, RECORDED, STORE_AWAY, TOO_MANY_WRONG_CODES, TOO_MUCH_AT_ONCE
from api.stack.fields import CodeVerifier, PollingCode


class CancelRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which session is given up."""

    polling_code: PollingCode
    code_verifier: CodeVerifier = msgspec.UNSET


class Cancelled(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The session is over: by this request or before it."""


STRUCTS = (CancelRequest, Cancelled)
_decoder = msgspec.json.Decoder(CancelRequest)
_CANCELLED = Answer(msgspec.json.encode(Cancelled()))
_REFUSED = refusals(["INVALID_POLLING_CODE", "IDEMPOTENCY_KEY_REUSED"], too_many=[TOO_MANY_WRONG_CODES])
OPERATION = operation(
    "cancel",
    "Give a login up",
    "Client access or higher. A tool sends it when it stops waiting. A login that is pending, or completed and not "
    "picked up, ends as `cancelled`: its login code completes nothing, and its token is deleted. Polls are told "
    "`expired`. It may be repeated, and changes nothing of a login that is over.",
    {
        "200": answer("The login is over.", json_bodies({Cancelled: {"over": {}}}), overridden=_REFUSED),
        **error_answers(_REFUSED, [BUSY, RECORDED, TOO_MUCH_AT_ONCE, STORE_AWAY]),
    },
    header_parameter("Idempotency-Key", "The same key gets the same answer.", IDEMPOTENCY_KEY),
    body=json_request(
        CancelRequest,
        {
            "a bound session": {"polling_code": POLLING_CODE, "code_verifier": CODE_VERIFIER},
            "a session that is not bound": {"polling_code": POLLING_CODE},
        },
    ),
)


class Cancel:
    """Answers a tool that gives its login up."""

    operation = OPERATION

    def __init__(self, access: Access, cancelling: Cancelling) -> None:
        self._access = access
        self._cancelling = cancelling

    async def __call__(self, asked: Asked) -> Answer:
        """Return 200 once the login is over."""
        caller = await self._access.check(asked.headers, asked.sender)
        body = await asked.json(_decoder)
        await self._cancelling.cancel(caller, body.polling_code, given(body.code_verifier), asked.idempotency_key)
        return _CANCELLED

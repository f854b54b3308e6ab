"""`POST /oauth/revoke`: a client gives up its tokens, or a login that it waits for (RFC 7009)."""

import contextlib

from api.logins.cancelling import Cancelling
from api.logins.refusals import WrongPollingCode
from api.oauth.clients import Client
from api.oauth.described import REFRESH_TOKEN, operation, parameter
from api.oauth.errors import OAuthError, answer
from api.oauth.exchange import Exchange, PlainRefusals
from api.oauth.introspection import verified
from api.request.answer import Answer
from api.tokens.revoking import Revoking
from runtime.codes import DEVICE_CODE_PREFIX, MINTED_TOKEN_PREFIX
from tokens.access_tokens import AccessTokens


class RevocationEndpoint(PlainRefusals):
    """Answers clients that revoke."""

    operation = operation(
        "revoke",
        "Revoke tokens (RFC 7009)",
        "A refresh token of any age, or an access token: all refresh tokens of its login end. A device code: the login "
        "is cancelled. Whatever else is sent is revoked already.",
        None,
        {},
        [
            parameter("token", "What is given up.", required=True, example=REFRESH_TOKEN),
            parameter("token_type_hint", "Ignored: tokens tell what they are."),
            parameter("code_verifier", "For the device code of a login that is bound."),
        ],
        ("invalid_request", "invalid_client", "invalid_grant", "unauthorized_client"),
        too_many="invalid_grant",
    )

    def __init__(self, revoking: Revoking, cancelling: Cancelling, tokens: AccessTokens) -> None:
        self._revoking = revoking
        self._cancelling = cancelling
        self._tokens = tokens

    async def answer(self, exchange: Exchange) -> Answer:
        """Return 200 once the token opens nothing any more, whether it did before or not."""
        asked, form, client = exchange
        token = form.get("token")
        if token is None:
            raise OAuthError("invalid_request", "Send token.")
        if token.startswith(MINTED_TOKEN_PREFIX):
            await self._revoking.revoke_token(client, token, client.id)
        elif token.startswith(DEVICE_CODE_PREFIX):
            # A wrong one is revoked already, as far as its client can know (RFC 7009 §2.2).
            with contextlib.suppress(WrongPollingCode):
                await self._cancelling.cancel(client, token, form.get("code_verifier"), asked.idempotency_key)
        elif (family_id := self._family_of(client, token)) is not None:
            await self._revoking.revoke_family(client.project.id, family_id, "client")
        return answer(b"")._replace(media_type=b"text/plain")

    def _family_of(self, client: Client, token: str) -> str | None:
        """Return the family of an access token of the client's own; None for anything else."""
        found = verified(self._tokens, client.project, token)
        return found.family_id if found is not None and found.client_id == client.id else None

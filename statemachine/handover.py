"""What is sealed for a tool at completion and opened at its poll: a refresh token, or more for an OAuth client."""

import msgspec

_MORE = " "  # begins what is more than a refresh token, which has no space (RFC 6749 appendix A.17)


class Handover(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a tool receives of its login. The workers and Redis never see it."""

    refresh_token: str | None = None
    """None only if the backend's own token response has none."""
    subject: str | None = None
    """Who logged in, for the access tokens that the relay mints. Only for OAuth clients."""
    scope: str | None = None
    """What was granted, separated by spaces. Only for OAuth clients."""
    token_response: msgspec.Raw = msgspec.Raw()
    """The backend's own (RFC 6749 §5.1), a JSON object; empty: there is none."""

    def to_text(self) -> str:
        """Return what is sealed. A refresh token alone stands for itself, as older versions read and write it."""
        if self == Handover(self.refresh_token) and self.refresh_token is not None:
            return self.refresh_token
        return _MORE + _encoder.encode(self).decode()

    @staticmethod
    def of_text(text: str) -> "Handover":
        """Return what `to_text` wrote."""
        return _decoder.decode(text) if text.startswith(_MORE) else Handover(text)


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Handover)

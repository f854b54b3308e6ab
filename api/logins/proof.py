"""What a tool shows to be known as the one that started a login: its polling code, and its verifier if it is bound."""

import hmac
from typing import NamedTuple

from api.logins.guard import Asker
from api.logins.refusals import WrongPollingCode
from runtime.codes import DEVICE_CODE_PREFIX, POLLING_CODE_PREFIX, PollingCode, parse_polling_code, s256
from statemachine.session import Flow
from statemachine.store.reading import ReadSession

_PREFIXES = {Flow.CLI: POLLING_CODE_PREFIX, Flow.DEVICE: DEVICE_CODE_PREFIX}


class Proof(NamedTuple):
    """What a tool shows, before it is compared with a session."""

    project_id: str
    code: PollingCode
    challenge: bytes
    """What its verifier gives (RFC 7636 §4.6); empty if it sent none."""

    @classmethod
    def of(cls, asker: Asker, polling_code: str, code_verifier: str | None, partitions: int) -> "Proof":
        """Take what was sent apart.

        Raises:
            WrongPollingCode: it is not the code of a session that could exist and be begun by the asker's interface.

        """
        code = parse_polling_code(polling_code, partitions, _PREFIXES[asker.flow])
        if code is None:
            raise WrongPollingCode
        return cls(asker.project.id, code, b"" if code_verifier is None else s256(code_verifier))

    def check(self, read: ReadSession | None) -> ReadSession:
        """Return the session if it is the tool's own. Secrets are compared in constant time.

        Raises:
            WrongPollingCode: it is not, or it is bound and the verifier is not its own.

        """
        if (
            read is None
            or read.session.project_id != self.project_id
            or not hmac.compare_digest(read.polling_digest, self.code.digest)
        ):
            raise WrongPollingCode
        if not hmac.compare_digest(read.code_challenge, self.challenge):
            raise WrongPollingCode(unbound=self.code.session_id)
        return read

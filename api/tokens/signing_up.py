"""Signing up: a tool that nobody has logged in to gets an anonymous subject of its own, within the budgets."""

from api.logins.guard import Asker, Guard
from api.tokens.opening import Opened, OpeningFamilies
from projects.budgets import SignUps
from projects.errors import InitiationRefusedError


class SigningUp:
    """Opens families of anonymous subjects for tools. Anybody may ask, so how many there are is counted."""

    def __init__(self, opening: OpeningFamilies, sign_ups: SignUps, guard: Guard) -> None:
        self._opening = opening
        self._sign_ups = sign_ups
        self._guard = guard

    async def start(self, asker: Asker) -> Opened:
        """Open a family of a new anonymous subject. Its token does not rotate.

        Raises:
            TooManyLogins: a budget is used up.
            StoreFull: Redis has no memory for it.

        """
        try:
            await self._sign_ups.count(asker.sender().counted_as, asker.project.id)
        except InitiationRefusedError as refused:
            raise await self._guard.no_session(asker, refused) from None
        return await self._opening.anonymous(asker.project, client_id=asker.project.id, rotates=False)

"""Full logins from many clients at once: the client library, and raw clients that behave as published ones.

Each is stubborn in its own way and writes down what it saw.
"""

import asyncio
import json
import random
import secrets
from base64 import urlsafe_b64decode
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import NamedTuple
from urllib.parse import urlencode

import aiohttp

from api.logins.commanding import answer_within
from api.tokens.logging_out import LoggingOut
from login_relay_client.failures import LoginError
from login_relay_client.request import Login, LoginRequest, Prompt
from login_relay_client.steps import (
    HttpRequest,
    HttpResponse,
    NoResponse,
    Reply,
    Sleep,
    login_steps,
)
from runtime.codes import DEVICE_CODE_PREFIX, MINTED_TOKEN_PREFIX, s256
from runtime.settings import Settings
from tests.chaos.history import Attempt, History, Operation, Result, token_for
from tests.chaos.tools import FORM, Sent, Tools
from tests.support.oauth_wire import DEVICE_AUTHORIZATION, DEVICE_CODE_GRANT, TOKEN
from tests.support.services import ProjectKeys

LIFETIME = 15.0  # seconds of a session; a login that goes nowhere ends within it
SHORT_LIFETIME = 2.0  # seconds of a session that nobody completes
THINKING = 0.4  # seconds that a person takes to approve, at most
RAW_INTERVAL = 0.5  # seconds between two polls of a raw client
RETRY_PAUSE = 0.3  # seconds before a request is sent again
CLIENT_PATIENCE = 15.0  # seconds on top of an operation's bound: longer, so that a broken bound is seen and not cut off

LIBRARY_SHARE = 0.45
DEVICE_SHARE = 0.3
MINTED_SHARE = 0.2  # of the other logins: the backend brings no token, so the relay mints one
UNKEYED_SHARE = 0.25  # of raw pollers and of backends
RIVAL_SHARE = 0.15  # logins with a second backend or a second poller
ABANDONED_SHARE = 0.05
DENIED_SHARE = 0.08  # logins that the person denies, before or after a backend completes them
CANCELLED_SHARE = 0.08  # raw logins whose tool gives up
HELD_SHARE, HELD_FOR = 0.5, 5  # device logins that have their polls held, and for how many seconds
ECHO_SHARE = 0.5  # requests with a key that are sent again although they were answered, as by a proxy that retries
ECHO_WITHIN = 5.0  # seconds; longer than a worker is frozen for, which may then decide again


PATHS = {"initiate": "", "deny": "/complete"}
"""Those that are not named like the kind of the request."""

STATUSES = {
    "authorization_pending": "waiting",
    "invalid_grant": "used",
    "access_denied": "denied",
    "expired_token": "expired",
}
"""What an OAuth client is told, in the words of the other interface."""


class Answer(NamedTuple):
    """What came back; status 0: nothing."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    trouble: str = ""


class Load:
    """Runs logins until it is stopped."""

    def __init__(
        self,
        http: aiohttp.ClientSession,
        ports: list[int],
        project: ProjectKeys,
        settings: Settings,
        clock: Callable[[], float],
        seed: int,
        logging_out: LoggingOut | None = None,
    ) -> None:
        """Without `logging_out`, for a service that mints no access tokens, all tokens are brought by backends."""
        self.history = History()
        self.stopping = asyncio.Event()
        self._http = http
        self._ports = ports
        self._project = project
        self._within = answer_within(settings.outcome_wait_ms)
        self._clock = clock
        self._choose = random.Random(seed)  # noqa: S311 - a seed is to give the same run, not a secret
        self._secret = secrets.token_hex(8)
        self._count = 0
        self._echoes: set[asyncio.Task[None]] = set()
        # Dice of their own: how fast tools refresh is not to change which logins there are.
        dice = random.Random(seed)  # noqa: S311 - a seed is to give the same run, not a secret
        self.tools = (
            None if logging_out is None else Tools(self._send_of_tools, project, clock, dice, self._within, logging_out)
        )

    async def run(self, clients: int) -> None:
        """Have so many clients log in over and over; returns when the last login has ended after `stopping`."""
        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(self._client())
        await asyncio.gather(*self._echoes)
        if self.tools:
            await self.tools.end()

    async def _client(self) -> None:
        while not self.stopping.is_set():
            kind = self._choose.random()
            if kind < LIBRARY_SHARE:
                await self._library_login()
            elif kind < LIBRARY_SHARE + DEVICE_SHARE and self.tools:
                await self._device_login()
            else:
                await self._raw_login()

    async def _device_login(self) -> None:
        """Log in as an OAuth client does (RFC 8628), with PKCE or without."""
        abandoned, is_bound = self._choose.random() < ABANDONED_SHARE, self._choose.random() >= UNKEYED_SHARE
        verifier = secrets.token_urlsafe(32)
        form = {"client_id": self._project.project_id}
        if is_bound:
            form |= {"code_challenge": s256(verifier).decode(), "code_challenge_method": "S256"}
        body = urlencode(form).encode()
        answer, attempt = await self._ask("initiate", None, FORM, body, path=DEVICE_AUTHORIZATION)
        if answer.status != 200 or attempt is None:
            await asyncio.sleep(RETRY_PAUSE)
            return
        approving = None
        if not abandoned:
            approving = asyncio.create_task(self._approve(attempt, json.loads(answer.body)["user_code"]))
        attempt.ended_as = await self._device_polls(attempt, verifier if is_bound else None)
        if approving is not None:
            await approving

    async def _device_polls(self, attempt: Attempt, verifier: str | None) -> str:
        """Poll until the answer is final; returns what it says, in the words of the other interface."""
        hold = HELD_FOR if self._choose.random() < HELD_SHARE else 0
        form = {"grant_type": DEVICE_CODE_GRANT, "client_id": self._project.project_id}
        form |= {"device_code": attempt.polling_code, **({"code_verifier": verifier} if verifier else {})}
        headers, body = {**FORM, "prefer": f"wait={hold}"}, urlencode(form).encode()
        give_up = self._clock() + LIFETIME + 2 * CLIENT_PATIENCE
        while self._clock() < give_up:
            answer, _ = await self._ask("poll", attempt, headers, body, hold, actor=verifier, path=TOKEN)
            status = _poll_status(answer)
            if answer.status == 200:
                return "Login"
            if status in STATUSES.values() and status != "waiting":
                return status
            await asyncio.sleep(RAW_INTERVAL if status == "waiting" else RETRY_PAUSE)
        return "gave up"

    async def _library_login(self) -> None:
        """Log in as `login_relay_client` does: its own steps, carried out here."""
        abandoned, minted = self._choose.random() < ABANDONED_SHARE, self._is_minted()
        steps = login_steps(
            LoginRequest(
                server="http://127.0.0.1",
                project_id=self._project.project_id,
                publishable_client_key=self._project.publishable_client_key,
                expires_in=timedelta(seconds=SHORT_LIFETIME if abandoned else LIFETIME),
            )
        )
        attempt: Attempt | None = None
        approving: asyncio.Task[None] | None = None
        ended_as = ""
        reply: Reply = None
        try:
            while not ended_as:
                step, reply = steps.send(reply), None
                match step:
                    case HttpRequest():
                        reply, attempt = await self._carry_out(step, attempt)
                    case Sleep(seconds):
                        await asyncio.sleep(seconds)
                    case Prompt(login_code):
                        assert attempt is not None
                        if not abandoned:
                            approving = asyncio.create_task(self._approve(attempt, login_code, minted=minted))
                    case Login():
                        ended_as = "Login"
        except LoginError as error:
            ended_as = type(error).__name__
        if attempt is not None:
            attempt.ended_as = ended_as
        if approving is not None:
            await approving

    async def _carry_out(self, request: HttpRequest, attempt: Attempt | None) -> tuple[Reply, Attempt | None]:
        """Send a request of the library; returns the reply for it, and the attempt that it belongs to."""
        hold = int(request.headers.get("prefer", "wait=0").removeprefix("wait="))
        kind = request.path.rpartition("/")[2].replace("cli", "initiate")
        key = request.headers.get("idempotency-key")
        answer, attempt = await self._ask(kind, attempt, request.headers, request.body, hold, actor=key)
        if kind == "poll" and answer.status == 201:
            self._echo("poll", attempt, request.headers, request.body, key)
        if not answer.status:
            return NoResponse(answer.trouble), attempt
        return HttpResponse(answer.status, answer.headers, answer.body), attempt

    async def _raw_login(self) -> None:
        """Log in as published clients do: no held polls, an Idempotency-Key or none, sometimes two pollers at once."""
        choose = self._choose
        abandoned, minted = choose.random() < ABANDONED_SHARE, self._is_minted()
        lifetime = SHORT_LIFETIME if abandoned else LIFETIME
        body = json.dumps({"expires_in_millis": int(lifetime * 1000)}).encode()
        answer, attempt = await self._ask("initiate", None, self._client_headers(), body)
        if answer.status != 200 or attempt is None:
            await asyncio.sleep(RETRY_PAUSE)
            return
        async with asyncio.TaskGroup() as group:
            if not abandoned:
                group.create_task(self._approve(attempt, json.loads(answer.body)["login_code"], minted=minted))
            pollers = 2 if choose.random() < RIVAL_SHARE else 1
            polls = [group.create_task(self._raw_polls(attempt, lifetime)) for _ in range(pollers)]
            if choose.random() < CANCELLED_SHARE:
                group.create_task(self._cancel(attempt))
        ends = {poll.result() for poll in polls}
        attempt.ended_as = "Login" if "success" in ends else "/".join(sorted(ends))

    async def _raw_polls(self, attempt: Attempt, lifetime: float) -> str:
        """Poll until the answer is final; returns the last status."""
        keyed = self._choose.random() >= UNKEYED_SHARE
        key = {"idempotency-key": secrets.token_urlsafe(12)} if keyed else {}
        body = json.dumps({"polling_code": attempt.polling_code}).encode()
        give_up = self._clock() + lifetime + 2 * CLIENT_PATIENCE
        while self._clock() < give_up:
            headers = self._client_headers() | key
            answer, _ = await self._ask("poll", attempt, headers, body, actor=key.get("idempotency-key"))
            status = _poll_status(answer)
            if status == "success":
                self._echo("poll", attempt, headers, body, key.get("idempotency-key"))
            if status in ("success", "used", "denied", "expired") or 400 <= answer.status < 500:
                return status
            await asyncio.sleep(RAW_INTERVAL if answer.status == 200 else RETRY_PAUSE)
        return "gave up"

    async def _approve(self, attempt: Attempt, login_code: str, *, minted: bool = False) -> None:
        """Complete the login after a while; sometimes two backends try, with tokens of their own, or it is denied.

        Where the relay mints, a backend names a subject of its own instead. Only a device login tells which won.
        """
        await asyncio.sleep(self._choose.uniform(0, THINKING))
        backends = 2 if self._choose.random() < RIVAL_SHARE and not minted else 1
        minted = minted or _is_device(attempt)
        async with asyncio.TaskGroup() as group:
            for number in range(backends):
                group.create_task(self._complete(attempt, login_code, number, minted=minted))
            if self._choose.random() < DENIED_SHARE:
                body = {"login_code": login_code, "mode": "deny"}
                group.create_task(self._end("deny", attempt, self._project.server_headers, body))

    async def _cancel(self, attempt: Attempt) -> None:
        """Give the login up after a while, as a tool that is interrupted does."""
        await self._end("cancel", attempt, self._project.client_headers, {"polling_code": attempt.polling_code})

    async def _end(self, kind: str, attempt: Attempt, headers: Mapping[str, str], body: dict[str, str]) -> None:
        """Deny or cancel a login at some moment about its completion, with a key, until it is answered."""
        await asyncio.sleep(self._choose.uniform(0, THINKING / 2))
        key = secrets.token_urlsafe(12)
        given = {"content-type": "application/json", "idempotency-key": key, **headers}
        give_up = self._clock() + LIFETIME + CLIENT_PATIENCE
        while self._clock() < give_up:
            answer, _ = await self._ask(kind, attempt, given, json.dumps(body).encode(), actor=key)
            if 200 <= answer.status < 500:
                return
            await asyncio.sleep(float(answer.headers.get("retry-after", RETRY_PAUSE)))

    async def _complete(self, attempt: Attempt, login_code: str, number: int, *, minted: bool) -> None:
        token = _subject(attempt, number) if minted else token_for(self._secret, f"{attempt.session_id}:{number}")
        body = json.dumps({"login_code": login_code, "subject" if minted else "refresh_token": token}).encode()
        keyed = self._choose.random() >= UNKEYED_SHARE
        key = {"idempotency-key": secrets.token_urlsafe(12)} if keyed else {}
        headers = {"content-type": "application/json", **self._project.server_headers, **key}
        give_up = self._clock() + LIFETIME + CLIENT_PATIENCE
        while self._clock() < give_up:
            answer, _ = await self._ask(
                "complete", attempt, headers, body, actor=key.get("idempotency-key"), token=token
            )
            if answer.status == 200:
                self._echo("complete", attempt, headers, body, key.get("idempotency-key"), token)
            if 200 <= answer.status < 500:
                return
            await asyncio.sleep(float(answer.headers.get("retry-after", RETRY_PAUSE)))

    def _echo(
        self,
        kind: str,
        attempt: Attempt | None,
        headers: Mapping[str, str],
        body: bytes,
        key: str | None,
        token: str | None = None,
    ) -> None:
        """Sometimes repeat an answered request with its key after a while: the answer must be the same."""
        if key is not None and self._choose.random() < ECHO_SHARE:
            pause = self._choose.uniform(0, ECHO_WITHIN)
            echo = asyncio.create_task(self._send_again(pause, kind, attempt, headers, body, key, token))
            self._echoes.add(echo)

    async def _send_again(
        self,
        pause: float,
        kind: str,
        attempt: Attempt | None,
        headers: Mapping[str, str],
        body: bytes,
        key: str,
        token: str | None,
    ) -> None:
        await asyncio.sleep(pause)
        await self._ask(kind, attempt, headers, body, actor=key, token=token)

    async def _ask(
        self,
        kind: str,
        attempt: Attempt | None,
        headers: Mapping[str, str],
        body: bytes,
        hold: int = 0,
        *,
        actor: str | None = None,
        token: str | None = None,
        path: str = "",
    ) -> tuple[Answer, Attempt | None]:
        """Send one request to any of the APIs and write down what came of it; an initiate starts a new attempt."""
        path = path or "/api/v1/auth/cli" + PATHS.get(kind, f"/{kind}")
        bound = hold + self._within
        started = self._clock()
        answer = await self._send(path, headers, body, bound + CLIENT_PATIENCE)
        if kind == "poll" and attempt is not None:
            token = self._received(attempt, answer) if answer.status in (200, 201) else None
        self._count += 1
        operation = Operation(
            kind=kind,
            actor=actor or f"request-{self._count}",
            started=started,
            ended=self._clock(),
            hold=hold,
            bound=bound,
            result=Result.OK if token and kind == "poll" else _result(kind, answer.status),
            answer=_poll_status(answer) if kind == "poll" else answer.trouble or str(answer.status),
            token=token,
            keyed=actor is not None,
        )
        if kind == "initiate" and answer.status == 200:
            made = json.loads(answer.body)
            attempt = Attempt(made["session_id"], made.get("polling_code") or made["device_code"])
            self.history.attempts.append(attempt)
        if attempt is None:
            self.history.initiates.append(operation)
        else:
            attempt.operations.append(operation)
        return answer, attempt

    def _received(self, attempt: Attempt, answer: Answer) -> str | None:
        """Return what a poll received: a backend's token, or the subject for which the relay minted one."""
        made = json.loads(answer.body)
        token: str | None = made.get("refresh_token")
        if token is None or self.tools is None or not token.startswith(MINTED_TOKEN_PREFIX):
            return token
        access_token = made.get("access_token")
        subject = _subject_in(access_token) if access_token else _subject(attempt, 0)
        self.tools.receive(attempt.session_id, token, subject, rotates=access_token is not None)
        return subject

    async def _send_of_tools(self, path: str, headers: Mapping[str, str], body: bytes, patience: float) -> Sent:
        answer = await self._send(path, headers, body, patience)
        return Sent(answer.status, answer.body, answer.trouble)

    async def _send(self, path: str, headers: Mapping[str, str], body: bytes, patience: float) -> Answer:
        """Send a request to any of the APIs, and to another if that one refuses to be connected (a load balancer)."""
        timeout = aiohttp.ClientTimeout(total=patience)
        trouble = ""
        for port in self._choose.sample(self._ports, len(self._ports)):
            url = f"http://127.0.0.1:{port}{path}"
            try:
                async with self._http.post(url, headers=headers, data=body, timeout=timeout) as response:
                    return Answer(response.status, response.headers, await response.read())
            except aiohttp.ClientConnectorError as error:
                trouble = type(error).__name__
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                return Answer(0, {}, b"", type(error).__name__)
        return Answer(0, {}, b"", trouble)

    def _is_minted(self) -> bool:
        """Draw whether the next login's backend brings no token."""
        return self._choose.random() < MINTED_SHARE and self.tools is not None

    def _client_headers(self) -> dict[str, str]:
        return {"content-type": "application/json", **self._project.client_headers}


def _result(kind: str, status: int) -> Result:
    if status == 0 or status >= 500:
        return Result.UNKNOWN
    done = 201 if kind == "poll" else 200
    return Result.OK if status == done else Result.REFUSED


def _poll_status(answer: Answer) -> str:
    if answer.status in (200, 201, 400) and answer.body:
        told = json.loads(answer.body)
        if "access_token" in told:
            return "success"
        if "error" in told and told["error"] in STATUSES:
            return STATUSES[told["error"]]
        if answer.status != 400:
            return str(told["status"])
    return answer.trouble or str(answer.status)


def _is_device(attempt: Attempt) -> bool:
    return attempt.polling_code.startswith(DEVICE_CODE_PREFIX)


def _subject(attempt: Attempt, number: int) -> str:
    """Return for whom the backend with this number completes a login: nobody else has this subject."""
    return f"user:{attempt.session_id}:{number}"


def _subject_in(access_token: str) -> str:
    """Return the claim `sub`. Nothing is verified."""
    claims = access_token.split(".")[1]
    return str(json.loads(urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["sub"])

"""The two ways to run a login: blocking, and in an asyncio event loop."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from typing import TypedDict

import httpx

from login_relay_client.request import Login, LoginRequest, Prompt
from login_relay_client.steps import (
    PATIENCE,
    CancelRequest,
    HttpRequest,
    HttpResponse,
    NoResponse,
    Patience,
    Reply,
    Sleep,
    login_steps,
)


def login(request: LoginRequest, on_prompt: Callable[[Prompt], None], *, patience: Patience = PATIENCE) -> Login:
    """Log in. Block until the login was approved or has failed.

    If an exception interrupts it (Ctrl-C, one that a signal handler raises, one of `on_prompt`), it cancels the login
    at the server, which takes one second at most, and raises the exception again. It installs no signal handler.

    Args:
        request: where to log in, and as which tool.
        on_prompt: called once, as soon as there is a login code, to show it to the person.
        patience: how long to wait for what.

    Raises:
        LoginExpired: nobody approved the login in time.
        LoginDenied: somebody denied it.
        LoginUsed: another poller got the token.
        LoginRefused: the server's response is final, for example because the key is wrong.
        ServerUnreachable: no usable response: for 10 s at first, or until 120 s after the login expired.

    """
    steps = login_steps(request, patience=patience)
    with httpx.Client(**_http(request)) as http:
        step = next(steps)
        while not isinstance(step, Login):
            try:
                reply = _carry_out(step, http, on_prompt)
            except BaseException as interruption:  # noqa: BLE001 - the steps raise it again
                step = steps.throw(interruption)
            else:
                step = steps.send(reply)
        return step


async def login_async(
    request: LoginRequest, on_prompt: Callable[[Prompt], None], *, patience: Patience = PATIENCE
) -> Login:
    """Log in like `login`, in an asyncio event loop. `on_prompt` must not block.

    If its task is cancelled, it cancels the login at the server in the same way, and raises `CancelledError` again.
    """
    steps = login_steps(request, patience=patience)
    async with httpx.AsyncClient(**_http(request)) as http:
        step = next(steps)
        while not isinstance(step, Login):
            try:
                reply = await _carry_out_async(step, http, on_prompt)
            except BaseException as interruption:  # noqa: BLE001 - the steps raise it again
                step = steps.throw(interruption)
            else:
                step = steps.send(reply)
        return step


def _carry_out(step: HttpRequest | Sleep | Prompt, http: httpx.Client, on_prompt: Callable[[Prompt], None]) -> Reply:
    match step:
        case CancelRequest():
            _cancel(step, http)
        case HttpRequest(path, headers, body, timeout):
            try:
                response = http.post(path, headers=headers, content=body, timeout=timeout)
            except httpx.RequestError as error:
                return _no_response(error)
            return HttpResponse(response.status_code, response.headers, response.content)
        case Sleep(seconds):
            time.sleep(seconds)
        case Prompt():
            on_prompt(step)
    return None


async def _carry_out_async(
    step: HttpRequest | Sleep | Prompt, http: httpx.AsyncClient, on_prompt: Callable[[Prompt], None]
) -> Reply:
    match step:
        case CancelRequest(path, headers, body, timeout):
            with contextlib.suppress(Exception):  # best effort
                async with asyncio.timeout(timeout):
                    await http.post(path, headers=headers, content=body, timeout=timeout)
        case HttpRequest(path, headers, body, timeout):
            try:
                response = await http.post(path, headers=headers, content=body, timeout=timeout)
            except httpx.RequestError as error:
                return _no_response(error)
            return HttpResponse(response.status_code, response.headers, response.content)
        case Sleep(seconds):
            await asyncio.sleep(seconds)
        case Prompt():
            on_prompt(step)
    return None


def _cancel(request: CancelRequest, http: httpx.Client) -> None:
    """Send it from another thread: httpx limits each read and not the whole request, and a DNS look-up not at all."""

    def send() -> None:
        with contextlib.suppress(Exception):  # best effort; nobody waits for a late one
            http.post(request.path, headers=request.headers, content=request.body, timeout=request.timeout)

    sender = threading.Thread(target=send, daemon=True)  # or a process that ends would wait for it
    with contextlib.suppress(RuntimeError):  # no more threads can be started
        sender.start()
        sender.join(request.timeout)


class _Http(TypedDict):
    base_url: str
    trust_env: bool


def _http(request: LoginRequest) -> _Http:
    # A proxy named in the environment would read what goes to an http:// server, such as one on this machine.
    return {"base_url": request.server, "trust_env": httpx.URL(request.server).scheme == "https"}


def _no_response(error: httpx.RequestError) -> NoResponse:
    # Pass on its text only: the exception holds the request, and so the polling code.
    return NoResponse(str(error) or type(error).__name__)

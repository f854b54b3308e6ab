"""The two ways to run a login: blocking, and in an asyncio event loop."""

import asyncio
import time
from collections.abc import Callable
from typing import TypedDict

import httpx

from login_relay_client.request import Login, LoginRequest, Prompt
from login_relay_client.steps import (
    HttpRequest,
    HttpResponse,
    NoResponse,
    Reply,
    Sleep,
    login_steps,
)


def login(request: LoginRequest, on_prompt: Callable[[Prompt], None]) -> Login:
    """Log in and block until the login was approved or has failed. Ctrl-C just ends it.

    Args:
        request: where and as what to log in.
        on_prompt: called once, as soon as there is a code, to show it to the person.

    Raises:
        LoginExpired: nobody approved in time.
        LoginUsed: the token went elsewhere.
        LoginRefused: the server's answer is final, such as a wrong key.
        ServerUnreachable: no usable answer, at first for 10 s, later until 120 s after the login expired.

    """
    steps = login_steps(request)
    reply: Reply = None
    with httpx.Client(**_http(request)) as http:
        while True:
            step, reply = steps.send(reply), None
            match step:
                case HttpRequest(path, headers, body, timeout):
                    try:
                        response = http.post(path, headers=headers, content=body, timeout=timeout)
                        reply = HttpResponse(response.status_code, response.headers, response.content)
                    except httpx.RequestError as error:
                        reply = _no_response(error)
                case Sleep(seconds):
                    time.sleep(seconds)
                case Prompt():
                    on_prompt(step)
                case Login():
                    return step


async def login_async(request: LoginRequest, on_prompt: Callable[[Prompt], None]) -> Login:
    """Do as `login` does, in an asyncio event loop: `on_prompt` must not block, cancelling just ends it."""
    steps = login_steps(request)
    reply: Reply = None
    async with httpx.AsyncClient(**_http(request)) as http:
        while True:
            step, reply = steps.send(reply), None
            match step:
                case HttpRequest(path, headers, body, timeout):
                    try:
                        response = await http.post(path, headers=headers, content=body, timeout=timeout)
                        reply = HttpResponse(response.status_code, response.headers, response.content)
                    except httpx.RequestError as error:
                        reply = _no_response(error)
                case Sleep(seconds):
                    await asyncio.sleep(seconds)
                case Prompt():
                    on_prompt(step)
                case Login():
                    return step


class _Http(TypedDict):
    base_url: str
    trust_env: bool


def _http(request: LoginRequest) -> _Http:
    # A proxy named in the environment would read what goes to an http:// server, such as one on this machine.
    return {"base_url": request.server, "trust_env": httpx.URL(request.server).scheme == "https"}


def _no_response(error: httpx.RequestError) -> NoResponse:
    # Only its text goes on: the exception holds the request, and with it the polling code.
    return NoResponse(str(error) or type(error).__name__)

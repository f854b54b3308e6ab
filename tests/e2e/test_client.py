import asyncio
import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from signal import Signals

import httpx
import pytest

from login_relay_client import (
    Login,
    LoginDenied,
    LoginExpired,
    LoginRefused,
    LoginRequest,
    LoginUsed,
    Prompt,
    login,
    login_async,
)
from login_relay_client.steps import (
    HttpRequest,
    HttpResponse,
    NoResponse,
    Reply,
    login_steps,
)
from runtime.settings import variable
from tests.support.services import COMMAND, Service


def request_to(service: Service) -> LoginRequest:
    """Return a login at the service."""
    project = service.project
    return LoginRequest(
        server=service.url,
        project_id=project.project_id,
        publishable_client_key=project.publishable_client_key,
        client_name="test",
        client_version="1",
        expires_in=timedelta(minutes=1),
    )


def complete(service: Service, login_code: str) -> str:
    """Approve a login as a page's backend does, and return the refresh token that it sends."""
    token = f"rt-{login_code}"
    response = httpx.post(
        f"{service.url}/api/v1/auth/cli/complete",
        headers=service.project.server_headers,
        json={"login_code": login_code, "refresh_token": token},
    )
    assert response.json() == {"success": True}
    return token


def completing(service: Service, tokens: list[str]) -> Callable[[Prompt], None]:
    """Return an `on_prompt` that approves as soon as it gets the code."""
    return lambda prompt: tokens.append(complete(service, prompt.login_code))


def test_a_login_gets_the_token_that_its_approval_set(service: Service) -> None:
    """From initiate to the token, against the real service."""
    tokens: list[str] = []
    session = login(request_to(service), completing(service, tokens))

    assert [session.refresh_token] == tokens
    assert session.session_id


async def test_many_logins_wait_in_one_event_loop_and_each_gets_its_own_token(service: Service) -> None:
    """Approvals come while the polls are under way."""
    prompts: asyncio.Queue[Prompt] = asyncio.Queue()
    logins = [asyncio.create_task(login_async(request_to(service), prompts.put_nowait)) for _ in range(5)]
    tokens = set()
    for _ in logins:
        prompt = await prompts.get()
        tokens.add(await asyncio.to_thread(complete, service, prompt.login_code))

    assert {session.refresh_token for session in await asyncio.gather(*logins)} == tokens


def test_a_login_that_nobody_approves_expires(service: Service) -> None:
    """The service says so, and the client does not wait any longer."""
    with pytest.raises(LoginExpired):
        login(replace(request_to(service), expires_in=timedelta(seconds=1)), lambda _: None)


def test_a_login_is_bound_to_its_client(service: Service) -> None:
    """A thief with the polling code but without the verifier gets no token, and the client still gets it."""
    heard = []

    def steal_first(request: HttpRequest) -> Reply:
        if request.path.endswith("/poll"):
            body = json.loads(request.body)
            for proof in ({}, {"code_verifier": "A" * 43}):
                stolen = json.dumps({"polling_code": body["polling_code"], **proof}).encode()
                heard.append(post(service, replace(request, body=stolen)))
        return post(service, request)

    tokens: list[str] = []
    session = drive(request_to(service), completing(service, tokens), steal_first)

    assert [session.refresh_token] == tokens
    assert {(answer.status, json.loads(answer.body)["code"]) for answer in heard} == {(400, "INVALID_POLLING_CODE")}


def test_a_wrong_key_is_refused_with_the_services_words(service: Service) -> None:
    """Nobody is prompted."""
    prompts: list[Prompt] = []
    with pytest.raises(LoginRefused) as caught:
        login(replace(request_to(service), publishable_client_key="pck_wrong"), prompts.append)

    assert caught.value.status == 401
    assert caught.value.code == "INVALID_PUBLISHABLE_CLIENT_KEY"
    assert prompts == []


def post(service: Service, request: HttpRequest) -> HttpResponse:
    """Carry out one request."""
    answer = httpx.post(
        service.url + request.path, headers=request.headers, content=request.body, timeout=request.timeout
    )
    return HttpResponse(answer.status_code, answer.headers, answer.content)


def drive(
    request: LoginRequest, on_prompt: Callable[[Prompt], None], transport: Callable[[HttpRequest], Reply]
) -> Login:
    """Do as `login` does, over a transport of the test's own and without pauses."""
    steps = login_steps(request)
    reply: Reply = None
    while True:
        step, reply = steps.send(reply), None
        match step:
            case HttpRequest():
                reply = transport(step)
            case Prompt():
                on_prompt(step)
            case Login():
                return step


def test_a_poll_is_held_until_the_login_ends(service: Service) -> None:
    """The client requests it and the service does it: the first poll is answered when the login ends, after 1 s."""
    answers: list[HttpResponse] = []

    def recorded(request: HttpRequest) -> Reply:
        answers.append(post(service, request))
        return answers[-1]

    with pytest.raises(LoginExpired):
        drive(replace(request_to(service), expires_in=timedelta(seconds=1)), lambda _: None, recorded)
    _, *polls = answers
    assert [json.loads(poll.body) for poll in polls] == [{"status": "expired"}]


def test_a_token_whose_answer_was_lost_comes_with_the_next_poll(service: Service) -> None:
    """The service consumed the session, the client got no answer and polls again with the same key."""
    lost: list[bytes] = []

    def lose_the_first_token(request: HttpRequest) -> Reply:
        response = post(service, request)
        if response.status == 201 and not lost:
            lost.append(response.body)
            return NoResponse("connection reset")
        return response

    session = drive(request_to(service), completing(service, []), lose_the_first_token)

    assert [session.refresh_token] == [json.loads(body)["refresh_token"] for body in lost]


def test_a_login_that_someone_else_picked_up_is_used(service: Service) -> None:
    """A thief with everything that the client has takes the token from it."""

    def come_second(request: HttpRequest) -> Reply:
        if request.path.endswith("/poll"):
            thief = replace(request, headers={**request.headers, "idempotency-key": "thief"})
            assert post(service, thief).status == 201
        return post(service, request)

    with pytest.raises(LoginUsed):
        drive(request_to(service), completing(service, []), come_second)


def test_the_command_logs_in(service: Service, tmp_path: Path) -> None:
    """`login-relay login` shows the code, waits for the approval and keeps the token in a private file."""
    path = tmp_path / "token"
    command = [
        str(Path(sys.executable).with_name("login-relay")),
        "login",
        f"--server={service.url}",
        f"--project={service.project.project_id}",
        f"--token-file={path}",
        "--json",
    ]
    environment = os.environ | {"LOGIN_RELAY_PUBLISHABLE_KEY": service.project.publishable_client_key}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr
        shown = re.search(r"code  (\S+)", process.stderr.readline())
        assert shown
        token = complete(service, shown[1])
        stdout, stderr = process.communicate(timeout=30)

    assert process.returncode == 0
    assert json.loads(stdout)["token_file"] == str(path)
    assert path.read_text() == token
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert token not in stdout + stderr


def state_of(service: Service, session_id: str) -> str:
    """Return the state of a session, as the operator's command shows it."""
    settings = {variable("redis_url"): service.settings.redis_url or "", variable("prefix"): service.settings.prefix}
    command = (COMMAND, "sessions", "show", session_id, "--json")
    shown = subprocess.run(command, env=settings, check=True, timeout=30, capture_output=True)
    return str(json.loads(shown.stdout)["state"])


def denied(service: Service, login_code: str) -> None:
    """Deny a login as a page's backend does."""
    body = {"login_code": login_code, "mode": "deny"}
    url = f"{service.url}/api/v1/auth/cli/complete"
    assert httpx.post(url, headers=service.project.server_headers, json=body).json() == {"success": True}


def test_a_denied_login_ends_as_denied_at_once(service: Service) -> None:
    """The person's no reaches the held poll; the tool need not wait until the login expires."""
    with pytest.raises(LoginDenied):
        login(request_to(service), lambda prompt: denied(service, prompt.login_code))


async def test_a_login_whose_task_is_cancelled_is_cancelled_at_the_relay(service: Service) -> None:
    """The session ends before the task does."""
    prompted: asyncio.Future[Prompt] = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(login_async(request_to(service), prompted.set_result))
    prompt = await prompted
    await asyncio.sleep(0.2)  # most likely its poll is held by now
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert prompt.session_id
    assert await asyncio.to_thread(state_of, service, prompt.session_id) == "cancelled"


@pytest.mark.parametrize(("number", "code"), [(Signals.SIGINT, 130), (Signals.SIGTERM, 143)])
def test_the_command_that_is_interrupted_cancels_its_login(
    service: Service, tmp_path: Path, number: Signals, code: int
) -> None:
    """One line, no traceback, the exit code of the signal; the session is over."""
    project = service.project
    command = (COMMAND, "login", "--server", service.url, "--project", project.project_id, "--json")
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    environment["LOGIN_RELAY_PUBLISHABLE_KEY"] = project.publishable_client_key
    with subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stderr
        assert "code  " in process.stderr.readline()
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=15)
    assert process.returncode == code
    assert "Traceback" not in stderr
    assert state_of(service, json.loads(stdout)["session_id"]) == "cancelled"

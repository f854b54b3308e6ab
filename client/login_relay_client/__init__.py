"""Log a person in from a command-line tool, through their browser.

    from login_relay_client import LoginRequest, login

    request = LoginRequest(
        server="https://login.example.com",
        project_id="…",
        publishable_client_key="pck_…",
        confirm_url="https://app.example.com/approve?code={login_code}",
    )
    session = login(request, lambda prompt: print(prompt.link, prompt.login_code))
    save(session.refresh_token)

If the server holds polls (`Prefer: wait`), the token arrives as soon as the login is approved, otherwise with the
next poll. A lost response loses no login, and the client retries for as long as the login can still succeed. Every
way to fail is a `LoginError`. A login that is interrupted, for example by Ctrl-C, is cancelled at the server.
"""

from login_relay_client.drivers import login, login_async
from login_relay_client.failures import (
    LoginDenied,
    LoginError,
    LoginExpired,
    LoginRefused,
    LoginUsed,
    ServerUnreachable,
)
from login_relay_client.request import Login, LoginRequest, Prompt
from login_relay_client.steps import PATIENCE, Patience

__all__ = [
    "PATIENCE",
    "Login",
    "LoginDenied",
    "LoginError",
    "LoginExpired",
    "LoginRefused",
    "LoginRequest",
    "LoginUsed",
    "Patience",
    "Prompt",
    "ServerUnreachable",
    "login",
    "login_async",
]

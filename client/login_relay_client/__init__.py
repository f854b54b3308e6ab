"""Log a person in from a command-line tool, through their browser.

    from login_relay.client import LoginRequest, login

    request = LoginRequest(
        server="https://login.example.com",
        project_id="…",
        publishable_client_key="pck_…",
        confirm_url="https://app.example.com/approve?code={login_code}",
    )
    session = login(request, lambda prompt: print(prompt.link, prompt.login_code))
    save(session.refresh_token)

An approval arrives at once where the server holds polls (`Prefer: wait`), else at the next poll. A lost
answer loses no login, trouble on the way is waited out for as long as the login can still succeed, and every
way it can fail is a `LoginError`.
"""

from login_relay_client.drivers import login, login_async
from login_relay_client.failures import LoginError, LoginExpired, LoginRefused, LoginUsed, ServerUnreachable
from login_relay_client.request import Login, LoginRequest, Prompt

__all__ = [
    "Login",
    "LoginError",
    "LoginExpired",
    "LoginRefused",
    "LoginRequest",
    "LoginUsed",
    "Prompt",
    "ServerUnreachable",
    "login",
    "login_async",
]

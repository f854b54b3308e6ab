"""Who is asking (docs/wire.md, section 9): the ways in which libraries say it."""

from base64 import b64encode
from collections.abc import Callable

import httpx
import pytest

from tests.support.oauth_wire import DEVICE_AUTHORIZATION, INTROSPECT, REVOKE, TOKEN, OAuthWire, error

NOBODY = "00000000-0000-4000-8000-000000000000"


def basic(id_: str, secret: str = "") -> dict[str, str]:
    """Return the header of Basic credentials."""
    return {"authorization": "Basic " + b64encode(f"{id_}:{secret}".encode()).decode()}


WAYS = [
    lambda project: ({}, {"client_id": project.project_id}),
    lambda project: (basic(project.project_id), {}),
    lambda project: (basic(project.project_id), {"client_id": project.project_id}),
    lambda project: (basic(project.project_id, project.publishable_client_key), {}),
    lambda project: ({}, {"client_id": project.project_id, "client_secret": project.publishable_client_key}),
    lambda project: (basic(project.project_id), {"client_secret": project.publishable_client_key}),
    lambda project: ({"authorization": "Bearer x"}, {"client_id": project.project_id}),
]


@pytest.mark.parametrize("said", WAYS, ids=map(str, range(len(WAYS))))
def test_client_may_say_who_it_is_as_its_library_does(
    oauth: OAuthWire, said: Callable[..., tuple[dict[str, str], dict[str, str]]]
) -> None:
    """In the form, as the user of Basic credentials with an empty password, or both; a right secret is no error."""
    headers, form = said(oauth.project)
    response = oauth.client.post(DEVICE_AUTHORIZATION, headers=headers, data={"scope": "cli", **form})
    assert response.status_code == httpx.codes.OK, response.text


NOBODIES = [
    (lambda _: ({}, {}), 401, "invalid_client", False),
    (lambda _: ({}, {"client_id": NOBODY}), 401, "invalid_client", False),
    (lambda _: ({}, {"client_id": "no uuid"}), 401, "invalid_client", False),
    (lambda _: ({}, {"client_id": NOBODY, "client_secret": "x"}), 401, "invalid_client", False),
    (lambda p: ({}, {"client_id": p.project_id, "client_secret": "wrong"}), 401, "invalid_client", False),
    (
        lambda p: ({}, {"client_id": p.project_id, "client_secret": p.secret_server_key}),
        401,
        "invalid_client",
        False,
    ),
    (lambda p: (basic(p.project_id, "wrong"), {}), 401, "invalid_client", True),
    (lambda _: (basic(NOBODY), {}), 401, "invalid_client", True),
    (lambda _: (basic(""), {}), 401, "invalid_client", True),
    (lambda _: ({"authorization": "Basic %%%"}, {}), 401, "invalid_client", True),
    (lambda p: (basic(p.project_id), {"client_id": NOBODY}), 400, "invalid_request", False),
    (lambda p: (basic(p.project_id, "a"), {"client_secret": "a"}), 400, "invalid_request", False),
]


@pytest.mark.parametrize(("said", "status", "word", "challenged"), NOBODIES, ids=map(str, range(len(NOBODIES))))
@pytest.mark.parametrize("path", [DEVICE_AUTHORIZATION, TOKEN, REVOKE])
def test_client_that_is_none_is_refused(
    oauth: OAuthWire,
    path: str,
    said: Callable[..., tuple[dict[str, str], dict[str, str]]],
    status: int,
    word: str,
    *,
    challenged: bool,
) -> None:
    """With a challenge if it used Basic (RFC 6749 §5.2); what it sent is not repeated."""
    headers, form = said(oauth.project)
    grant = {"grant_type": "refresh_token", "refresh_token": "x", "token": "x"}
    response = oauth.client.post(path, headers=headers, data={**grant, **form})
    assert error(response) == (status, word)
    assert ("www-authenticate" in response.headers) is challenged


def test_project_lets_no_oauth_client_in_by_default(oauth: OAuthWire) -> None:
    """The service's own project never asked for it."""
    closed = oauth.service.project
    for path in (DEVICE_AUTHORIZATION, REVOKE):
        assert error(oauth.client.post(path, data={"client_id": closed.project_id})) == (400, "unauthorized_client")
    at = f"/api/v1/projects/{closed.project_id}/.well-known/openid-configuration"
    assert oauth.client.get(at).status_code == httpx.codes.NOT_FOUND


def test_only_a_backend_may_introspect(oauth: OAuthWire) -> None:
    """By its server key or admin key, in the form, as Basic credentials, or in the headers of the other interface."""
    project, tokens = oauth.project, oauth.logged_in()
    form = {"token": tokens["access_token"]}
    for headers, more in (
        (basic(project.project_id, project.secret_server_key), {}),
        (basic(project.project_id, project.super_secret_admin_key), {}),
        ({}, {"client_id": project.project_id, "client_secret": project.secret_server_key}),
        (project.server_headers, {}),
    ):
        response = oauth.client.post(INTROSPECT, headers=headers, data=form | more)
        assert response.json()["active"] is True, response.text
    for headers, more in (
        ({}, {"client_id": project.project_id}),
        (basic(project.project_id), {}),
        (basic(project.project_id, project.publishable_client_key), {}),
        (oauth.service.project.server_headers | {"x-stack-project-id": project.project_id}, {}),
    ):
        assert error(oauth.client.post(INTROSPECT, headers=headers, data=form | more)) == (401, "invalid_client")
    others = oauth.client.post(INTROSPECT, headers=oauth.service.project.server_headers, data=form)
    assert others.json() == {"active": False}

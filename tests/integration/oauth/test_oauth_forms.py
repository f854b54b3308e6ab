"""The forms of this interface, and what is wrong with them (docs/wire.md, section 9)."""

import httpx
import pytest

from tests.support.oauth_wire import DEVICE_AUTHORIZATION, TOKEN, OAuthWire, error

FORM = "application/x-www-form-urlencoded"
SECRET = "lrt_never-repeat-this"


@pytest.mark.parametrize("content_type", [FORM, f"{FORM};charset=UTF-8", f'{FORM}; charset="utf-8"', FORM.upper()])
def test_form_may_name_its_charset(oauth: OAuthWire, content_type: str) -> None:
    """openid-client does."""
    body = f"client_id={oauth.project.project_id}&scope=&unknown=1"
    response = oauth.client.post(DEVICE_AUTHORIZATION, content=body, headers={"content-type": content_type})
    assert response.json()["interval"] == 2


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b"{}"),
        ("", b""),
        (f"{FORM}; charset=latin-1", b"a=b"),
        (FORM, b"scope=%ff"),
        (FORM, b"scope=\xff"),
        (FORM, b"scope"),
        (FORM, b"scope=a&scope=b"),
        (FORM, b"scope=&scope="),
        (FORM, b"&".join(b"a%d=1" % number for number in range(200))),
    ],
)
@pytest.mark.parametrize("path", [DEVICE_AUTHORIZATION, TOKEN])
def test_body_that_is_no_form_is_refused(oauth: OAuthWire, path: str, content_type: str, body: bytes) -> None:
    """Also a parameter that is repeated (RFC 6749 §3.1)."""
    body = body and body + b"&client_id=" + oauth.project.project_id.encode()
    response = oauth.client.post(path, content=body, headers={"content-type": content_type})
    assert error(response) == (400, "invalid_request")


def test_parameters_in_the_query_are_refused(oauth: OAuthWire) -> None:
    """A URI may be logged."""
    response = oauth.client.post(f"{TOKEN}?refresh_token={SECRET}", data={"client_id": oauth.project.project_id})
    assert error(response) == (400, "invalid_request")
    assert SECRET not in oauth.service.output


def test_what_is_refused_before_an_endpoint_is_json_too(oauth: OAuthWire) -> None:
    """404, 405 and 413, with the words that clients expect; the override of the other interface is not honoured."""
    override = {"x-stack-override-error-status": "true"}
    assert error(oauth.client.get("/oauth/nothing", headers=override)) == (404, "invalid_request")
    refused = oauth.client.get(TOKEN)
    assert error(refused) == (405, "invalid_request")
    assert "POST" in refused.headers["allow"]
    large = oauth.client.post(TOKEN, content=b"a=" + b"b" * 70_000, headers={"content-type": FORM})
    assert error(large) == (413, "invalid_request")


@pytest.mark.parametrize(
    ("path", "form"),
    [
        (TOKEN, {"grant_type": "refresh_token", "refresh_token": SECRET}),
        (TOKEN, {"grant_type": SECRET}),
        (TOKEN, {"grant_type": "urn:ietf:params:oauth:grant-type:device_code", "device_code": SECRET}),
        (TOKEN, {"client_id": SECRET, "grant_type": "refresh_token"}),
        (DEVICE_AUTHORIZATION, {"code_challenge": SECRET, "code_challenge_method": "S256"}),
        (DEVICE_AUTHORIZATION, {"hostname": SECRET + "\u202e"}),
    ],
)
def test_no_error_repeats_what_was_sent(oauth: OAuthWire, path: str, form: dict[str, str]) -> None:
    """A value may be a secret."""
    response = oauth.post(path, None, **form)
    assert httpx.codes.is_client_error(response.status_code)
    assert SECRET not in response.text

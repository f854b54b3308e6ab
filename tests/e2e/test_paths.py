"""Requests that reach their endpoint in different ways: by its exact path, and by one that Litestar normalises."""

import re

import httpx
import pytest

from tests.support.services import Service, StartService

CODES = re.compile(r'"[^"]*"')
PATHS = ["/auth/cli", "/auth/cli/poll", "/auth/cli/complete", "/auth/cli/cancel"]


@pytest.fixture(scope="module")
def service(start_shared: StartService) -> Service:
    """An API without workers."""
    return start_shared(workers=0)


def post(service: Service, path: str, headers: dict[str, str], body: dict[str, str]) -> httpx.Response:
    """Send a request."""
    return httpx.post(service.url + path, headers=headers, json=body, trust_env=False)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("body", [{}, {"unknown": "x"}, {"polling_code": "wrong"}], ids=["empty", "unknown", "wrong"])
@pytest.mark.parametrize("spelling", ["/api/v1{}/", "//api//v1{}", "/api/latest{}/"])
def test_path_written_otherwise_is_answered_alike(
    service: Service, path: str, body: dict[str, str], spelling: str
) -> None:
    """The same status, words and headers, with the id that the client gave."""
    headers = {**service.project.client_headers, "x-request-id": "mine", "x-stack-override-error-status": "true"}
    exact, other = (post(service, each, headers, body) for each in (f"/api/v1{path}", spelling.format(path)))
    assert exact.status_code == other.status_code
    assert CODES.sub('""', exact.text) == CODES.sub('""', other.text)
    varying = {"date", "content-length"}
    assert {name: value for name, value in exact.headers.items() if name not in varying} == {
        name: value for name, value in other.headers.items() if name not in varying
    }
    assert exact.headers["x-stack-request-id"] == "mine"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_other_methods_are_told_which_there_are(service: Service, path: str, method: str) -> None:
    """405 with Allow (RFC 9110 §15.5.6); OPTIONS is answered."""
    answer = httpx.request(method, f"{service.url}/api/v1{path}", trust_env=False)
    assert answer.status_code == (204 if method == "OPTIONS" else 405)
    assert set(answer.headers["allow"].split(", ")) == {"OPTIONS", "POST"}


def test_host_that_cannot_be_one_is_refused(service: Service) -> None:
    """As at every other path."""
    headers = {**service.project.client_headers, "host": "a/b"}
    answer = post(service, "/api/v1/auth/cli", headers, {})
    assert (answer.status_code, answer.text) == (400, "The request cannot be served.")
    assert answer.headers["connection"] == "close"

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

import httpx
import pytest

from projects.store import Projects
from runtime.redis.connections import command_client
from tests.support.attacker import audits
from tests.support.eventually import wait_until
from tests.support.redis_server import RedisServer
from tests.support.services import ProjectKeys, Service, StartService, create_project

if TYPE_CHECKING:
    from projects.project import Project

OURS, THEIRS, EVIL = "https://app.example.com", "http://localhost:3000", "https://evil.example"
PATHS = [f"/api/{version}/auth/cli{end}" for version in ("v1", "latest") for end in ("", "/poll", "/complete")]
PREFLIGHT = {"access-control-request-method": "POST"}
CACHE_MS = 200


@pytest.fixture(scope="module")
def target(start_shared: StartService) -> Service:
    """An API that keeps projects for a short time only."""
    return start_shared(workers=0, project_cache_ms=CACHE_MS)


async def with_origins(service: Service, project: ProjectKeys, *origins: str) -> None:
    """Allow pages of these origins, and no others, to call for a project."""
    redis = command_client(service.settings, "login-relay:test")
    try:
        projects = Projects(redis, service.keys)
        found: Project = await projects.find(project.project_id)
        await projects.update(found, allow_client_complete=False, allowed_origins=origins)
    finally:
        await redis.aclose()


@pytest.fixture(scope="module")
def ours(target: Service) -> ProjectKeys:
    """A project that allows one origin."""
    project = asyncio.run(create_project(target.settings, "ours"))
    asyncio.run(with_origins(target, project, OURS))
    return project


@pytest.fixture(scope="module")
def theirs(target: Service) -> ProjectKeys:
    """Another project on the same relay, with pages of its own."""
    project = asyncio.run(create_project(target.settings, "theirs"))
    asyncio.run(with_origins(target, project, THEIRS))
    return project


def cors(answer: httpx.Response) -> dict[str, str]:
    """Return the headers of an answer that browsers look at."""
    return {name: value for name, value in answer.headers.items() if name.startswith("access-control-")}


def preflight(service: Service, origin: str, path: str = PATHS[0], **headers: str) -> httpx.Response:
    """Send the request that a browser sends before a page's own."""
    asked = {"origin": origin, **PREFLIGHT, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return httpx.options(f"{service.url}{path}", headers=asked, trust_env=False)


def initiate(service: Service, headers: Mapping[str, str], origin: str) -> httpx.Response:
    """Send the request of a page."""
    return httpx.post(f"{service.url}{PATHS[0]}", headers={**headers, "origin": origin}, json={}, trust_env=False)


def test_no_page_may_call_a_project_that_allows_none(service: Service) -> None:
    """Closed by default: no preflight passes, and no answer can be read."""
    for path in PATHS:
        asked = preflight(service, EVIL, path)
        assert (asked.status_code, cors(asked)) == (httpx.codes.NO_CONTENT, {})
    assert cors(initiate(service, service.project.client_headers, EVIL)) == {}


@pytest.mark.usefixtures("theirs")
@pytest.mark.parametrize("path", PATHS)
def test_page_of_an_allowed_origin_may_call(target: Service, ours: ProjectKeys, path: str) -> None:
    """With the headers that the published clients send, and without credentials."""
    names = "content-type, x-stack-project-id, X-Hexclave-Access-Type, x-stack-random-nonce, prefer, x-evil"
    asked = preflight(target, OURS, path, access_control_request_headers=names)
    assert asked.status_code == httpx.codes.NO_CONTENT
    assert cors(asked) == {
        "access-control-allow-origin": OURS,
        "access-control-allow-methods": "POST",
        "access-control-allow-headers": (
            "content-type, x-stack-project-id, x-hexclave-access-type, x-stack-random-nonce, prefer"
        ),
        "access-control-max-age": "600",
    }
    assert asked.headers["vary"] == "Origin"
    answer = httpx.post(
        f"{target.url}{path}", headers={**ours.client_headers, "origin": OURS}, json={}, trust_env=False
    )
    told = cors(answer)
    assert told.pop("access-control-allow-origin") == OURS
    readable = told.pop("access-control-expose-headers").split(", ")
    assert {"x-stack-known-error", "x-stack-actual-status", "x-hexclave-known-error", "retry-after"} < set(readable)
    assert told == {}
    assert answer.headers["vary"] == "Origin"


def test_page_allowed_by_another_project_reads_nothing(target: Service, ours: ProjectKeys, theirs: ProjectKeys) -> None:
    """Its preflight passes, since it names no project; only pages of the project can read the answer."""
    assert cors(preflight(target, THEIRS))
    assert cors(initiate(target, ours.client_headers, THEIRS)) == {}
    assert cors(initiate(target, theirs.client_headers, THEIRS))["access-control-allow-origin"] == THEIRS


@pytest.mark.usefixtures("theirs")
@pytest.mark.parametrize(
    "origin",
    [
        *("null", "*", "", EVIL, "https://app.example.com.evil.example", "https://evil-app.example.com"),
        *(
            "http://app.example.com",
            "https://app.example.com:8443",
            "https://app.example.com/",
            "HTTPS://APP.EXAMPLE.COM",
        ),
        *(
            "https://app.example.co",
            "https://app.example.com " + EVIL,
            "https://app.example.com\xff",
            "http://localhost",
        ),
    ],
)
def test_origin_that_is_only_like_an_allowed_one_is_another(target: Service, ours: ProjectKeys, origin: str) -> None:
    """Origins are compared whole, as browsers write them; there is no wildcard, no prefix, no `null`."""
    given = {**PREFLIGHT, "origin": origin}
    raw = [(name.encode(), value.encode("latin-1")) for name, value in given.items()]
    assert cors(httpx.options(f"{target.url}{PATHS[0]}", headers=raw, trust_env=False)) == {}
    raw = [
        (name.encode(), value.encode("latin-1")) for name, value in {**ours.client_headers, "origin": origin}.items()
    ]
    assert cors(httpx.post(f"{target.url}{PATHS[0]}", headers=raw, json={}, trust_env=False)) == {}


def test_refusals_can_be_read_by_allowed_pages_alone(target: Service, ours: ProjectKeys) -> None:
    """A page learns that its key is wrong only from a project that allows it, and nothing of an unknown project."""
    wrong = {**ours.client_headers, "x-stack-publishable-client-key": "pck_wrong"}
    assert cors(initiate(target, wrong, OURS))["access-control-allow-origin"] == OURS
    assert cors(initiate(target, wrong, EVIL)) == {}
    assert cors(initiate(target, {**wrong, "x-stack-project-id": "none"}, OURS)) == {}
    assert cors(initiate(target, {}, OURS)) == {}


def test_request_without_origin_is_told_nothing(target: Service, ours: ProjectKeys) -> None:
    """Tools and backends are not browsers."""
    answer = httpx.post(f"{target.url}{PATHS[0]}", headers=ours.client_headers, json={}, trust_env=False)
    assert answer.status_code == httpx.codes.OK
    assert cors(answer) == {}


def test_origin_that_is_forbidden_again_is_shut_out_soon(redis_server: RedisServer, target: Service) -> None:
    """Within the time for which an API process keeps a project; the change is published as an event."""
    project = asyncio.run(create_project(target.settings, "brief"))
    origin = "https://brief.example.com"
    asyncio.run(with_origins(target, project, origin))
    assert cors(initiate(target, project.client_headers, origin))
    assert cors(preflight(target, origin))
    asyncio.run(with_origins(target, project))

    def is_shut_out() -> bool:
        return not cors(initiate(target, project.client_headers, origin)) and not cors(preflight(target, origin))

    asyncio.run(wait_until(is_shut_out, within=CACHE_MS / 1000 + 2))
    changes = [
        (audit.type, audit.data["change"], audit.data["allowed_origins"])
        for audit in audits(redis_server, target, project)
    ]
    assert changes == [
        ("audit.project_changed", "created", []),
        ("audit.project_changed", "updated", [origin]),
        ("audit.project_changed", "updated", []),
    ]

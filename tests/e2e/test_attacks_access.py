import asyncio
import time

import httpx

from projects.project import KeyKind
from projects.store import Projects
from runtime.redis.connections import command_client
from tests.support.eventually import wait_until
from tests.support.services import ProjectKeys, Service, StartService, create_project

NOTICED_WITHIN = 5.0  # seconds; what the README promises
ASKING = 0.5  # seconds; what it takes to ask all processes


async def rotate(service: Service, project: ProjectKeys, overlap_ms: int) -> ProjectKeys:
    """Replace the publishable key of a project."""
    redis = command_client(service.settings, "login-relay:test")
    kind = KeyKind.PUBLISHABLE_CLIENT
    try:
        projects = Projects(redis, service.keys)
        new = await projects.rotate(await projects.find(project.project_id), [kind], overlap_ms)
    finally:
        await redis.aclose()
    return project._replace(publishable_client_key=new[kind])


async def delete(service: Service, project: ProjectKeys) -> None:
    """Delete a project."""
    redis = command_client(service.settings, "login-relay:test")
    try:
        projects = Projects(redis, service.keys)
        await projects.delete(await projects.find(project.project_id))
    finally:
        await redis.aclose()


def statuses(service: Service, project: ProjectKeys) -> set[int]:
    """Return the status with which each API process answers a key."""
    return {
        httpx.post(f"{url}/api/v1/auth/cli", headers=project.client_headers, trust_env=False).status_code
        for url in service.urls
    }


def test_revoked_keys_are_refused_by_every_process_within_five_seconds(start_service: StartService) -> None:
    """Also by those that used them a moment ago: a stolen key works for at most five seconds after its rotation."""
    service = start_service(apis=2, workers=0)
    stolen = service.project
    gone = asyncio.run(create_project(service.settings, "gone"))
    assert statuses(service, stolen) == statuses(service, gone) == {200}
    revoked = time.monotonic()
    new = asyncio.run(rotate(service, stolen, overlap_ms=0))
    asyncio.run(delete(service, gone))
    asyncio.run(
        wait_until(
            lambda: statuses(service, stolen) == {401} and statuses(service, gone) == {400},
            within=NOTICED_WITHIN + ASKING + revoked - time.monotonic(),
        )
    )
    assert statuses(service, new) == {200}


def test_keys_are_rotated_without_a_refusal(start_service: StartService) -> None:
    """With an overlap, the old key works all the time, and the new one as soon as all processes have read it."""
    service = start_service(apis=2, workers=0)
    old = service.project
    assert statuses(service, old) == {200}
    new = asyncio.run(rotate(service, old, overlap_ms=60_000))
    until = time.monotonic() + NOTICED_WITHIN + ASKING
    while statuses(service, new) != {200}:
        assert statuses(service, old) == {200}
        assert time.monotonic() < until
    assert statuses(service, old) == {200}

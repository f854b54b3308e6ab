"""Processes whose parent was killed."""

import socket
from signal import Signals
from urllib.parse import urlsplit

from tests.support.eventually import wait_until
from tests.support.services import StartService


def _listens(url: str) -> bool:
    address = urlsplit(url)
    with socket.socket() as caller:
        caller.settimeout(1)
        return caller.connect_ex((address.hostname, address.port)) == 0


async def test_an_api_that_is_killed_leaves_nobody_on_its_port(start_service: StartService) -> None:
    """The processes that serve HTTP end with their parent; another API can use the port at once."""
    service = start_service(apis=1, workers=0)
    assert _listens(service.url)
    service.apis[0].send(Signals.SIGKILL)
    await wait_until(lambda: not _listens(service.url), 10)

"""The address that the API listens on: checks it before anything is started, and writes it as a URL."""

import errno
import ipaddress
import os
import socket

from runtime.errors import SettingError
from runtime.settings import variable


def check_listen_address(host: str, port: int) -> None:
    """Check that the API can listen there.

    granian binds with SO_REUSEPORT: on the port of another granian it would silently receive half of the connections.

    Raises:
        SettingError: the API cannot listen there.

    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except OSError:
        message = f"{variable('host')}: {host} is not an address"
        raise SettingError(message) from None
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
            listener.listen()
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                message = f"port {port} on {host} is in use; --port or {variable('port')} names another"
            else:
                message = f"cannot listen on port {port} of {host}: {os.strerror(error.errno or 0)}"
            raise SettingError(message) from None


def base_url(host: str, port: int) -> str:
    """Return the URL at which this machine reaches an API that listens on `host`."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return f"http://{host}:{port}"
    if address.is_unspecified:
        address = ipaddress.ip_address("127.0.0.1" if address.version == 4 else "::1")  # noqa: PLR2004 - IPv4
    return f"http://[{address}]:{port}" if address.version == 6 else f"http://{address}:{port}"  # noqa: PLR2004 - IPv6

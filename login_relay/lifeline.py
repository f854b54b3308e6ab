"""The lifeline between `serve` and its children: a pipe that closes when `serve` is gone, however it went."""

import os
import signal
import threading


def stop_when_stdin_closes() -> None:
    """Send this process SIGTERM when nobody holds the other end of its standard input any more."""
    threading.Thread(target=_wait, name="lifeline", daemon=True).start()


def _wait() -> None:
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)

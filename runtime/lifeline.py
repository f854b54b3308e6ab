"""Lifelines: a process stops by itself when the process that it works for has ended, even if that one was killed."""

import os
import signal
import threading
import time

PARENT_PERIOD = 0.5  # seconds between two checks of the parent


def stop_when_stdin_closes() -> None:
    """Send this process SIGTERM when its standard input is closed: `serve` holds the other end of that pipe."""
    threading.Thread(target=_wait_for_stdin, name="lifeline", daemon=True).start()


def stop_when_parent_ends() -> None:
    """Send this process SIGTERM when its parent has ended; otherwise it would keep listening on the shared port."""
    threading.Thread(target=_wait_for_parent, args=(os.getppid(),), name="lifeline", daemon=True).start()


def _wait_for_stdin() -> None:
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _wait_for_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PARENT_PERIOD)
    os.kill(os.getpid(), signal.SIGTERM)

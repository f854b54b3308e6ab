"""Lifelines: a process of ours that lost the one it works for stops by itself, however the other went."""

import os
import signal
import threading
import time

PARENT_PERIOD = 0.5  # seconds between two looks for the parent


def stop_when_stdin_closes() -> None:
    """Send this process SIGTERM when nobody holds the other end of its standard input any more (`serve`, a pipe)."""
    threading.Thread(target=_wait_for_stdin, name="lifeline", daemon=True).start()


def stop_when_parent_ends() -> None:
    """Send this process SIGTERM when its parent is gone: left alone, it would go on listening on the shared port."""
    threading.Thread(target=_wait_for_parent, args=(os.getppid(),), name="lifeline", daemon=True).start()


def _wait_for_stdin() -> None:
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _wait_for_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PARENT_PERIOD)
    os.kill(os.getpid(), signal.SIGTERM)

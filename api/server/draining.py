"""The signal that makes a process end what it holds, polls and event streams. Imports nothing: its sender is light."""

import signal

DRAIN_SIGNAL = signal.SIGUSR1
"""`login-relay api` sends it ahead of SIGTERM, which is the web server's: that waits for what is under way."""

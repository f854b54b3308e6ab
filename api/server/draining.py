"""The signal on which a process ends its held polls and event streams. The sender imports nothing else of the API."""

import signal

DRAIN_SIGNAL = signal.SIGUSR1
"""`login-relay api` sends it before SIGTERM, on which the web server waits for the requests that are under way."""

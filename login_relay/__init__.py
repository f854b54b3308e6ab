"""The `login-relay` command and, for authors of command-line tools, `login_relay_client`.

It starts and inspects the service from outside; the service itself is `api`, `worker` and `statemachine`.
"""

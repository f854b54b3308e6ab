"""The `login-relay` command: starts the service (`run`) and inspects it from outside (`operate`).

The service itself is `api` and `worker`; the client is `login_relay_client`.
"""

"""The `login-relay` command: it starts the service (`run`) and looks at it from outside (`operate`).

The service itself is `api` and `worker`; the client is `login_relay_client`.
"""

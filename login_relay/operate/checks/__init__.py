"""The checks of `login-relay doctor` that are about more than one answer of the server."""

"""`login-relay serve`, `api` and `worker`: the processes, and the embedded server. What they do is not here."""

"""`login-relay serve`, `api` and `worker`: starts the processes and the embedded server. Their work is elsewhere."""

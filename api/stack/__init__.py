"""Stack Auth's interface, `/api/v1/auth/cli`: its words, headers and errors. What they mean is `api.logins`."""

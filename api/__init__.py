"""Speaks HTTP: checks credentials, records commands, waits for outcomes. It never changes a session's state itself."""

"""Speaks HTTP: checks who asks, records commands, waits for outcomes. It never changes a session's state itself."""

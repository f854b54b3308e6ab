"""Keeps sessions and their commands in Redis. It decides nothing: `statemachine.machine` does."""

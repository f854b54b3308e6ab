"""Keeps families of refresh tokens in Redis, as digests. It decides nothing: `tokens.machine` does."""

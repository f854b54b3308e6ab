"""The life of a login session: its states, its record, its commands and events, and where they are kept in Redis.

It speaks neither HTTP (that is `api`) nor runs loops (that is `worker`); both build on it.
"""

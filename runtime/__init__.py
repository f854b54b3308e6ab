"""What every process starts from: settings, shapes of codes and keys, the clock, logs, and how it is watched.

It knows no session, and speaks no HTTP but `/metrics`.
"""

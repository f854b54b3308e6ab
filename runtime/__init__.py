"""What every process needs: settings, the shapes of codes and keys, the clock, logs, metrics and traces.

It knows nothing of sessions, and the only HTTP it speaks is `/metrics`.
"""

"""Drives sessions through their states: reads commands from Redis streams, decides, commits. It does not speak HTTP."""

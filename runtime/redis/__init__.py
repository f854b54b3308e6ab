"""Redis itself: its connections, pipelining, scripts and keys. What is kept in it is for the rooms above."""

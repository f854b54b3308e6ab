"""The public event streams: the envelope of events, and a log over all partitions. It defines no event."""

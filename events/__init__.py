"""The public streams: the envelope of an event, and all partitions read as one log. It defines no event."""

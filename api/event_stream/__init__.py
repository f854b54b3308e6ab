"""The events of a project for many clients at once, from one reader of the log. It speaks no dialect."""

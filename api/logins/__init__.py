"""What can be done to a login, in no dialect: no status, no header, no JSON."""

"""What is measured and with what: servers, sessions, clients and the load they make. It tells no figure."""

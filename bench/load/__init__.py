"""What is measured, and with what: servers, sessions, clients and their load. It reports no figures."""

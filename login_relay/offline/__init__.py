"""Commands that make keys and tokens on the operator's machine. They need no running relay, and connect to none."""

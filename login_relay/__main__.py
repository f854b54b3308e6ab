"""`python -m login_relay`: `serve` starts its children this way, so that they do not depend on PATH."""

from login_relay.cli import main

if __name__ == "__main__":
    main()

"""`python -m login_relay`: how `serve` starts its children, whatever is on PATH."""

from login_relay.cli import main

if __name__ == "__main__":
    main()

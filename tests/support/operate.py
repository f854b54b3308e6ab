"""The commands of an operator, and what they print."""

import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

from click.testing import Result

RFC_3339 = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z")

Operate = Callable[..., Awaitable[Result]]
"""Runs `login-relay …`: arguments, standard input as `text`, and variables by their names."""


def shown(result: Result) -> Any:  # noqa: ANN401 - JSON
    """Return what a command printed as one JSON value on standard output."""
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def refused(result: Result, exit_code: int) -> str:
    """Return the one line on standard error of a command that failed with `exit_code`."""
    assert result.exit_code == exit_code, result.output
    assert result.stdout == ""
    [line] = result.stderr.splitlines()
    assert line.startswith("login-relay: ")
    return line

"""Durations, as the command line accepts them."""

import re

import click

SECONDS_IN = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
DURATION = re.compile(r"0|[0-9]{1,6}[smhd]")


def milliseconds(duration: str) -> int:
    """Return the milliseconds of a text that matches `DURATION`."""
    return 0 if duration == "0" else int(duration[:-1]) * SECONDS_IN[duration[-1]] * 1_000


class Duration(click.ParamType[int]):
    """A duration such as `30s`, `10m`, `24h`, `7d` or `0`, converted to milliseconds."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the duration in milliseconds."""
        if not (isinstance(value, str) and DURATION.fullmatch(value)):
            self.fail(f"{value!r} is not a duration such as 30s, 10m, 24h, 7d or 0", param, ctx)
        return milliseconds(value)

"""Lengths of time, as the command line takes them."""

import re

import click

SECONDS_IN = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


class Duration(click.ParamType[int]):
    """A length of time such as `30s`, `10m`, `24h`, `7d` or `0`; converted to milliseconds."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return milliseconds."""
        if value == "0":
            return 0
        if not (isinstance(value, str) and (found := re.fullmatch(r"([0-9]{1,6})([smhd])", value))):
            self.fail(f"{value!r} is not a duration such as 30s, 10m, 24h, 7d or 0", param, ctx)
        return int(found[1]) * SECONDS_IN[found[2]] * 1_000

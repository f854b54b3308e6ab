"""The cost of metrics and logs: pending polls of a relay as it comes, compared with one that has neither."""

from functools import partial
from typing import Any

import msgspec

from bench.load.loads import CODES, CONNECTIONS, poll_load
from bench.load.servers import relay, valkey
from bench.load.sessions import create_project, initiate, new_settings
from bench.load.wrk import wrk
from bench.rounds import interleaved, ratios, spread

MORE_ROUNDS = 4  # times as many as elsewhere: the difference is smaller than that between rounds


def measure_observing(*, rounds: int, seconds: int) -> dict[str, Any]:
    """Return the figures of both relays, measured in turn on one Valkey with the same sessions."""
    with valkey() as redis:
        settings = new_settings(redis.url)
        silent = msgspec.structs.replace(settings, metrics_port=0, log_level="warning")
        project = create_project(settings)
        codes = [each.polling_code for each in initiate(settings, project, CODES)]
        with relay(settings) as observed, relay(silent) as unobserved:
            servers = {"observed": observed, "unobserved": unobserved}
            loads = {name: poll_load(server, project, codes) for name, server in servers.items()}
            cases = {name: partial(wrk, load, connections=CONNECTIONS, seconds=seconds) for name, load in loads.items()}
            answers = interleaved(cases, rounds * MORE_ROUNDS)
    rates = {name: [answer.per_second for answer in answered] for name, answered in answers.items()}
    return {
        "cases": {name: spread(values)._asdict() for name, values in rates.items()},
        "to_unobserved": ratios(rates["observed"], rates["unobserved"])._asdict(),
    }

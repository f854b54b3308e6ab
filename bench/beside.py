"""The relay beside other servers with a device flow: rate, CPU time and latency of each request."""

from typing import Any
from urllib.parse import urlencode

import httpx

from bench.cost import Processes, cost_of, costs, latencies, latency_of
from bench.load.loads import CODES, FORM, floor_load, relay_loads
from bench.load.servers import Server, floor, oidc_provider, relay, valkey
from bench.load.sessions import create_project, new_settings
from bench.load.wrk import Load
from bench.rounds import interleaved

BASES = {"careful": "careful", "rival poll": "rival poll", "rival initiate": "rival initiate"}


def measure_rival(*, rounds: int, seconds: int) -> dict[str, Any]:
    """Return the figures of the rival's two requests, of ours and of the careful floor."""
    with valkey() as redis:
        settings = new_settings(redis.url)
        project = create_project(settings)
        with floor(redis.url) as careful, relay(settings) as api, oidc_provider(redis.url) as rival:
            loads = {"careful": (careful, floor_load(careful.port))}
            loads |= {name: (api, load) for name, load in relay_loads(api, settings, project).items()}
            loads |= {name: (rival, load) for name, load in _rival_loads(rival).items()}
            rates = {name: cost_of(load, Processes(server, redis), seconds) for name, (server, load) in loads.items()}
            times = {name: latency_of(load, seconds) for name, (_, load) in loads.items()}
            return {
                "cases": costs(interleaved(rates, rounds), BASES),
                "latencies": latencies(interleaved(times, rounds)),
            }


def _rival_loads(rival: Server) -> dict[str, Load]:
    asked = urlencode({"client_id": "tool", "scope": "openid"})
    with httpx.Client(base_url=f"http://127.0.0.1:{rival.port}", trust_env=False) as http:
        codes = [
            http.post("/device/auth", content=asked, headers=FORM).raise_for_status().json()["device_code"]
            for _ in range(CODES)
        ]
    polls = [
        urlencode(
            {
                "client_id": "tool",
                "grant_type": "urn:ietf:params:oauth:grant-type:device_code",
                "device_code": code,
            }
        )
        for code in codes
    ]
    return {
        "rival poll": Load(rival.port, "/token", FORM, polls, refused=True),
        "rival initiate": Load(rival.port, "/device/auth", FORM, [asked]),
    }

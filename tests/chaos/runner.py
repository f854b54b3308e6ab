"""`make chaos`: full logins under faults, and a verdict on them.

Prints the seed, which gives the same schedule again, and ends with one line and exit code 0 if nothing was lost,
doubled or stuck and recovery was as quick as promised, else 1.
"""

import argparse
import asyncio
import json
import os
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Coroutine
from pathlib import Path
from signal import SIGTERM
from typing import Any, NamedTuple

import aiohttp
import uvloop

from api.tokens.logging_out import LoggingOut
from runtime.codes import DEVICE_CODE_PREFIX, MINTED_TOKEN_PREFIX, POLLING_CODE_PREFIX, SESSION_ID_SHAPE
from runtime.redis.connections import command_client
from runtime.settings import Settings
from tests.chaos.checker import Verdict, check, look_at_rest
from tests.chaos.deployment import Deployment
from tests.chaos.faults import Faults, schedule
from tests.chaos.history import TOKEN_PREFIX, History
from tests.chaos.load import Load
from tests.chaos.recovery import LIMITS, Recovery, quantile, recoveries
from tests.support.oauth_services import oauth_settings
from tests.support.proxy import Proxy
from tests.support.redis_process import RedisProcess
from tests.support.redis_server import RedisServer, remove_keys
from tests.support.store import token_retention_of
from tokens.store.recording import Subjects

NO_LIMIT = 1_000_000_000
# A session's id follows the first: four bytes alone are found by chance in megabytes of digests and sealed tokens.
SECRETS = {
    "polling code": re.compile(f"{POLLING_CODE_PREFIX}{SESSION_ID_SHAPE}".encode()),
    "device code": re.compile(f"{DEVICE_CODE_PREFIX}{SESSION_ID_SHAPE}".encode()),
    "token": re.compile(TOKEN_PREFIX.encode()),
    "minted token": re.compile(f"{MINTED_TOKEN_PREFIX}{SESSION_ID_SHAPE}".encode()),
    "access token": re.compile(rb"eyJ[\w-]{20,}\.eyJ"),
}
APIS, WORKERS, CLIENTS = 2, 3, 32
DRAIN = 75.0  # seconds for the last logins: longer than the most patient client waits


class Run(NamedTuple):
    """The results of a run."""

    history: History
    faults: Faults
    verdict: Verdict
    recoveries: list[Recovery]
    lag: float
    """The longest time, in seconds, by which this process was late: shorter times mean nothing."""


async def run(seconds: float, seed: int, folder: Path) -> Run:
    """Run the relay under load and faults in a folder of its own, and check the results."""
    clock = time.monotonic
    redis_folder = folder / "redis"
    redis_folder.mkdir()
    redis = RedisProcess(redis_folder)
    await redis.start()
    proxy = Proxy(redis.port)
    await proxy.start()
    oauth = oauth_settings(folder)
    settings = Settings(
        redis_url=f"redis://127.0.0.1:{proxy.port}/0",
        prefix="chaos",
        poll_interval_s=1,
        # All clients share an address and a project.
        initiations_per_address=NO_LIMIT,
        initiations_per_project=NO_LIMIT,
        live_sessions_per_address=NO_LIMIT,
        wrong_codes_per_address=NO_LIMIT,
        keys_file=str(oauth["keys_file"]),
        public_url=str(oauth["public_url"]),
    )
    deployment = Deployment(redis, proxy, settings, folder)
    own = command_client(settings, "login-relay:chaos")
    try:
        await deployment.start(APIS, WORKERS)
        faults = Faults(deployment, clock)
        lag = asyncio.create_task(_lag())
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
            ports = [front.port for front in deployment.fronts]
            logging_out = LoggingOut(Subjects(own, deployment.keys, token_retention_of(settings)))
            load = Load(http, ports, deployment.project, settings, clock, seed, logging_out)
            logins = asyncio.create_task(load.run(CLIENTS))
            await faults.run(schedule(seed, seconds), seconds)
            load.stopping.set()
            await asyncio.wait({logins}, timeout=DRAIN)
            logins.cancel()
            await asyncio.wait({logins})
            if not logins.cancelled():
                logins.result()
        lag.cancel()
        await asyncio.wait({lag})
        at_rest = await look_at_rest(redis.client, deployment.keys)
        verdict = check(load.history, at_rest, lag.result(), list(load.tools.families.values() if load.tools else ()))
        left = await asyncio.to_thread(remove_keys, RedisServer(redis.url, None), deployment.keys)
        verdict.stuck += [f"key without TTL: {name}" for name in left]
        _check_processes(deployment, await deployment.stop(), verdict)
        found = recoveries(load.history, [strike for strike in faults.strikes if strike.alone])
        return Run(load.history, faults, verdict, found, lag.result())
    finally:
        await own.aclose()
        await deployment.end()
        await proxy.close()
        await redis.end()


async def _bounded(running: Coroutine[None, None, Run], limit: float) -> Run:
    """Run for `limit` seconds at most; on SIGTERM, too, end all processes that were started."""
    task = asyncio.ensure_future(asyncio.wait_for(running, limit))
    asyncio.get_running_loop().add_signal_handler(SIGTERM, task.cancel)
    return await task


def _check_processes(deployment: Deployment, exits: list[int], verdict: Verdict) -> None:
    """All remaining processes end cleanly, none had a defect, and neither they nor Redis wrote a secret."""
    verdict.stuck += [f"a process ended with {code} on SIGTERM" for code in exits if code]
    logs = deployment.logs()
    verdict.stuck += [line for line in logs.splitlines() if "Traceback" in line or '"level": "error"' in line]
    written = {"a log": logs.encode()}
    written |= {path.name: path.read_bytes() for path in deployment.redis.folder.rglob("appendonly*") if path.is_file()}
    verdict.lost += [
        f"{what} in clear in {place}"
        for what, secret in SECRETS.items()
        for place, content in written.items()
        if secret.search(content)
    ]


async def _lag() -> float:
    worst, step = 0.0, 0.05
    try:
        while True:
            before = time.monotonic()
            await asyncio.sleep(step)
            worst = max(worst, time.monotonic() - before - step)
    except asyncio.CancelledError:
        return worst


def report(done: Run, seconds: float, seed: int) -> dict[str, Any]:
    """Return all figures, ready for JSON."""
    verdict, strikes = done.verdict, done.faults.strikes
    operations = done.history.operations()
    clients = sorted(time for recovery in done.recoveries for time in recovery.clients)
    return {
        "seconds": seconds,
        "seed": seed,
        "processors": os.cpu_count(),
        "clients": CLIENTS,
        "logins": verdict.logins,
        "faults": len(strikes),
        "faults_by_kind": Counter(strike.kind for strike in strikes),
        "lost": verdict.lost,
        "doubled": verdict.doubled,
        "stuck": verdict.stuck,
        "dropped_without_key": verdict.dropped,
        "tokens": {name: value for name, value in vars(verdict.families).items() if isinstance(value, int)},
        "ends": Counter(attempt.ended_as for attempt in done.history.attempts),
        "operations": Counter(f"{operation.kind} {operation.result}" for operation in operations),
        "longest": {
            kind: round(max((o.ended - o.started - o.bound for o in operations if o.kind == kind), default=0.0), 3)
            for kind in ("initiate", "complete", "poll")
        },
        "recovery_p50": round(quantile(clients, 0.5), 3),
        "recovery_p99": round(quantile(clients, 0.99), 3),
        "recoveries": {
            recovery.kind: {
                "faults": recovery.faults,
                "clients": len(recovery.clients),
                "client_p50": round(quantile(recovery.clients, 0.5), 3),
                "client_p99": round(quantile(recovery.clients, 0.99), 3),
                "client_max": round(max(recovery.clients, default=0.0), 3),
                "relay_max": round(max(recovery.relay, default=0.0), 3),
                "client_times": [round(time, 3) for time in recovery.clients],
                "relay_times": [round(time, 3) for time in recovery.relay],
                "limit": LIMITS.get(recovery.kind),
                "within_limit": recovery.within_limit,
            }
            for recovery in done.recoveries
        },
        "lag": round(done.lag, 3),
    }


def print_report(figures: dict[str, Any]) -> None:
    """Print the report for people; the line with the verdict comes last."""
    for kind, count in sorted(figures["faults_by_kind"].items()):
        print(f"  {count:4} x {kind}")
    print("  recovery, each fault alone (seconds)     clients     p50     p99     max   relay")
    for kind, row in figures["recoveries"].items():
        times = "".join(f"{row[name]:8.2f}" for name in ("client_p50", "client_p99", "client_max", "relay_max"))
        print(
            f"  {row['faults']:4} x {kind:30} {row['clients']:10}{times}{'' if row['within_limit'] else '  TOO SLOW'}"
        )
    if figures["dropped_without_key"]:
        print(
            f"  {figures['dropped_without_key']} tokens went to a dropped connection of a poll without Idempotency-Key"
        )
    print("  tokens " + ", ".join(f"{value} {name}" for name, value in figures["tokens"].items()))
    print(f"  operations {dict(figures['operations'])}")
    print(f"  ends {dict(figures['ends'])}, this process at most {figures['lag']:.2f} s late")
    for name in ("lost", "doubled", "stuck"):
        for case in figures[name][:20]:
            print(f"  {name}: {case}")
    print(
        f"chaos: {figures['logins']} logins, {figures['faults']} faults, {len(figures['lost'])} lost, "
        f"{len(figures['doubled'])} doubled, {len(figures['stuck'])} stuck, "
        f"recovery p50/p99 {figures['recovery_p50']:.2f}/{figures['recovery_p99']:.2f} s"
    )


def main() -> int:
    """Run as the command line says; returns the exit code."""
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="length of the attack (default: 60)")
    parser.add_argument("--seed", type=int, help="what decides the schedule (default: a new one)")
    parser.add_argument("--json", type=Path, default=Path("build/chaos.json"), help="where the figures go")
    arguments = parser.parse_args()
    seed = random.SystemRandom().randrange(1_000_000) if arguments.seed is None else arguments.seed
    print(f"chaos: {arguments.seconds:g} s, seed {seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="login-relay-chaos-") as folder:
        done = uvloop.run(_bounded(run(arguments.seconds, seed, Path(folder)), arguments.seconds + 4 * DRAIN))
    figures = report(done, arguments.seconds, seed)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    print_report(figures)
    return 0 if done.verdict.holds and all(recovery.within_limit for recovery in done.recoveries) else 1


if __name__ == "__main__":
    sys.exit(main())

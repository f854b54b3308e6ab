"""Load from `wrk`: the same few lines of Lua for every server, with requests that are built before the clock starts."""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

SCRIPT = """
wrk.method = {method}
wrk.path = {path}
for name, value in pairs({headers}) do wrk.headers[name] = value end

local requests, position = {{}}, 0

function init()
  for body in io.lines({bodies}) do requests[#requests + 1] = wrk.format(nil, nil, nil, body) end
end

function request()
  position = position % #requests + 1
  return requests[position]
end

function done(summary, latency)
  local errors = summary.errors
  local file = io.open({result}, 'w')
  file:write(string.format('{{"requests": %d, "microseconds": %d, "refused": %d, "broken": %d, "p50": %d, "p99": %d}}',
    summary.requests, summary.duration, errors.status, errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50), latency:percentile(99)))
  file:close()
end
"""
# `errors.status` counts answers of 400 and more.


class Load(NamedTuple):
    """The requests to a server."""

    port: int
    path: str
    headers: Mapping[str, str]
    bodies: Sequence[str]
    """One line each. They are sent in turn, and again from the first when they are used up."""
    refused: bool = False
    """Whether the expected answer is an error: OAuth answers so while a login is pending."""
    method: str = "POST"


class Answered(NamedTuple):
    """The figures of a load."""

    per_second: float
    p50_ms: float
    p99_ms: float
    requests: int


def wrk(load: Load, *, connections: int, seconds: int) -> Answered:
    """Send requests over `connections`, each as soon as the one before is answered; return the figures.

    Raises:
        RuntimeError: an answer was not of the expected kind, or a connection broke: the figures would mean nothing.

    """
    with tempfile.TemporaryDirectory(prefix="login-relay-wrk-") as folder:
        script, bodies, result = (Path(folder) / name for name in ("load.lua", "bodies", "result.json"))
        bodies.write_text("".join(f"{body}\n" for body in load.bodies))
        headers = ", ".join(f"[{_quoted(name)}] = {_quoted(value)}" for name, value in load.headers.items())
        script.write_text(
            SCRIPT.format(
                method=_quoted(load.method),
                path=_quoted(load.path),
                headers=f"{{{headers}}}",
                bodies=_quoted(str(bodies)),
                result=_quoted(str(result)),
            )
        )
        subprocess.run(
            [
                *(shutil.which("wrk") or "wrk", "--threads", "1", "--connections", str(connections)),
                *("--duration", f"{seconds}s", "--timeout", "10s", "--script", str(script)),
                f"http://127.0.0.1:{load.port}",
            ],
            check=True,
            capture_output=True,
        )
        answered = json.loads(result.read_text())
    expected = answered["requests"] if load.refused else 0
    if not answered["requests"] or answered["refused"] != expected or answered["broken"]:
        message = f"{load.path}: {answered}"
        raise RuntimeError(message)
    return Answered(
        answered["requests"] / answered["microseconds"] * 1e6,
        answered["p50"] / 1000,
        answered["p99"] / 1000,
        answered["requests"],
    )


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"

"""Renders the results as a page of tables. What was not measured is left out."""

from typing import Any

from bench.report.targets import targets

TWO_DIGITS = 100  # below this, fractions matter

REQUESTS = {
    "mechanical": "the mechanical floor: an ASGI route and one `GET`",
    "careful": "the careful floor: a typed handler and one `GET`",
    "poll": "pending poll",
    "initiate": "initiate",
    "complete": "complete (through the worker)",
    "consume": "poll that gets the token (through the worker)",
    "login": "a whole login: these four requests",
    "refresh": "refresh that replaces its token (through the worker)",
    "introspect": "introspection of an access token",
    "key_set": "key set of a project",
}
RIVAL_NAMES = ("oidc-provider", "django-oauth-toolkit")
RIVALS = {
    f"{rival} {kind}": f"`{rival}`: {title}"
    for kind, title in {
        "poll": "pending token request",
        "initiate": "device authorization request",
        "login": "a whole login, with the person's requests",
    }.items()
    for rival in RIVAL_NAMES
}


def page(results: dict[str, Any]) -> str:
    """Return the page in Markdown."""
    sections = [
        "# Benchmarks",
        "Written by `make bench` and `make bench-rivals`; [how it is measured](../bench/README.md).",
        "![The figures below, drawn](benchmarks.svg)",
        _machines(results),
        "## Targets",
        _targets(results),
    ]
    if "cost" in results:
        sections += ["## Cost of a request", _on(results["cost"]), _cost(results["cost"]["cases"])]
    if "latency" in results:
        sections += [
            "## Latency, one request at a time",
            _on(results["latency"]),
            _latency(results["latency"]["cases"]),
        ]
    sections += _tokens(results)
    if "rivals" in results:
        rival = results["rivals"]
        sections += [
            "## Beside other servers with a device flow",
            _on(rival),
            _beside(rival["cases"]),
            _latency(rival["latencies"]),
        ]
    if "observing" in results:
        sections += ["## What metrics and logs cost", _on(results["observing"]), _observing(results["observing"])]
    if "logins" in results:
        sections += ["## A whole login", _on(results["logins"]), _logins(results["logins"])]
    if "time_to_token" in results:
        sections += [
            "## Time to token",
            "From the backend's complete sent to the token received by the tool, which waits on a held poll.",
            _on(results["time_to_token"]),
            _time_to_token(results["time_to_token"]["waiting"]),
        ]
    if "drain" in results:
        sections += ["## Workers draining a backlog", _on(results["drain"]), _drain(results["drain"]["workers"])]
    if "memory" in results:
        sections += ["## Memory", results["memory"]["machine"]["at"], _memory(results["memory"])]
    if "growth" in results:
        sections += [
            "## With many live sessions",
            _on(results["growth"]),
            _populated(results["growth"]),
            _growth(results["growth"]),
        ]
    return "\n\n".join(sections) + "\n"


def _tokens(results: dict[str, Any]) -> list[str]:
    """Return the section of tokens, if they were measured."""
    if "tokens" not in results:
        return []
    tokens = results["tokens"]
    return ["## Tokens", _on(tokens), _cost(tokens["cases"]), _latency(tokens["latencies"])]


def _machines(results: dict[str, Any]) -> str:
    """Return a line for each machine on which sections were measured."""
    lines = {
        f"{on['cores']} cores ({on['processor']}), {on['system']}, Python {on['python']}, "
        + ", ".join(f"{name} {version}" for name, version in on["versions"].items()): None
        for on in (section["machine"] for section in results.values())
    }
    return "\n".join(f"- {line}" for line in lines)


def _on(section: dict[str, Any]) -> str:
    return f"{section['machine']['at']}; median of {section['rounds']} rounds, least to greatest in brackets."


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _spread(value: dict[str, Any], digits: int = 0, unit: str = "") -> str:
    median, least, greatest = (f"{value[name]:,.{digits}f}" for name in ("median", "least", "greatest"))
    return f"{median}{unit} ({least} – {greatest})"


def _targets(results: dict[str, Any]) -> str:
    levels = [int(live) for live in results.get("growth", {}).get("levels", {"0": {}})]
    rows = []
    for target in targets(max(levels)):
        value = target.value(results)
        if value is not None:
            verdict = "met" if target.is_met(value) else "**missed**"
            rows.append([target.what, target.bound, f"{_rounded(value)}{target.unit}", verdict])
    return _table(["", "target", "measured", ""], rows)


def _rounded(value: float) -> str:
    return f"{value:.2f}" if value < TWO_DIGITS else f"{value:,.0f}"


def _cost(cases: dict[str, Any]) -> str:
    rows = [
        [
            title,
            _spread(case["cpu_us"], 0, " µs"),
            " / ".join(f"{case[f'{part}_us']['median']:,.0f}" for part in ("api", "worker", "redis")),
            f"{case['cpu_us_to_mechanical']['median']:.1f} ×",
            f"{case['cpu_us_to_careful']['median']:.1f} ×",
            _spread(case["per_second"]),
            f"{case['per_second_to_careful']['median']:.2f} ×",
        ]
        for name, title in (REQUESTS | RIVALS).items()
        if (case := cases.get(name))
    ]
    head = ["64 connections", "CPU of one", "of it API / worker / Redis", "of the mechanical floor's"]
    return _table([*head, "of the careful floor's", "per second", "of the careful floor's"], rows)


def _latency(cases: dict[str, Any]) -> str:
    rows = [
        [
            title,
            _spread(case["p50_ms"], 2, " ms"),
            f"{case['p50_to_careful']['median']:.1f} ×",
            _spread(case["p99_ms"], 2, " ms"),
        ]
        for name, title in (REQUESTS | RIVALS).items()
        if (case := cases.get(name))
    ]
    return _table(["", "p50", "of the careful floor's", "p99"], rows)


def _beside(cases: dict[str, Any]) -> str:
    rows = [
        [
            title,
            _spread(case["per_second"]),
            f"{case['per_second_to_careful']['median']:.2f} ×",
            _spread(case["cpu_us"], 0, " µs"),
            *(_ratios(case, f"{rival} {name}") for rival in RIVAL_NAMES),
        ]
        for name, title in (REQUESTS | RIVALS).items()
        if (case := cases.get(name))
    ]
    head = ["64 connections", "per second", "of the careful floor's", "CPU of one"]
    return _table([*head, *(f"rate and CPU, of `{rival}`'s" for rival in RIVAL_NAMES)], rows)


def _ratios(case: dict[str, Any], base: str) -> str:
    """Return the ratios of rate and CPU time; nothing if this is no request of ours."""
    both = [case.get(f"{field}_to_{base}") for field in ("per_second", "cpu_us")]
    return ", ".join(f"{each['median']:.2f} ×" for each in both if each)


def _observing(observing: dict[str, Any]) -> str:
    cases = observing["cases"]
    ratio = observing["to_unobserved"]
    rows = [
        ["metrics and request log on, as it comes", _spread(cases["observed"]), _spread(ratio, 3, " ×")],
        ["neither", _spread(cases["unobserved"]), ""],
    ]
    return _table(["pending polls", "per second", "of neither"], rows)


def _logins(logins: dict[str, Any]) -> str:
    rows = [
        ["one after the other, from initiate to token, p50", _spread(logins["p50_ms"], 1, " ms")],
        ["64 at once", _spread(logins["per_second"], 0, " logins/s")],
    ]
    return _table(["initiate, pending poll, complete, poll with the token", ""], rows)


def _time_to_token(waiting: dict[str, Any]) -> str:
    rows = [
        [f"{int(count):,}", _spread(times["p50_ms"], 1, " ms"), _spread(times["p99_ms"], 1, " ms")]
        for count, times in waiting.items()
    ]
    return _table(["waiting", "p50", "p99"], rows)


def _drain(workers: dict[str, Any]) -> str:
    rows = [[count, _spread(rate, 0, "/s")] for count, rate in workers.items()]
    return _table(["workers", "transitions"], rows)


def _memory(memory: dict[str, Any]) -> str:
    parts = {
        "API, per held poll": f"{memory['kib_per_held_poll']:.1f} KiB, with {memory['held_polls']:,} held",
        "the floor, per held request": f"{memory['kib_per_held_request_of_the_floor']:.1f} KiB",
        "API, to hold them": f"{memory['cpu_percent_while_holding']:.1f} % of a core",
        "API, another poll meanwhile": f"{memory['poll_while_holding_ms']:.1f} ms",
        "Redis, per live session": f"{memory['redis_bytes_per_session']:,.0f} B",
        "of which its hash": f"{memory['of_which_session']:,.0f} B",
        "of which its login code": f"{memory['of_which_login_code']:,.0f} B",
        "of which its place in the index of deadlines": f"{memory['of_which_index_of_deadlines']:,.0f} B",
        "Redis, per event on the public stream (a day)": f"{memory['event_bytes']:,.0f} B",
    }
    return _table(["", ""], [[name, value] for name, value in parts.items()])


def _growth(growth: dict[str, Any]) -> str:
    rows = []
    for kind in ("polls", "completes", "initiates"):
        for live, case in growth[kind].items():
            rows.append(
                [
                    f"{kind}, {int(live):,}",
                    _spread(case["per_second"]),
                    f"{case['per_second_to_least']['median']:.2f} ×",
                    _spread(case["cpu_us"], 0, " µs"),
                    f"{case['cpu_us_to_least']['median']:.2f} ×",
                    f"{case['redis_us']['median']:.0f} µs",
                ]
            )
    head = [
        "64 connections, live sessions",
        "per second",
        "of the fewest",
        "CPU of one",
        "of the fewest",
        "of it Redis",
    ]
    return _table(head, rows)


def _populated(growth: dict[str, Any]) -> str:
    most, level = max(growth["levels"].items(), key=lambda item: int(item[0]))
    return (
        f"{int(most):,} sessions were initiated at {level['created_per_second']:,.0f} a second. With their events and "
        f"all indexes they take {level['redis_bytes_per_session']:,.0f} B each."
    )

"""`login-relay top`: whether logins flow, at a glance, for as long as one looks."""

import asyncio
import re
import sys
from collections.abc import Container, Mapping, Sequence

import click
import msgspec
from rich._export_format import CONSOLE_SVG_FORMAT  # private: if it moves, keep a copy of the template here
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from events.cursor import Cursor, last_before
from events.log import EventLog
from login_relay.operate.activity import (
    CONSUMED,
    WINDOW,
    Activity,
    Latency,
    Part,
    RecentSession,
)
from login_relay.operate.relay import Relay, json_option, on_relay
from login_relay.operate.status import (
    PartitionStatus,
    read_partitions,
)
from login_relay.operate.tables import age, printable
from runtime.clock import redis_now, rfc3339
from statemachine.events import STATE_AFTER
from statemachine.lifecycle import ENDS, State
from statemachine.store.workers import WorkerStatus, read_workers

LOOK_BACK = 300_000  # milliseconds; sessions that began before are counted, without the time they took
WORKERS_SHOWN, SESSIONS_KEPT = 4, 20
BARS = " ▁▂▃▄▅▆▇█"
# Rich's, without the fonts that it would have a viewer fetch from elsewhere.
_SVG = re.sub(r"@font-face \{\{.*?\}\}|<!--.*?-->", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
LOST = ENDS - {State.CONSUMED}
"""The ends of sessions that did not become a login; they have a line of their own."""
COLOURS: Mapping[State, str] = {
    **{state: "red" if state in LOST else "yellow" for state in State},
    State.COMPLETED: "cyan",
    State.CONSUMED: "green",
}


class Snapshot(msgspec.Struct, frozen=True):
    """One look, as `--once --json` prints it. Fields are only ever added."""

    at: str
    """RFC 3339, Redis time."""
    window_s: int
    logins_per_s: float
    """Tokens handed over, over the window."""
    events: dict[str, int]
    """How many events of each type there were in the window."""
    latencies: dict[str, Latency | None]
    partitions: list[PartitionStatus]
    workers: list[WorkerStatus]
    sessions: list[RecentSession]
    """Those that changed last, the latest first."""


class Watch:
    """Keeps an `Activity` up to date and looks at the rest."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._log = EventLog(relay.keys)
        self._activity = Activity()
        self._cursor: Cursor | None = None

    async def look(self) -> tuple[Snapshot, list[int]]:
        """Read all that is new; returns it with the logins of each second of the window, the oldest first."""
        redis = self._relay.redis
        now = await redis_now(redis)
        cursor = self._cursor or await self._log.after(redis, last_before(now - LOOK_BACK))
        complete = False
        while not complete:
            batch = await self._log.read(redis, cursor)
            for event in batch.events:
                self._activity.add(event)
            cursor, complete = batch.cursor, batch.complete
        self._cursor = cursor
        activity = self._activity
        activity.forget(now)
        counts = activity.counts()
        snapshot = Snapshot(
            at=rfc3339(now),
            window_s=WINDOW,
            logins_per_s=round(counts[CONSUMED] / WINDOW, 2),
            events=counts,
            latencies={part.value: activity.latency(part) for part in Part},
            partitions=await read_partitions(self._relay),
            workers=await read_workers(self._relay.redis, self._relay.keys),
            sessions=activity.recent(SESSIONS_KEPT),
        )
        return snapshot, activity.per_second(CONSUMED, now)


@click.command()
@click.option("--once", is_flag=True, help="Look once and end.")
@click.option("--interval", type=click.FloatRange(0.2, 60), default=1.0, show_default=True, help="Seconds per look.")
@click.option("--svg", type=click.Path(dir_okay=False, writable=True), help="With --once: draw it into this file.")
@json_option
@on_relay
async def top(relay: Relay, *, once: bool, interval: float, svg: str | None, as_json: bool) -> None:
    """Show logins, their times, the backlog, the workers and the latest sessions, live.

    Ctrl-C ends it. --once --json prints one object, for a program to read.
    """
    if not once and (as_json or svg):
        message = "only with --once"
        raise click.BadOptionUsage("json" if as_json else "svg", f"--{'json' if as_json else 'svg'}: {message}")
    watch = Watch(relay)
    if once:
        await _once(watch, svg, as_json=as_json)
        return
    if not sys.stdout.isatty():
        message = "the live view needs a terminal; --once prints it"
        raise click.UsageError(message)
    console = Console()
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            snapshot, logins = await watch.look()
            live.update(frame(snapshot, logins, console.height), refresh=True)
            await asyncio.sleep(interval)


async def _once(watch: Watch, svg: str | None, *, as_json: bool) -> None:
    snapshot, logins = await watch.look()
    if as_json:
        click.echo(msgspec.json.encode(snapshot))
        return
    console = Console(width=80, record=True) if svg else Console()
    console.print(frame(snapshot, logins, 24))
    if svg:
        console.save_svg(svg, title="login-relay top", code_format=_SVG)


def frame(snapshot: Snapshot, logins: Sequence[int], height: int) -> RenderableType:
    """Draw a snapshot into so many lines; 80 columns are enough for it."""
    workers = snapshot.workers[:WORKERS_SHOWN]
    alive = sum(worker.alive for worker in snapshot.workers)
    lines = 12 + max(1, len(workers))  # that are not sessions
    return Group(
        Text.assemble(("login-relay", "bold"), f"  {snapshot.at[11:19]} UTC, the last {snapshot.window_s} s"),
        _logins(snapshot, logins),
        Rule("stream", style="dim", align="left"),
        _stream(snapshot.partitions),
        Rule(f"workers: {alive} alive", style="dim", align="left"),
        _workers(workers),
        Rule("latest sessions", style="dim", align="left"),
        _sessions(snapshot.sessions, height - lines),
    )


def _logins(snapshot: Snapshot, logins: Sequence[int]) -> RenderableType:
    return Group(
        Text.assemble((f"{snapshot.logins_per_s:7.1f}", "bold green"), " logins/s ", (_bars(logins), "green")),
        _counts(snapshot, frozenset(State) - LOST),
        _counts(snapshot, LOST),
        _took("initiate to complete", snapshot.latencies[Part.INITIATE_TO_COMPLETE]),
        _took("complete to consume", snapshot.latencies[Part.COMPLETE_TO_CONSUME]),
    )


def _counts(snapshot: Snapshot, states: Container[State]) -> Text:
    text = Text(overflow="ellipsis", no_wrap=True)
    for event_type, state in STATE_AFTER.items():
        if state in states:
            name, count = event_type.removeprefix("session."), snapshot.events[event_type]
            text.append(f"{name} ").append(f"{count}   ", style=f"bold {COLOURS[state]}")
    return text


def _took(what: str, latency: Latency | None) -> Text:
    text = Text(f"{what:22}")
    if latency is None:
        return text.append("-")
    for milliseconds, name in ((latency.median_ms, "median"), (latency.p95_ms, "95 %"), (latency.max_ms, "longest")):
        text.append(f"{age(milliseconds):>8}", style="bold").append(f" {name}  ")
    return text


def _bars(values: Sequence[int]) -> str:
    most = max(*values, 1)
    return "".join(BARS[-(-value * (len(BARS) - 1) // most)] for value in values)


def _stream(partitions: Sequence[PartitionStatus]) -> Text:
    unread = max((row.oldest_unread_ms or 0 for row in partitions), default=0)
    pending = max((row.oldest_pending_ms or 0 for row in partitions), default=0)
    dead_letters = sum(row.dead_letters for row in partitions)
    return Text.assemble(
        "backlog ",
        (f"{sum(row.backlog for row in partitions)}", "bold"),
        f"   pending {sum(row.pending for row in partitions)}",
        f"   oldest unread {age(unread or None)}   oldest pending {age(pending or None)}   ",
        (f"dead letters {dead_letters}", "bold red" if dead_letters else ""),
    )


def _workers(workers: Sequence[WorkerStatus]) -> RenderableType:
    if not workers:
        return Text("No worker has been seen.", style="bold red")
    table = _table({"worker": None, "alive": 5, "pending": 10, "read": 15, "up": 10}, show_header=False)
    for worker in workers:
        table.add_row(
            Text(worker.consumer),
            Text("alive", style="green") if worker.alive else Text("gone", style="red"),
            f"{worker.pending} pending",
            f"read {age(worker.idle_ms)} ago",
            f"up {age(worker.up_ms)}",
        )
    return table


def _sessions(sessions: Sequence[RecentSession], count: int) -> RenderableType:
    table = _table({"session": 26, "state": 9, "since": 8, "took": 7, "client": None, "for": None})
    for session in sessions[: max(0, count)]:
        took = None if session.initiated_at is None else session.changed_at - session.initiated_at
        table.add_row(
            session.session_id,
            Text(session.state, style=COLOURS[session.state]),
            rfc3339(session.changed_at)[11:19],
            "-" if session.state == State.PENDING else age(took),
            printable(session.client),
            printable(session.login_subject),
        )
    return table if sessions else Text("None in the last minutes.", style="dim")


def _table(widths: Mapping[str, int | None], *, show_header: bool = True) -> Table:
    """Return an empty table as wide as the terminal; columns without a width share what is left."""
    table = Table(
        box=None, expand=True, pad_edge=False, padding=(0, 2, 0, 0), show_header=show_header, header_style="dim"
    )
    for head, width in widths.items():
        ratio = 1 if width is None else None
        table.add_column(head, width=width, ratio=ratio, no_wrap=True, overflow="ellipsis")
    return table

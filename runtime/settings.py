"""All settings: environment variables `LOGIN_RELAY_…`, read into one frozen Struct by the composition roots only.

The table in the README is generated from this file.
"""

import difflib
import re
from collections.abc import Mapping
from ipaddress import IPv4Address, ip_address, ip_network
from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta

from runtime.address import Network
from runtime.codes import MAX_PARTITIONS
from runtime.errors import SettingError

PREFIX = "LOGIN_RELAY_"

NOT_SETTINGS = frozenset({f"{PREFIX}PUBLISHABLE_KEY"})
"""Variables with the same prefix that only the `login` command reads."""

MAX_PORT = 65_535

_LABEL = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"  # RFC 1123 §2.1
_ORIGIN = re.compile(
    rf"(?P<scheme>https?)://(?:(?P<name>{_LABEL}(?:\.{_LABEL})*)|\[(?P<address>[0-9a-f:.]+)\])"
    r"(?::(?P<port>[1-9][0-9]{0,4}))?"
)

Milliseconds = Annotated[int, Meta(ge=1)]
Count = Annotated[int, Meta(ge=1, le=1_000_000_000)]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of every process. Times are in milliseconds, as in Redis, unless the name ends in `_s`."""

    redis_url: Annotated[
        str | None,
        Meta(description="`redis://`, `rediss://` or `unix://` URL. Unset: the embedded server of the state folder."),
    ] = None
    redis_url_file: Annotated[
        str | None,
        Meta(description="File that holds that URL, if it has a password. `LOGIN_RELAY_REDIS_URL` takes precedence."),
    ] = None
    redis_memory_mb: Annotated[
        int,
        Meta(
            ge=64,
            le=1 << 20,
            description="Memory in MiB of the Redis that `serve` or `docker-compose.yml` starts. Half of it is for the "
            "data (`maxmemory`; when that is full, new logins are refused), half for rewriting the append-only file. "
            "The default has room for what the default budgets allow two projects at worst.",
        ),
    ] = 4_096
    state_dir: Annotated[
        str, Meta(min_length=1, description="Folder of the embedded server: its data, its log, its socket.")
    ] = ".login-relay"
    host: Annotated[str, Meta(min_length=1, description="Address that the API listens on.")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=1, le=MAX_PORT, description="Port that the API listens on.")] = 8000
    prefix: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9_.:-]{1,64}$(?!\n)",  # in Python `$` also matches before a last line feed
            description="Start of every Redis key. With different prefixes, deployments can share a Redis.",
        ),
    ] = "lr"
    partitions: Annotated[
        int,
        Meta(
            ge=1,
            le=MAX_PARTITIONS,
            description="Number of hash tags over which sessions are spread. It is fixed for the life of a deployment.",
        ),
    ] = 1
    session_lifetime_ms: Annotated[
        int,
        Meta(
            ge=1_000,
            le=86_400_000,
            description="Lifetime of a session if its tool does not ask for one. A tool may ask for 1 s to 24 h.",
        ),
    ] = 900_000
    longest_lifetime_ms: Annotated[
        int,
        Meta(
            ge=1_000,
            le=86_400_000,
            description="Longest life of a session in projects that allow no other (`projects create "
            "--longest-lifetime`); what is longer is cut to it.",
        ),
    ] = 1_800_000
    pickup_window_ms: Annotated[
        int,
        Meta(
            ge=1_000,
            description="A session completed in time can be consumed at least this long after its completion.",
        ),
    ] = 120_000
    poll_interval_s: Annotated[
        int,
        Meta(
            ge=1,
            le=60,
            description="Seconds that a tool should wait between polls (`interval` in the answer to initiate).",
        ),
    ] = 2
    long_poll_max_s: Annotated[
        int, Meta(ge=0, le=300, description="Longest time in seconds that `Prefer: wait=N` holds a pending poll.")
    ] = 30
    hold_polls_s: Annotated[
        int,
        Meta(
            ge=0,
            le=60,
            description="Hold every pending poll for this many seconds, even if it does not ask for it (0: never).",
        ),
    ] = 0
    hold_token_requests_s: Annotated[
        int,
        Meta(
            ge=0,
            le=25,
            description="The same for OAuth clients that wait for their token (0: never). Some give a request up after "
            "30 s.",
        ),
    ] = 25
    held_polls_max: Annotated[
        int,
        Meta(
            ge=0,
            description="Polls that an API process holds at a time; further ones are answered immediately. The process "
            "accepts 16 384 connections, and other requests need some of them.",
        ),
    ] = 12_000
    outcome_wait_ms: Annotated[
        Milliseconds, Meta(description="How long a request waits for a worker before it answers 503.")
    ] = 5_000
    backlog_limit: Annotated[
        int,
        Meta(ge=1, description="Most undecided commands in a partition; beyond it new ones are refused with 503."),
    ] = 100_000
    replay_window_ms: Annotated[
        Milliseconds,
        Meta(description="How long a poll with the same Idempotency-Key receives a consumed token again."),
    ] = 60_000
    idempotency_ms: Annotated[
        Milliseconds, Meta(description="How long a completion's outcome is kept for its Idempotency-Key.")
    ] = 86_400_000
    refresh_token_idle_ms: Annotated[
        int,
        Meta(
            ge=60_000,
            le=400 * 86_400_000,
            description="A refresh token that the relay minted ends when it is not used for so long, at most 400 days. "
            "Until then Redis remembers it: about 1 KiB each.",
        ),
    ] = 30 * 86_400_000
    refresh_token_life_ms: Annotated[
        int,
        Meta(
            ge=60_000,
            le=400 * 86_400_000,
            description="A login ends so long after it was completed, however often its refresh token is used.",
        ),
    ] = 365 * 86_400_000
    retention_ms: Annotated[
        Milliseconds,
        Meta(description="How long a session is kept after its deadline, and an event on its stream."),
    ] = 86_400_000
    abandoned_retention_ms: Annotated[
        Milliseconds,
        Meta(
            description="How long a session that nobody completed is remembered after its deadline or end; never "
            "longer than `LOGIN_RELAY_RETENTION_MS`."
        ),
    ] = 600_000
    events_max: Annotated[
        Count,
        Meta(description="Events kept, over all partitions; beyond it the oldest are trimmed, however young."),
    ] = 1_000_000
    project_cache_ms: Annotated[
        int,
        Meta(ge=0, le=5_000, description="How long an API process may use its cached copy of a project."),
    ] = 5_000
    block_ms: Annotated[
        Milliseconds, Meta(description="How long a worker's read of the stream may block (XREADGROUP BLOCK).")
    ] = 1_500
    socket_timeout_ms: Annotated[
        Milliseconds, Meta(description="A blocking connection that is silent for this long is considered lost.")
    ] = 4_500
    min_idle_ms: Annotated[
        Milliseconds,
        Meta(description="An entry that has been pending for this long is taken over from its worker (XAUTOCLAIM)."),
    ] = 2_000
    reclaim_period_ms: Annotated[Milliseconds, Meta(description="How often a worker looks for such entries.")] = 500
    sweep_period_ms: Annotated[Milliseconds, Meta(description="How often a worker expires sessions that are due.")] = (
        1_000
    )
    max_deliveries: Annotated[
        int, Meta(ge=1, description="An entry delivered more often than this goes to the dead letters.")
    ] = 5
    shutdown_grace_ms: Annotated[
        Milliseconds, Meta(description="How long a process may take to finish its work after SIGTERM.")
    ] = 10_000
    request_timeout_ms: Annotated[
        int,
        Meta(
            ge=100,
            description="How long a client may take to send the head of a request, and again for its body. An idle "
            "connection is closed after the same time, so a proxy must close its idle connections sooner.",
        ),
    ] = 10_000
    trusted_proxies: Annotated[
        str,
        Meta(
            description="Networks (CIDR, separated by commas) of the proxies whose `Forwarded` and `X-Forwarded-For` "
            "headers are trusted to name the client's address."
        ),
    ] = ""
    budget_window_ms: Annotated[
        Milliseconds, Meta(description="How long wrong codes and initiations are counted until the count starts again.")
    ] = 600_000
    wrong_codes_per_address: Annotated[
        Count,
        Meta(description="Wrong codes of one client address (IPv6: one /64) a window; more are answered with 429."),
    ] = 100
    wrong_codes_per_key: Annotated[Count, Meta(description="The same for one key of a project.")] = 1_000
    wrong_codes_per_project: Annotated[Count, Meta(description="The same for one project.")] = 2_000
    initiations_per_address: Annotated[
        Count,
        Meta(description="Sessions that one client address may initiate in one project a window; more get 429."),
    ] = 3_000
    initiations_per_project: Annotated[Count, Meta(description="The same for one project.")] = 60_000
    live_sessions_per_project: Annotated[
        Count,
        Meta(description="Sessions of one project that are remembered and not consumed, beyond which none is added."),
    ] = 100_000
    live_sessions_per_address: Annotated[
        Count, Meta(description="The same for one client address in one project (IPv6: one /64).")
    ] = 1_000
    throttle_polls: Annotated[
        bool,
        Meta(description="Answer 429 to polls of a pending session that come less than 0.8 intervals after the last."),
    ] = False
    admin_jwks_file: Annotated[
        str | None,
        Meta(description="JWKS file with the public keys for admin access tokens. Unset: all such tokens are refused."),
    ] = None
    admin_issuer: Annotated[
        str | None,
        Meta(description="Issuer of admin access tokens, compared with `iss`. Required with the JWKS file."),
    ] = None
    admin_audience: Annotated[
        str | None,
        Meta(description="Audience of admin access tokens: `aud` must be or contain it. Required with the JWKS file."),
    ] = None
    admin_token_max_age_s: Annotated[
        int, Meta(ge=1, description="Longest lifetime in seconds of an admin access token, from `iat` to `exp`.")
    ] = 3_600
    admin_projects_claim: Annotated[
        str,
        Meta(min_length=1, description="Claim of an admin access token that lists the ids of its projects."),
    ] = "project_ids"
    public_url: Annotated[
        str | None,
        Meta(
            description="Origin at which clients reach the relay, such as `https://relay.example.com`; `http://` only "
            "for loopback. The issuer of access tokens begins with it. Unset: no access tokens."
        ),
    ] = None
    keys_file: Annotated[
        str | None,
        Meta(
            description="File of the master secrets that access tokens are signed with, for API processes alone "
            "(`login-relay keys create`). Unset: no access tokens."
        ),
    ] = None
    access_token_lifetime_s: Annotated[
        int,
        Meta(
            ge=60,
            le=3_600,
            description="Lifetime of an access token in seconds: for so long it outlives a revocation, for those who "
            "do not ask the relay.",
        ),
    ] = 300
    metrics_host: Annotated[
        str, Meta(min_length=1, description="Address on which each process serves `/metrics` to Prometheus.")
    ] = "127.0.0.1"
    metrics_port: Annotated[
        Annotated[int, Meta(ge=0, le=MAX_PORT)] | None,
        Meta(description="Port of `/metrics`. Unset: the first free port from 9464 on. 0: no metrics."),
    ] = None
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="Least severe level that is logged.")
    ] = "info"
    log_format: Annotated[
        Literal["auto", "json", "console"], Meta(description="`auto`: `console` on a terminal, else `json`.")
    ] = "auto"


def variable(field: str) -> str:
    """Return the environment variable of a field of `Settings`."""
    return PREFIX + field.upper()


def load_settings(environ: Mapping[str, str]) -> Settings:
    """Read the settings from an environment. An empty variable counts as unset.

    Raises:
        SettingError: the message names the variable and the defect, never the value, which may be a secret.

    """
    known = {variable(field): field for field in Settings.__struct_fields__}
    given = {
        name: value for name, value in environ.items() if name.startswith(PREFIX) and value and name not in NOT_SETTINGS
    }
    for name in sorted(given.keys() - known.keys()):
        near = difflib.get_close_matches(name.removeprefix(PREFIX).lower(), Settings.__struct_fields__, n=1)
        hint = f"; did you mean {variable(near[0])}?" if near else ""
        message = f"{name} is not a setting{hint}"
        raise SettingError(message)
    fields = {known[name]: value for name, value in given.items()}
    try:
        settings = msgspec.convert(fields, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise SettingError(_name_the_variable(str(error))) from None
    _check_order(settings)
    trusted_networks(settings)
    if settings.public_url is not None and not is_public_url(settings.public_url):
        message = (
            f"{variable('public_url')}: Expected an origin such as https://relay.example.com, in small letters and "
            "without a path; http:// only for 127.0.0.1, [::1] or localhost"
        )
        raise SettingError(message)
    return settings


def is_public_url(text: str) -> bool:
    """Return whether `text` is an origin (RFC 6454 §6.2) with TLS, or one of this machine alone.

    Issuers are compared character by character (RFC 8414 §3.3), so only the normal form is accepted.
    """
    found = _ORIGIN.fullmatch(text)
    if found is None:
        return False
    scheme, host, port = found["scheme"], found["name"] or found["address"], found["port"]
    if port and (int(port) > MAX_PORT or int(port) == (443 if scheme == "https" else 80)):
        return False
    try:
        address = ip_address(host)
    except ValueError:
        # A name that ends in a number would be an address, if it were well-formed (WHATWG URL, host parsing).
        is_name = found["name"] is not None and not host.rpartition(".")[2].isdecimal()
        return is_name and (scheme == "https" or host == "localhost")
    is_normal = str(address) == host and isinstance(address, IPv4Address) == (found["name"] is not None)
    return is_normal and (scheme == "https" or address.is_loopback)


def trusted_networks(settings: Settings) -> tuple[Network, ...]:
    """Return the networks of the trusted proxies.

    Raises:
        SettingError: one of them is not a valid network.

    """
    try:
        return tuple(ip_network(text.strip()) for text in settings.trusted_proxies.split(",") if text.strip())
    except ValueError:
        message = f"{variable('trusted_proxies')}: Expected networks such as 10.0.0.0/8, separated by commas"
        raise SettingError(message) from None


def _name_the_variable(message: str) -> str:
    """Return msgspec's `… - at `$.port`` as `LOGIN_RELAY_PORT: …`."""
    reason, _, path = message.rpartition(" - at ")
    field = path.strip("`").removeprefix("$.")
    if reason.startswith("Invalid enum value"):  # the only message of msgspec that quotes the value
        choices = get_args(get_args(Settings.__annotations__[field])[0])
        reason = f"Expected one of {', '.join(choices)}"
    return f"{variable(field)}: {reason}"


def _check_order(settings: Settings) -> None:
    """Raise SettingError for times that would break a promise (ADR 4 explains the order)."""
    chain = (
        ("block_ms", settings.block_ms, "socket_timeout_ms", settings.socket_timeout_ms),
        (
            "min_idle_ms + reclaim_period_ms",
            settings.min_idle_ms + settings.reclaim_period_ms,
            "outcome_wait_ms",
            settings.outcome_wait_ms,
        ),
        ("outcome_wait_ms", settings.outcome_wait_ms, "session_lifetime_ms", settings.session_lifetime_ms),
        ("outcome_wait_ms", settings.outcome_wait_ms, "replay_window_ms", settings.replay_window_ms),
        ("outcome_wait_ms", settings.outcome_wait_ms, "abandoned_retention_ms", settings.abandoned_retention_ms),
    )
    for left, small, right, large in chain:
        if small >= large:
            names = " + ".join(variable(field) for field in left.split(" + "))
            message = f"{names} ({small}) must be less than {variable(right)} ({large})"
            raise SettingError(message)

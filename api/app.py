"""The API's composition root: makes a Litestar application from the settings."""

import asyncio
import contextlib
import os
import uuid
from collections.abc import AsyncIterator, Mapping
from functools import partial

from litestar import Litestar, Router

from api.event_stream.feed import Feed
from api.logins.by_login_code import ByLoginCode
from api.logins.cancelling import Cancelling
from api.logins.commanding import Commanding, Limits, answer_within
from api.logins.completing import Completing, TokenTerms
from api.logins.denying import Denying
from api.logins.guard import Guard
from api.logins.initiating import Initiating
from api.logins.inspecting import Inspecting
from api.logins.polling import Polling, pause_ms
from api.logins.waiting import Waiting
from api.oauth import routes as oauth
from api.oauth.clients import Clients
from api.oauth.dialect import OAuthDialect
from api.oauth.metadata import metadata_endpoints
from api.openapi import openapi_endpoint
from api.request.endpoint import Bounds, Endpoint, Method, Route
from api.request.health import health_endpoints
from api.request.incoming import MAX_BODY_BYTES, Incoming
from api.request.note import Noting, name_request
from api.request.time_limits import TimeLimits
from api.server.draining import DRAIN_SIGNAL
from api.shortcut import Api, OfLitestar, begin
from api.stack.access import Access
from api.stack.admin_tokens import AdminTokens
from api.stack.after_login import routes as after_login
from api.stack.after_login.anonymous import Anonymous
from api.stack.cancel import Cancel
from api.stack.complete import Complete
from api.stack.dialect import StackDialect
from api.stack.errors import REFUSALS
from api.stack.events import events_endpoint
from api.stack.headers import REQUEST_ID, shown_key
from api.stack.initiate import Initiate
from api.stack.origins import Origins, preflight_endpoint
from api.stack.poll import Poll
from api.tokens.anonymous import AnonymousSubjects
from api.tokens.claiming import Claiming
from api.tokens.commanding import FamilyCommanding
from api.tokens.introspecting import Introspecting
from api.tokens.logging_out import LoggingOut
from api.tokens.opening import OpeningFamilies
from api.tokens.refreshing import Refreshing
from api.tokens.revoking import Revoking
from api.tokens.signing_up import SigningUp
from api.tokens.upgrading import Upgrading
from events.log import EventLog
from projects.audit import Refusals
from projects.budgets import Guesses, InitiationLimits, SignUps
from projects.store import Projects
from runtime.logs import configure_logging, writes_json
from runtime.loops import keep_running
from runtime.master_secrets import MasterSecretsFile
from runtime.redis.connections import command_client, reader_client, subscriber
from runtime.redis.keys import Keys
from runtime.settings import Settings, load_settings, trusted_networks
from runtime.tracing import Tracing
from statemachine.store.command_stream import CommandStream
from statemachine.store.initiating import Initiations
from statemachine.store.reading import Sessions
from statemachine.store.retention import Retention
from tokens.access_tokens import AccessTokens
from tokens.announcing import Announcing
from tokens.signing_keys import SigningKeys
from tokens.store.claims import Claims
from tokens.store.reading import Families
from tokens.store.recording import Subjects

CANCEL_WAIT = 1.0  # seconds; a loop that has not ended by then ends with the process

PREFIXES = ("/api/v1", "/api/latest")


def _initiation_limits(settings: Settings) -> InitiationLimits:
    return InitiationLimits(
        settings.budget_window_ms,
        settings.initiations_per_address,
        settings.initiations_per_project,
        settings.live_sessions_per_project,
        settings.live_sessions_per_address,
    )


def _noting(settings: Settings, tracing: Tracing | None) -> Noting:
    spans = None
    if tracing is not None:
        from api.request.spans import RequestSpans  # noqa: PLC0415 - imports OpenTelemetry

        spans = RequestSpans(tracing)
    return Noting(
        (*REQUEST_ID, b"x-request-id"),
        spans,
        counts=settings.metrics_port != 0,
        logs=settings.log_level in {"debug", "info"},
        as_json=writes_json(settings),
    )


def _access_tokens(settings: Settings, secrets: MasterSecretsFile | None) -> AccessTokens | None:
    """Return what signs access tokens; None if the settings name no keys or no public URL."""
    if secrets is None or settings.public_url is None:
        return None
    return AccessTokens(SigningKeys(lambda: secrets.secrets), settings.public_url, settings.access_token_lifetime_s)


def create_app(  # noqa: PLR0915 - the composition, a statement a piece
    settings: Settings | None = None, tracing: Tracing | None = None
) -> Litestar:
    """Return the application. `settings` default to the environment's; without `tracing` there are no traces.

    Raises:
        SettingError: a setting is missing or wrong.

    """
    settings = settings or load_settings(os.environ)
    configure_logging(settings, name_request)
    noting = _noting(settings, tracing)
    keys = Keys(settings.prefix, settings.partitions)
    redis = command_client(settings, "login-relay:api")
    reader = reader_client(settings, "login-relay:api-reader")
    sessions = Sessions(redis, keys)
    guesses = Guesses(
        redis,
        keys,
        window_ms=settings.budget_window_ms,
        per_address=settings.wrong_codes_per_address,
        per_key=settings.wrong_codes_per_key,
        per_project=settings.wrong_codes_per_project,
    )
    refusals = Refusals(redis, keys, window_ms=settings.budget_window_ms, retention_ms=settings.retention_ms)
    stream = CommandStream(redis, keys)
    waiting = Waiting(subscriber(settings, "login-relay:api-subscriber"), sessions, keys, uuid.uuid4().hex)
    limits = Limits(
        settings.outcome_wait_ms, settings.replay_window_ms, settings.idempotency_ms, settings.backlog_limit
    )
    commanding = Commanding(stream, sessions, waiting, keys, limits)
    projects = Projects(redis, keys)
    access = Access(projects, AdminTokens.from_settings(settings), settings.project_cache_ms)
    origins = Origins(projects, access, settings.project_cache_ms)
    guard = Guard(guesses, refusals)
    initiation_limits = _initiation_limits(settings)
    retention = Retention(settings.retention_ms, settings.abandoned_retention_ms, settings.events_max)
    initiating = Initiating(
        Initiations(redis, keys, initiation_limits, retention, pickup_window_ms=settings.pickup_window_ms),
        guard,
        lifetime_ms=settings.session_lifetime_ms,
        longest_lifetime_ms=settings.longest_lifetime_ms,
    )
    time_limits = TimeLimits()
    polling = Polling(
        sessions,
        commanding,
        waiting,
        guard,
        keys,
        time_limits,
        held_max=settings.held_polls_max,
        pause_ms=pause_ms(settings.poll_interval_s) if settings.throttle_polls else 0,
    )
    by_login_code = ByLoginCode(sessions, commanding, guard, keys)
    secrets = MasterSecretsFile.from_settings(settings)
    tokens = _access_tokens(settings, secrets)
    terms = TokenTerms(settings.refresh_token_idle_ms, settings.refresh_token_life_ms)
    completing = Completing(by_login_code, commanding.reply_to, terms if tokens else None)
    inspecting = Inspecting(sessions, redis, guard, keys)
    denying = Denying(by_login_code, commanding.reply_to)
    cancelling = Cancelling(sessions, commanding, guard, keys)
    bounds = Bounds(
        reading=settings.request_timeout_ms / 1000,
        answering=answer_within(settings.outcome_wait_ms),
        trusted_proxies=trusted_networks(settings),
        incoming=Incoming(),
        time_limits=time_limits,
    )
    dialect, oauth_dialect = StackDialect(origins), OAuthDialect()
    of_litestar = OfLitestar(noting, dialect, oauth_dialect)
    families = Families(redis, keys)
    family_commanding = FamilyCommanding(redis, keys, waiting, commanding, limits)
    token_retention = retention.of_tokens(settings.replay_window_ms, settings.partitions)
    refreshing = Refreshing(families, family_commanding, guard, keys, token_retention)
    revoking = Revoking(families, family_commanding, keys)
    introspecting = Introspecting(families, keys, grace_ms=token_retention.grace_ms)
    anonymous: Anonymous | None = None
    if tokens is not None and secrets is not None:
        subjects = AnonymousSubjects(introspecting, Upgrading(family_commanding, keys))
        master_secrets = secrets
        anonymous = Anonymous(
            subjects, Claiming(Claims(redis, keys), refreshing, lambda: master_secrets.secrets), tokens
        )
    opening = OpeningFamilies(redis, keys, terms, token_retention)
    oauth_endpoints = oauth.endpoints(
        Clients(access.project, shown_key),
        oauth.UseCases(initiating, polling, cancelling, refreshing, revoking, introspecting),
        tokens,
        oauth.Times(
            settings.poll_interval_s,
            settings.hold_token_requests_s,
            settings.long_poll_max_s,
            answer_within(settings.outcome_wait_ms),
        ),
    )
    poll = Poll(access, polling, hold_s=settings.hold_polls_s, longest_hold_s=settings.long_poll_max_s)
    endpoints: dict[str, Mapping[Method, Endpoint]] = {
        "/auth/cli": {"POST": Initiate(access, initiating, settings.poll_interval_s, anonymous)},
        "/auth/cli/poll": {"POST": poll},
        "/auth/cli/complete": {"POST": Complete(access, inspecting, completing, denying, anonymous)},
        "/auth/cli/cancel": {"POST": Cancel(access, cancelling)},
        **after_login.endpoints(
            access,
            after_login.UseCases(
                refreshing,
                revoking,
                introspecting,
                LoggingOut(Subjects(redis, keys, token_retention)),
                opening,
                SigningUp(opening, SignUps(redis, keys, initiation_limits), guard),
            ),
            tokens,
        ),
    }
    routes = [
        Route(prefix + path, endpoint, dialect, noting, bounds, method=method)
        for prefix in PREFIXES
        for path, by_method in endpoints.items()
        for method, endpoint in by_method.items()
    ]
    routes += [Route(path, endpoint, oauth_dialect, noting, bounds) for path, endpoint in oauth_endpoints.items()]
    feed = Feed(EventLog(keys), redis, reader, settings.block_ms)
    announcing = Announcing(redis, keys, secrets, settings.public_url)

    def drain() -> None:
        waiting.drain()
        feed.drain()

    @contextlib.asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        running = {
            asyncio.create_task(waiting.run()),
            asyncio.create_task(feed.run()),
            asyncio.create_task(keep_running("master secrets", announcing.run)),
        }
        # The server handles SIGTERM, and first finishes the requests under way: held polls would keep it from stopping.
        asyncio.get_running_loop().add_signal_handler(DRAIN_SIGNAL, drain)
        try:
            yield
        finally:
            for task in running:
                task.cancel()
            # A cancellation can be lost: redis-py sends inside asyncio.wait_for, which drops some in Python 3.11.
            await asyncio.wait(running, timeout=CANCEL_WAIT)
            await reader.aclose()
            await redis.aclose()
            noting.close()

    app = Api(
        route_handlers=[
            # First: at a path that already has another endpoint, Litestar would answer OPTIONS itself.
            *(
                Router(
                    prefix,
                    route_handlers=[
                        *(
                            preflight_endpoint(origins, (path,), ", ".join(by_method))
                            for path, by_method in endpoints.items()
                        ),
                        events_endpoint(access, feed),
                    ],
                )
                for prefix in PREFIXES
            ),
            preflight_endpoint(origins, tuple(oauth_endpoints)),
            *(route.handler() for route in routes),
            *metadata_endpoints(access.project, tokens, settings.public_url),
            *health_endpoints(sessions),
            openapi_endpoint(),
        ],
        exception_handlers=dict.fromkeys(REFUSALS, of_litestar.refusal),
        before_request=partial(begin, noting),
        before_send=[of_litestar.finish],
        lifespan=[lifespan],
        request_max_body_size=MAX_BODY_BYTES,
        openapi_config=None,
        logging_config=None,
        # Set here, so that neither LITESTAR_DEBUG nor LITESTAR_PDB can make it show a stack trace or start a debugger.
        debug=False,
        pdb_on_exception=False,
    )
    app.routes_of_post = {route.path: route for route in routes if route.method == "POST"}
    return app

"""The store, put together from the settings as composition roots do it."""

from redis.asyncio import Redis

from projects.budgets import InitiationLimits
from runtime.redis.keys import Keys
from runtime.settings import Settings
from statemachine.store.committing import Committing
from statemachine.store.initiating import Initiations
from statemachine.store.retention import Retention
from tokens.store.committing import FamilyCommitting, TokenRetention
from tokens.store.reading import Families
from worker.families import FamilyHandlers


def retention_of(settings: Settings) -> Retention:
    """Return how long sessions are kept, and how many events."""
    return Retention(settings.retention_ms, settings.abandoned_retention_ms, settings.events_max)


def initiations_of(redis: Redis, keys: Keys, settings: Settings) -> Initiations:
    """Return what starts sessions."""
    limits = InitiationLimits(
        settings.budget_window_ms,
        settings.initiations_per_address,
        settings.initiations_per_project,
        settings.live_sessions_per_project,
        settings.live_sessions_per_address,
    )
    return Initiations(redis, keys, limits, retention_of(settings), pickup_window_ms=settings.pickup_window_ms)


def token_retention_of(settings: Settings) -> TokenRetention:
    """Return how long families of tokens and their outcomes are kept."""
    return retention_of(settings).of_tokens(settings.replay_window_ms, settings.partitions)


def family_handlers_of(redis: Redis, keys: Keys, settings: Settings) -> FamilyHandlers:
    """Return what decides about families of tokens."""
    return FamilyHandlers(Families(redis, keys), FamilyCommitting(redis, keys, token_retention_of(settings)))


def committing_of(redis: Redis, keys: Keys, settings: Settings) -> Committing:
    """Return what commits decisions."""
    return Committing(redis, keys, retention_of(settings), replay_window_ms=settings.replay_window_ms)

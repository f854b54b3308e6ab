"""What refreshing, introspecting and the key set cost, beside the careful floor."""

import tempfile
import time
import uuid
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import msgspec
import uvloop

from bench.cost import FLOORS, Processes, cost_of, costs, latencies, latency_of
from bench.load.loads import CONNECTIONS, FASTEST, FORM, floor_load
from bench.load.servers import Server, floor, relay, valkey, workers
from bench.load.sessions import concurrently, new_settings, store
from bench.load.wrk import Load
from bench.rounds import interleaved
from projects.oauth import OAuth
from projects.project import KeyKind
from projects.store import Projects
from runtime.codes import RefreshToken, mint_refresh_token, new_session_id
from runtime.master_secret import new_master_secret
from runtime.master_secrets import read_master_secrets, write_master_secrets
from runtime.settings import Settings
from statemachine.store.retention import Retention
from tokens.access_tokens import AccessTokens, Grant
from tokens.family import Opening, opened
from tokens.signing_keys import SigningKeys
from tokens.store.recording import open_family

INTROSPECTED = 1_000  # logins whose access tokens are asked about in turn
PUBLIC_URL = "https://relay.example"


class Client(NamedTuple):
    """A project that lets OAuth clients in, and the key of its backend."""

    project_id: str
    server_key: str


def measure_tokens(*, rounds: int, seconds: int) -> dict[str, Any]:
    """Return latency, one request at a time, and cost, 64 at once, of each request."""
    with valkey() as redis, tempfile.TemporaryDirectory(prefix="login-relay-bench-") as folder:
        path = Path(folder) / "keys.json"
        write_master_secrets(path, [new_master_secret()], is_new=True)
        settings = msgspec.structs.replace(new_settings(redis.url), keys_file=str(path), public_url=PUBLIC_URL)
        client = _create_client(settings)
        with (
            floor(redis.url, "mechanical") as mechanical,
            floor(redis.url) as careful,
            relay(settings) as api,
            workers(settings) as (worker,),
        ):
            ours = Processes(api, redis, worker)
            steady = {"introspect": _introspections(api, settings, path, client), "key_set": _key_set(api, client)}
            times = {
                name: latency_of(load, seconds)
                for name, load in {"careful": floor_load(careful.port), **steady}.items()
            }
            times["refresh"] = latency_of(lambda: _refreshes(api, settings, client, FASTEST[1] * seconds), seconds)
            floors = {"mechanical": mechanical, "careful": careful}
            rates = {
                name: cost_of(floor_load(each.port), Processes(each, redis), seconds) for name, each in floors.items()
            }
            rates |= {name: cost_of(load, ours, seconds) for name, load in steady.items()}
            rates["refresh"] = cost_of(
                lambda: _refreshes(api, settings, client, FASTEST[CONNECTIONS] * seconds), ours, seconds
            )
            return {
                "latencies": latencies(interleaved(times, rounds)),
                "cases": costs(interleaved(rates, rounds), FLOORS),
            }


def _create_client(settings: Settings) -> Client:
    async def create() -> Client:
        async with store(settings) as opened:
            oauth = OAuth(is_on=True, verification_uri="https://app.example/device", scopes=("cli",))
            id_, keys = await Projects(opened.redis, opened.keys).create(
                "bench", allow_client_complete=False, oauth=oauth
            )
        return Client(id_, keys[KeyKind.SECRET_SERVER])

    return uvloop.run(create())


def _refreshes(api: Server, settings: Settings, client: Client, count: int) -> Load:
    """Return refreshes of as many logins, each of which rotates once."""
    given = {"grant_type": "refresh_token", "client_id": client.project_id}
    tokens = uvloop.run(_open_families(settings, client, count))
    return Load(api.port, "/oauth/token", FORM, [urlencode({**given, "refresh_token": each.text}) for each in tokens])


def _introspections(api: Server, settings: Settings, keys_file: Path, client: Client) -> Load:
    """Return introspections of access tokens."""
    secrets = read_master_secrets(keys_file)
    signer = AccessTokens(SigningKeys(lambda: secrets), PUBLIC_URL, 3_600)
    given = {"client_id": client.project_id, "client_secret": client.server_key}
    bodies = []
    for token in uvloop.run(_open_families(settings, client, INTROSPECTED)):
        grant = Grant(client.project_id, token.family_id, "ada", client.project_id, "cli", (client.project_id,))
        bodies.append(urlencode({**given, "token": signer.sign(grant, time.time())}))
    return Load(api.port, "/oauth/introspect", FORM, bodies)


def _key_set(api: Server, client: Client) -> Load:
    path = f"/api/v1/projects/{client.project_id}/.well-known/jwks.json"
    return Load(api.port, path, {}, [""], method="GET")


async def _open_families(settings: Settings, client: Client, count: int) -> list[RefreshToken]:
    """Open families that rotate, by the relay's own code; return their first tokens."""
    kept = Retention(settings.retention_ms, settings.abandoned_retention_ms, settings.events_max).of_tokens(
        settings.replay_window_ms, settings.partitions
    )
    async with store(settings) as used:

        async def one(_: int) -> RefreshToken:
            token = mint_refresh_token(new_session_id(0))
            life = settings.refresh_token_idle_ms, settings.refresh_token_life_ms
            digests = token.family_digest, token.digest
            subject = f"user:{uuid.uuid4().hex}"
            opening = Opening(*digests, subject, client.project_id, *life, flow="device", rotates=True, scope="cli")
            now = int(time.time() * 1_000)
            family = opened(token.family_id, client.project_id, opening, now, now)
            await open_family(used.redis, used.keys, family, now, kept)
            return token

        return await concurrently(one, range(count))

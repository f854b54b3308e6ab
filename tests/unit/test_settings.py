import msgspec
import pytest

from runtime.errors import SettingError
from runtime.settings import (
    NOT_SETTINGS,
    Settings,
    load_settings,
    variable,
)

VALUES: dict[str, tuple[str, object]] = {
    "redis_url": ("rediss://:pass@redis.internal:6380/2", "rediss://:pass@redis.internal:6380/2"),
    "redis_url_file": ("/run/redis/url", "/run/redis/url"),
    "redis_memory_mb": ("1024", 1_024),
    "state_dir": ("/var/lib/login-relay", "/var/lib/login-relay"),
    "host": ("0.0.0.0", "0.0.0.0"),  # noqa: S104 - a value that is read, not bound
    "port": ("8123", 8_123),
    "prefix": ("blue-1.x:y_z", "blue-1.x:y_z"),
    "partitions": ("64", 64),
    "session_lifetime_ms": ("600000", 600_000),
    "pickup_window_ms": ("60000", 60_000),
    "poll_interval_s": ("5", 5),
    "long_poll_max_s": ("20", 20),
    "hold_polls_s": ("10", 10),
    "hold_token_requests_s": ("10", 10),
    "held_polls_max": ("0", 0),
    "outcome_wait_ms": ("4000", 4_000),
    "backlog_limit": ("7", 7),
    "replay_window_ms": ("30000", 30_000),
    "idempotency_ms": ("1000", 1_000),
    "longest_lifetime_ms": ("1000", 1_000),
    "refresh_token_idle_ms": ("60000", 60_000),
    "refresh_token_life_ms": ("60000", 60_000),
    "retention_ms": ("1", 1),
    "abandoned_retention_ms": ("5001", 5_001),
    "events_max": ("10", 10),
    "project_cache_ms": ("0", 0),
    "block_ms": ("1000", 1_000),
    "socket_timeout_ms": ("9000", 9_000),
    "min_idle_ms": ("1500", 1_500),
    "reclaim_period_ms": ("250", 250),
    "sweep_period_ms": ("100", 100),
    "max_deliveries": ("3", 3),
    "shutdown_grace_ms": ("2000", 2_000),
    "request_timeout_ms": ("15000", 15_000),
    "trusted_proxies": ("10.0.0.0/8, 2001:db8::/32", "10.0.0.0/8, 2001:db8::/32"),
    "budget_window_ms": ("60000", 60_000),
    "wrong_codes_per_address": ("7", 7),
    "wrong_codes_per_key": ("70", 70),
    "wrong_codes_per_project": ("700", 700),
    "initiations_per_address": ("8", 8),
    "initiations_per_project": ("80", 80),
    "live_sessions_per_project": ("800", 800),
    "live_sessions_per_address": ("80", 80),
    "throttle_polls": ("true", True),
    "admin_jwks_file": ("keys.json", "keys.json"),
    "admin_issuer": ("https://issuer.example", "https://issuer.example"),
    "admin_audience": ("relay", "relay"),
    "admin_token_max_age_s": ("600", 600),
    "admin_projects_claim": ("projects", "projects"),
    "public_url": ("https://relay.example.com", "https://relay.example.com"),
    "keys_file": ("/run/master-secrets/keys.json", "/run/master-secrets/keys.json"),
    "access_token_lifetime_s": ("60", 60),
    "metrics_host": ("10.0.0.7", "10.0.0.7"),
    "metrics_port": ("0", 0),
    "log_level": ("debug", "debug"),
    "log_format": ("console", "console"),
}


def test_every_setting_has_a_value_here() -> None:
    """No setting is missing in the table above."""
    assert set(VALUES) >= set(Settings.__struct_fields__)


@pytest.mark.parametrize("field", Settings.__struct_fields__)
def test_setting_is_read_from_its_variable(field: str) -> None:
    """`LOGIN_RELAY_` and the name in capitals sets one setting and leaves the others at their defaults."""
    text, value = VALUES[field]
    assert value != getattr(Settings(), field)
    assert load_settings({variable(field): text}) == msgspec.structs.replace(Settings(), **{field: value})
    assert variable(field) == f"LOGIN_RELAY_{field.upper()}"


def test_empty_and_foreign_variables_are_no_settings() -> None:
    """An empty variable counts as unset; variables of other programs, and of our own client, are ignored."""
    environment = {"LOGIN_RELAY_PORT": "", "PORT": "x", "login_relay_port": "x", **dict.fromkeys(NOT_SETTINGS, "x")}
    assert load_settings(environment) == Settings()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("port", "hunter2"),
        ("port", "70000"),
        ("port", "8000.5"),
        ("prefix", "hunter 2"),
        ("prefix", "hunter{2}"),
        ("prefix", "hunter2\n"),
        ("partitions", "65"),
        ("session_lifetime_ms", "999"),
        ("project_cache_ms", "5001"),
        ("poll_interval_s", "-17"),
        ("max_deliveries", "hunter2"),
        ("trusted_proxies", "10.0.0.0/8,hunter2"),
        ("trusted_proxies", "10.0.0.1/8"),
        ("wrong_codes_per_address", "0"),
        ("access_token_lifetime_s", "59"),
        ("access_token_lifetime_s", "3601"),
        ("public_url", "hunter2"),
        ("throttle_polls", "hunter2"),
        ("log_level", "hunter2"),
        ("log_format", "hunter2\nhunter3"),
    ],
)
def test_error_names_the_variable_and_never_the_value(field: str, value: str) -> None:
    """A bad value is one line that says which variable it is; the value may be a secret in the wrong place."""
    with pytest.raises(SettingError) as refused:
        load_settings({variable(field): value})
    message = str(refused.value)
    assert message.startswith(f"{variable(field)}: ")
    assert value.strip() not in message
    assert "\n" not in message
    assert refused.value.__cause__ is None


@pytest.mark.parametrize(
    "url",
    [
        "https://relay.example.com",
        "https://relay.example.com:8443",
        "https://localhost",
        "https://192.0.2.1",
        "https://[2001:db8::1]:8443",
        "http://127.0.0.1:8000",
        "http://127.9.9.9",
        "http://[::1]:8000",
        "http://localhost:8000",
    ],
)
def test_public_url_is_an_origin(url: str) -> None:
    """With TLS, or on this machine alone."""
    assert load_settings({variable("public_url"): url}).public_url == url


@pytest.mark.parametrize(
    "url",
    [
        "http://relay.example.com",
        "http://192.168.1.5:8000",
        "http://localhost.example.com",
        "http://127.0.0.1.example.com",
        "http://127.1",
        "https://1.2.3",
        "https://relay.example.com/",
        "https://relay.example.com/api",
        "https://relay.example.com?a=b",
        "https://relay.example.com#a",
        "https://user:pass@relay.example.com",
        "https://relay.example.com:443",
        "http://127.0.0.1:80",
        "https://relay.example.com:0",
        "https://relay.example.com:65536",
        "https://relay.example.com:",
        "https://Relay.example.com",
        "HTTPS://relay.example.com",
        "https://relay.example.com.",
        "https://-relay.example.com",
        "https://relay_1.example.com",
        "https://müller.example",
        "https://[2001:DB8::1]",
        "https://[2001:db8:0:0::1]",
        "https://[192.0.2.1]",
        "https://[relay]",
        "https://",
        "//relay.example.com",
        "ftp://relay.example.com",
        " https://relay.example.com",
        "https://relay.example.com\n",
        "https://relay.example.com https://other.example.com",
    ],
)
def test_public_url_that_is_no_origin_in_its_normal_form_is_refused(url: str) -> None:
    """Clients compare issuers character by character; without TLS anyone on the way could sign in their place."""
    with pytest.raises(SettingError, match=f"^{variable('public_url')}: Expected an origin such as"):
        load_settings({variable("public_url"): url})


@pytest.mark.parametrize("field", ["log_level", "log_format"])
def test_error_of_a_choice_lists_the_choices(field: str) -> None:
    """The error for a mistyped level lists the valid ones."""
    with pytest.raises(SettingError, match=VALUES[field][0]):
        load_settings({variable(field): "verbose"})


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("LOGIN_RELAY_PROT", "; did you mean LOGIN_RELAY_PORT?"),
        ("LOGIN_RELAY_REDIS_URI", "; did you mean LOGIN_RELAY_REDIS_URL?"),
        ("LOGIN_RELAY_ZZ", ""),
    ],
)
def test_unknown_variable_is_refused_with_a_suggestion(name: str, hint: str) -> None:
    """A mistyped variable stops the start instead of being ignored."""
    with pytest.raises(SettingError) as refused:
        load_settings({name: "hunter2"})
    assert str(refused.value) == f"{name} is not a setting{hint}"


@pytest.mark.parametrize(
    ("field", "broken", "fine", "named"),
    [
        ("block_ms", 4_500, 4_499, {"socket_timeout_ms"}),
        ("min_idle_ms", 4_500, 4_499, {"reclaim_period_ms", "outcome_wait_ms"}),
        ("reclaim_period_ms", 3_000, 2_999, {"min_idle_ms", "outcome_wait_ms"}),
        ("session_lifetime_ms", 5_000, 5_001, {"outcome_wait_ms"}),
        ("replay_window_ms", 5_000, 5_001, {"outcome_wait_ms"}),
    ],
)
def test_broken_order_of_times_is_refused(field: str, broken: int, fine: int, named: set[str]) -> None:
    """Times that would break a promise stop the start, and the message names them all."""
    assert getattr(load_settings({variable(field): str(fine)}), field) == fine
    with pytest.raises(SettingError) as refused:
        load_settings({variable(field): str(broken)})
    assert all(variable(name) in str(refused.value) for name in {field, *named})

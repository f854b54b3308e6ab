import msgspec

from events.cloud_event import CloudEvent
from events.cursor import EntryId
from events.log import LoggedEvent
from login_relay.operate.activity import (
    COMPLETED,
    CONSUMED,
    INITIATED,
    KEPT_SESSIONS,
    WINDOW,
    Activity,
    Latency,
    Part,
)
from statemachine.events import STATE_AFTER

START = 1_700_000_000_000  # milliseconds


def an_event(type_: str, session_id: str, at: int, **data: object) -> LoggedEvent:
    """Return an event as the log gives it, `at` milliseconds after the start."""
    encoded = msgspec.Raw(msgspec.json.encode({"project_id": "p", **data}))
    event = CloudEvent("1.0", f"{session_id}.1", "login-relay", type_, session_id, "", encoded)
    return LoggedEvent(event, "p", 0, EntryId(START + at, 0), ())


def an_activity(*events: tuple[str, str, int]) -> Activity:
    """Return the activity that these events add up to."""
    activity = Activity()
    for event in events:
        activity.add(an_event(*event))
    return activity


def test_parts_are_measured_per_session() -> None:
    """From initiate to complete, and from complete to consume, whatever other sessions do between."""
    activity = an_activity(
        *((INITIATED, "a", 0), (INITIATED, "b", 100), (COMPLETED, "b", 600)),
        *((COMPLETED, "a", 4_000), (CONSUMED, "b", 4_100), (CONSUMED, "a", 4_250)),
    )
    assert activity.latency(Part.INITIATE_TO_COMPLETE) == Latency(2, 500, 4_000, 4_000)
    assert activity.latency(Part.COMPLETE_TO_CONSUME) == Latency(2, 250, 3_500, 3_500)


def test_quantiles_are_of_what_really_happened() -> None:
    """Nearest rank: of 100 logins that took 1 to 100 ms the 95 % is 95."""
    activity = Activity()
    for length in range(1, 101):
        activity.add(an_event(INITIATED, str(length), 0))
        activity.add(an_event(COMPLETED, str(length), length))
    assert activity.latency(Part.INITIATE_TO_COMPLETE) == Latency(100, 50, 95, 100)


def test_a_session_whose_start_was_not_seen_has_no_length() -> None:
    """It is counted all the same."""
    activity = an_activity((COMPLETED, "a", 0))
    assert activity.latency(Part.INITIATE_TO_COMPLETE) is None
    assert activity.counts() == dict.fromkeys(STATE_AFTER, 0) | {COMPLETED: 1}


def test_the_window_moves_on() -> None:
    """What is older than a minute is neither counted nor measured; the sessions stay."""
    activity = an_activity((INITIATED, "a", 0), (COMPLETED, "a", 10), (INITIATED, "b", 30_000))
    activity.forget(START + WINDOW * 1000 + 1_000)
    assert activity.counts()[INITIATED] == 1
    assert activity.latency(Part.INITIATE_TO_COMPLETE) is None
    assert [session.session_id for session in activity.recent(5)] == ["b", "a"]


def test_each_second_has_its_count() -> None:
    """The oldest first, the current second last, silence as zeros."""
    activity = an_activity((CONSUMED, "a", 0), (CONSUMED, "b", 999), (CONSUMED, "c", 3_000))
    assert activity.per_second(CONSUMED, START + 3_500) == [0] * (WINDOW - 4) + [2, 0, 0, 1]


def test_a_session_is_as_its_latest_event_left_it() -> None:
    """With the facts that its tool and its backend sent."""
    activity = Activity()
    activity.add(an_event(INITIATED, "a", 0, client={"client_name": "tool"}))
    activity.add(an_event(COMPLETED, "a", 50, login_subject="ada"))
    [session] = activity.recent(1)
    assert (session.state, session.client, session.login_subject) == ("completed", "tool", "ada")
    assert (session.initiated_at, session.completed_at, session.changed_at) == (START, START + 50, START + 50)


def test_events_of_no_session_are_passed_over() -> None:
    """Events of unknown types, or about anything but a session, change nothing."""
    activity = an_activity(("audit.key_rotated", "p", 0), ("session.of_a_later_version", "a", 0))
    assert activity.recent(5) == []
    assert set(activity.counts().values()) == {0}


def test_memory_is_bounded() -> None:
    """Past the bound, the oldest sessions are dropped."""
    activity = Activity()
    for number in range(KEPT_SESSIONS + 10):
        activity.add(an_event(INITIATED, str(number), number))
    assert len(activity.recent(2 * KEPT_SESSIONS)) == KEPT_SESSIONS
    assert activity.recent(1)[0].session_id == str(KEPT_SESSIONS + 9)

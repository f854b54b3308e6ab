"""The envelope of every event: CloudEvents 1.0, JSON format."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from runtime.codes import SESSION_ID_SHAPE

EVENT_SOURCE = "login-relay"


class CloudEvent(msgspec.Struct, frozen=True):
    """An event with its attributes, in the JSON format of CloudEvents 1.0. In a stream entry all values are strings."""

    specversion: Literal["1.0"]
    id: Annotated[
        str,
        Meta(
            pattern=rf"^({SESSION_ID_SHAPE}(\.family)?\.[0-9]+|[0-9a-f]{{32}})$",
            description="Unique, to drop repeats by: session id and version, of `family.` events with `family` between "
            "them; of all others, random.",
        ),
    ]
    source: Annotated[str, Meta(min_length=1, description="The relay.")]
    type: Annotated[str, Meta(description="What happened.")]
    subject: Annotated[
        str,
        Meta(
            pattern=rf"^({SESSION_ID_SHAPE}|[0-9a-f]{{8}}(-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}})$",
            description="The session id, which is also that of its family of tokens; of an event that is about "
            "neither, the project id.",
        ),
    ]
    time: Annotated[
        str,
        Meta(
            pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z$",
            description="When it happened, by Redis' clock: RFC 3339, UTC, milliseconds.",
            extra_json_schema={"format": "date-time"},
        ),
    ]
    data: Annotated[msgspec.Raw, Meta(description="The facts, by `type`.")]
    version: (
        Annotated[
            int,
            Meta(
                ge=1,
                description="The session's version: 1 when initiated, then exactly one more with every `session.` "
                "event. Only in those.",
            ),
        ]
        | msgspec.UnsetType
    ) = msgspec.UNSET
    projectid: (
        Annotated[
            str,
            Meta(
                min_length=1,
                description="The project that the event is about: the `project_id` of `data`, for a reader that "
                "filters by it before it decodes `data`. Absent from events that an older version wrote.",
            ),
        ]
        | msgspec.UnsetType
    ) = msgspec.UNSET


_encoder = msgspec.json.Encoder()


def encode_event(event: msgspec.Struct) -> bytes:
    """Return the JSON of an event's `data` field."""
    return _encoder.encode(event)

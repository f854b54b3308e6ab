"""The events for machines: a JSON Schema and an AsyncAPI document, made of the Structs that are written."""

from importlib.metadata import version
from typing import Any

import msgspec

from events.cloud_event import CloudEvent
from runtime.redis.keys import TAGS
from runtime.settings import Settings
from statemachine.events import EVENT_TYPES

Json = dict[str, Any]

_AS_TEXT: dict[str, Json] = {
    "version": {"pattern": "^[1-9][0-9]*$"},
    "data": {"contentMediaType": "application/json"},
}
"""How a stream entry, whose values are all strings, holds what is not a string in JSON."""


def json_schema() -> Json:
    """Return the schema of an event as one JSON object, and in `$defs` that of a stream entry."""
    _, schemas = msgspec.json.schema_components([CloudEvent, *EVENT_TYPES], ref_template="#/$defs/{name}")
    events = {name: _of_type(name, data) for data, name in EVENT_TYPES.items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "An event of login-relay",
        "description": "A CloudEvent in JSON, as the API's event stream and `login-relay events --json` give it. "
        "Fields and types are only ever added: ignore those that you do not know.",
        "oneOf": [{"$ref": f"#/$defs/{name}"} for name in events],
        "$defs": {**events, "Entry": _entry(schemas["CloudEvent"]), **schemas},
    }


def _of_type(name: str, data: type) -> Json:
    event: Json = {
        "title": name,
        "allOf": [{"$ref": "#/$defs/CloudEvent"}],
        "properties": {"type": {"const": name}, "data": {"$ref": f"#/$defs/{data.__name__}"}},
    }
    return event | {"required": ["version"]} if name.startswith("session.") else event


def _entry(cloud_event: Json) -> Json:
    texts = {name: _text(name, schema) for name, schema in cloud_event["properties"].items()}
    return {
        "title": "Entry",
        "description": "An event as the fields of a stream's entry. All values are strings; `data` holds JSON.",
        "type": "object",
        "properties": texts,
        "required": list(cloud_event["required"]),
    }


def _text(name: str, schema: Json) -> Json:
    if name in _AS_TEXT:
        schema = {"description": schema["description"], **_AS_TEXT[name]}
    return {"type": "string", **schema}


def asyncapi() -> Json:
    """Return the AsyncAPI document of the streams. A message's headers are an entry's fields, its payload is `data`."""
    _, schemas = msgspec.json.schema_components([CloudEvent, *EVENT_TYPES], ref_template="#/components/schemas/{name}")
    fields = _entry(schemas.pop("CloudEvent"))
    del fields["properties"]["data"]
    fields["required"].remove("data")
    schemas["Attributes"] = fields | {"title": "Attributes", "description": "The fields of an entry, but for `data`."}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "login-relay events",
            "version": version("login-relay"),
            "description": "What happens to logins, as entries of Redis streams: read them with XREAD or in a consumer "
            "group of your own. docs/events.md shows how.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "redis": {
                "host": "{host}",
                "protocol": "redis",
                "description": "The Redis of the relay.",
                "variables": {"host": {"default": "127.0.0.1:6379"}},
            }
        },
        "channels": {
            "events": {
                "address": "{prefix}:{tag}:events",
                "title": "Events of one partition",
                "description": "A stream. All events of a session are in one partition, in order.",
                "servers": [{"$ref": "#/servers/redis"}],
                "parameters": {
                    "prefix": {"default": Settings().prefix, "description": "LOGIN_RELAY_PREFIX."},
                    "tag": {
                        "default": f"{{{TAGS[0]}}}",
                        "enum": [f"{{{tag}}}" for tag in TAGS],
                        "description": "The partition's hash tag with its braces. A relay has the first "
                        "LOGIN_RELAY_PARTITIONS of these.",
                    },
                },
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in EVENT_TYPES.values()},
            }
        },
        "operations": {
            "tell": {
                "action": "send",
                "channel": {"$ref": "#/channels/events"},
                "summary": "Add an entry in the same script that changes the session.",
                "messages": [{"$ref": f"#/channels/events/messages/{name}"} for name in EVENT_TYPES.values()],
            }
        },
        "components": {
            "messages": {
                name: {
                    "name": name,
                    "title": name,
                    "summary": schemas[data.__name__]["description"],
                    "headers": {
                        "allOf": [{"$ref": "#/components/schemas/Attributes"}],
                        "properties": {"type": {"const": name}},
                    },
                    "payload": {"$ref": f"#/components/schemas/{data.__name__}"},
                }
                for data, name in EVENT_TYPES.items()
            },
            "schemas": schemas,
        },
    }

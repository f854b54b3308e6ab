"""Logging: structlog to standard error, formatted for people on a terminal and as JSON for machines.

Log calls name a session by its id and never pass codes, tokens or keys. `redaction.py` masks a secret that gets into a
line by accident.
"""

import logging
import sys

import structlog
from structlog.typing import Processor

from runtime.redaction import RedactedRecord, redact_event
from runtime.settings import Settings


def configure_logging(settings: Settings, *processors: Processor) -> None:
    """Configure structlog for this process, and the standard library's logging for the libraries it uses.

    `processors` add fields to every line, such as the id of the request that is being answered.
    """
    as_json = writes_json(settings)
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    renderer = structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer()
    structlog.configure(
        processors=[
            *processors,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            redact_event,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.setLogRecordFactory(RedactedRecord)
    logging.basicConfig(
        level=max(level, logging.WARNING), stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s"
    )


def writes_json(settings: Settings) -> bool:
    """Return whether log lines are JSON."""
    return settings.log_format == "json" or (settings.log_format == "auto" and not sys.stderr.isatty())

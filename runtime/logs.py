"""Logging: structlog to standard error, for people on a terminal and as JSON for machines.

Log what happened to a session by its id. Codes, tokens and keys never go into a log call;
what gets there all the same is masked (`redaction.py`).
"""

import logging
import sys

import structlog
from structlog.typing import Processor

from runtime.redaction import RedactedRecord, redact_event
from runtime.settings import Settings


def configure_logging(settings: Settings, *processors: Processor) -> None:
    """Set up structlog for this process, and the standard library's logging for the libraries we use.

    `processors` add to every line what their process knows, such as the request that is being answered.
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
    """Whether the lines are JSON."""
    return settings.log_format == "json" or (settings.log_format == "auto" and not sys.stderr.isatty())

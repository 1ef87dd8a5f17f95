"""Log records on stderr: lines for people, or JSON lines for machines (COA_LOG_FORMAT=json).

Only records of coa's own loggers; whoever embeds coa sets up logging as they like. Keys of the configuration and of
the environment are blotted out of every line, whatever it says.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TextIO

from coa.errors import ConfigError
from coa.secrets import blotted, environment_secrets

__all__ = ["JsonLines", "PlainLines", "hide", "set_up_logging"]

_LOGGER = "coa"
_FORMATS = ("text", "json")


def set_up_logging(verbosity: int, *, form: str = "", quiet: bool = False) -> None:
    """Sends coa's records to stderr; may be called again, and holds as it was called last.

    `verbosity` counts -v: warnings, what happens, everything. JSON lines begin with what happens, since nobody asks
    for them without wanting to see calls. Raises: ConfigError for a format that is none.
    """
    if form and form not in _FORMATS:
        raise ConfigError(f"COA_LOG_FORMAT: {form!r} is none of {', '.join(_FORMATS)}.")
    logger = logging.getLogger(_LOGGER)
    for handler in [h for h in logger.handlers if isinstance(h, _Stderr)]:
        logger.removeHandler(handler)
    if not verbosity and not form:
        logger.setLevel(logging.NOTSET)
        return
    handler = _Stderr()
    handler.setFormatter(JsonLines() if form == "json" else PlainLines())
    logger.addHandler(handler)
    if verbosity > 1:
        logger.setLevel(logging.DEBUG)
    elif quiet:
        logger.setLevel(logging.ERROR)
    else:
        logger.setLevel(logging.INFO if verbosity or form == "json" else logging.WARNING)


def hide(secrets: Iterable[str]) -> None:
    """Blots these out of all lines from here on, beside the environment's; before `set_up_logging` it does nothing."""
    for handler in logging.getLogger(_LOGGER).handlers:
        if isinstance(handler.formatter, PlainLines | JsonLines):
            handler.formatter.secrets |= frozenset(secrets)


class _Stderr(logging.StreamHandler[TextIO]):
    """Writes to what stderr is now: tests and progress bars put others in its place."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:
        return sys.stderr

    @stream.setter
    def stream(self, stream: TextIO) -> None:
        raise AttributeError("it is always stderr")


class PlainLines(logging.Formatter):
    """`INFO coa.calls: worker: 1500 tokens in …`."""

    def __init__(self) -> None:
        super().__init__("%(levelname)s %(name)s: %(message)s")
        self.secrets = frozenset(environment_secrets())

    def format(self, record: logging.LogRecord) -> str:
        """The record, without secrets."""
        return blotted(super().format(record), self.secrets)


class JsonLines(logging.Formatter):
    """One object a line: time (UTC), level, logger, message, and what a call has to tell (run_id, role, model,
    deployment, tokens, seconds, …)."""

    def __init__(self) -> None:
        super().__init__()
        self.secrets = frozenset(environment_secrets())

    def format(self, record: logging.LogRecord) -> str:
        """The record, without secrets."""
        told: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        more = getattr(record, "coa", None)
        if isinstance(more, Mapping):
            told |= {str(key): value for key, value in more.items()}
        if record.exc_info:
            told["traceback"] = self.formatException(record.exc_info)
        clean = {k: blotted(v, self.secrets) if isinstance(v, str) else v for k, v in told.items()}
        return json.dumps(clean, ensure_ascii=False, default=lambda value: blotted(str(value), self.secrets))

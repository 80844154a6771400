"""Log lines: one per event, on stderr, with every control character escaped. Prompts and answers are never logged."""

from __future__ import annotations

import logging
import sys


class EscapingFormatter(logging.Formatter):
    """Keeps a record on one line (plus its trace): what came from outside cannot forge lines or drive a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as text."""
        trace = ""
        if record.exc_info:
            trace = "\n" + "\n".join(escape(line) for line in self.formatException(record.exc_info).splitlines())
        stamp = self.formatTime(record, "%Y-%m-%d %H:%M:%S")
        return f"{stamp} {record.levelname.lower():7} {record.name}: {escape(record.getMessage())}{trace}"


def escape(text: str) -> str:
    r"""`text` with control characters, line separators and lone surrogates written as \xNN or \uNNNN."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def configure(level: str) -> None:
    """Send everything, Sanic's own loggers included, to stderr in one form."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(EscapingFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("axpress").setLevel(level.upper())
    for name in ("sanic.root", "sanic.error", "sanic.server", "sanic.access", "sanic.websockets"):
        logger = logging.getLogger(name)
        logger.handlers[:] = []
        logger.propagate = True
        logger.setLevel(logging.WARNING)

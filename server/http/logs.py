"""Log lines: one per event, on stderr, with every control character escaped. Prompts and answers are never logged.

Nobody waits for a log: lines go through a bounded queue to a thread of their own, and those that find it full are
counted instead. So a standard error that nobody reads stops nothing."""

from __future__ import annotations

import logging
import os
import queue
import sys
import threading
import time
from collections import deque
from typing import Any, Literal

import orjson

Format = Literal["text", "json", "journal"]
QUEUE_LINES = 2000
FLUSH_SECONDS = 1.0
REPEATS, REPEAT_SECONDS = 20, 10.0
"""Of lines of one `repeat` (an attribute of the record) or, from WARNING on, one wording, so many are written in so
many seconds; the others are counted."""
_PRIORITIES = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))


def escape(text: str) -> str:
    r"""`text` with control characters, line separators and lone surrogates written as \xNN or \uNNNN."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class EscapingFormatter(logging.Formatter):
    """Keeps a record on one line (plus its trace): what came from outside cannot forge lines or drive a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as text."""
        stamp = self.formatTime(record, "%Y-%m-%d %H:%M:%S")
        lines = [f"{stamp} {record.levelname.lower():7} {record.name}: {escape(record.getMessage())}"]
        return "\n".join(lines + self._trace(record))

    def _trace(self, record: logging.LogRecord) -> list[str]:
        if not record.exc_info:
            return []
        return [escape(line) for line in self.formatException(record.exc_info).splitlines()]


class JournalFormatter(EscapingFormatter):
    """For systemd's journal, which has the time already and reads `<N>` as the line's priority."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as lines of its priority."""
        priority = next((number for level, number in _PRIORITIES if record.levelno >= level), 7)
        lines = [f"{record.name}: {escape(record.getMessage())}", *self._trace(record)]
        return "\n".join(f"<{priority}>{line}" for line in lines)


class JsonFormatter(EscapingFormatter):
    """An object a line: time, level, logger, message, `trace` of an exception, and the record's `fields`."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON."""
        document: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": escape(record.getMessage()),
        }
        document |= {name: _plain(value) for name, value in getattr(record, "fields", {}).items()}
        if trace := self._trace(record):
            document["trace"] = trace
        return orjson.dumps(document).decode()


def _plain(value: Any) -> Any:
    return escape(value) if isinstance(value, str) else value


FORMATTERS: dict[Format, type[EscapingFormatter]] = {
    "text": EscapingFormatter,
    "json": JsonFormatter,
    "journal": JournalFormatter,
}


class LogWriter(logging.Handler):
    """Writes records to a descriptor from a thread of its own. A record's `repeat` (hashable) names the lines that it
    is one of; see REPEATS. `emit` never waits."""

    def __init__(self, formatter: logging.Formatter, descriptor: int = 2) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self._descriptor = descriptor
        self._lines: queue.Queue[str] = queue.Queue(QUEUE_LINES)
        self._lost = 0
        self._seen: dict[Any, list[float]] = {}  # by repeat: begin of its time, lines in it
        threading.Thread(target=self._write, name="axpress-log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record's lines; logging holds this handler's lock."""
        try:
            left_out = self._left_out(record)
            if left_out is None:
                return
            more = f"\n{self._note(record, left_out)}" if left_out else ""
            self._put(self.format(record) + more)
        except Exception:
            self.handleError(record)

    def _left_out(self, record: logging.LogRecord) -> int | None:
        """None: this is one too many. Else how many like it were left out before it."""
        repeat = getattr(record, "repeat", None)
        if repeat is None and record.levelno >= logging.WARNING:
            repeat = (record.name, record.msg)
        if repeat is None:
            return 0
        if len(self._seen) > 500:
            self._seen.clear()
        seen = self._seen.setdefault(repeat, [record.created, 0])
        left_out = 0
        if record.created - seen[0] >= REPEAT_SECONDS:
            left_out = max(0, int(seen[1]) - REPEATS)
            seen[:] = [record.created, 0]
        seen[1] += 1
        return left_out if seen[1] <= REPEATS else None

    def _note(self, record: logging.LogRecord, count: int) -> str:
        return self._own(record.name, record.levelno, f"{count} more lines like this one were left out before it")

    def _own(self, name: str, level: int, text: str) -> str:
        return self.format(logging.LogRecord(name, level, "", 0, text, None, None))

    def _put(self, text: str) -> None:
        try:
            if self._lost:
                text = self._own("axpress.server", logging.WARNING, f"{self._lost} log lines were lost") + "\n" + text
            self._lines.put_nowait(text + "\n")
            self._lost = 0
        except queue.Full:
            self._lost += 1

    def _write(self) -> None:
        while True:
            data = self._lines.get().encode("utf-8", "backslashreplace")
            try:
                while data:
                    data = data[os.write(self._descriptor, data) :]
            except OSError:
                pass  # nobody is there any more
            self._lines.task_done()

    def flush(self) -> None:
        """Wait until all is written, but not for long."""
        until = time.monotonic() + FLUSH_SECONDS
        while self._lines.unfinished_tasks and time.monotonic() < until:
            time.sleep(0.005)


class RecentEvents(logging.Handler):
    """The latest events of server and engine for `axpress doctor --bundle`: no lines of requests, which say who asked
    for what."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.records: deque[tuple[float, str, str, str]] = deque(maxlen=300)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep time, level, logger and message."""
        if record.name not in ("axpress.request", "axpress.access"):
            message = escape(record.getMessage())[:500]
            self.records.append((round(record.created, 3), record.levelname.lower(), record.name, message))


RECENT = RecentEvents()


def configure(level: str, form: Format = "text") -> None:
    """Send everything, Sanic's own loggers included, to stderr in one form."""
    sys.stderr.flush()
    root = logging.getLogger()
    root.handlers[:] = [LogWriter(FORMATTERS[form]()), RECENT]
    root.setLevel(logging.WARNING)
    logging.getLogger("axpress").setLevel(level.upper())
    for name in ("sanic.root", "sanic.error", "sanic.server", "sanic.access", "sanic.websockets"):
        logger = logging.getLogger(name)
        logger.handlers[:] = []
        logger.propagate = True
        logger.setLevel(logging.WARNING)

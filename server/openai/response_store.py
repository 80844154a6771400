"""Responses that are kept, so that a later request can go on from one: a file of SQLite, bounded, the oldest go.

Each belongs to whoever asked for it; to anybody else it is not there."""

from __future__ import annotations

import logging
import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from axpress.core.errors import AxpressError

log = logging.getLogger("axpress.server")

VERSION = 1
_TABLES = f"""
CREATE TABLE IF NOT EXISTS responses (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    owner TEXT NOT NULL,
    size INTEGER NOT NULL,
    items BLOB NOT NULL,
    response BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS sizes ON responses (number, size);
PRAGMA user_version = {VERSION};
"""
_DROP_OLDEST = """
DELETE FROM responses WHERE number IN (
    SELECT number FROM (
        SELECT number, row_number() OVER newest AS place, sum(size) OVER newest AS total
        FROM responses WINDOW newest AS (ORDER BY number DESC)
    ) WHERE place > ? OR total > ?
)
"""


class StoreError(AxpressError):
    """The file of responses cannot be used; says which and why."""


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """`items`: all that the model was given, as items of the API. `response`: the answer as it was sent."""

    items: list[dict[str, Any]]
    response: dict[str, Any]


class ResponseStore:
    """The file. Every method may be called on any thread; what they ask of the disk is done one after the other on a
    thread of its own, so what was put before is found after."""

    def __init__(self, path: Path, max_responses: int, max_bytes: int) -> None:
        """Raises StoreError."""
        self._path, self._bounds = path, (max_responses, max_bytes)
        self._thread = ThreadPoolExecutor(1, "axpress-responses")
        try:
            self._connection = self._thread.submit(self._open).result()
        except BaseException:
            self._thread.shutdown()
            raise

    def _open(self) -> sqlite3.Connection:
        try:
            os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))  # conversations are nobody else's to read
            connection = sqlite3.connect(self._path, timeout=1.0)
        except (OSError, sqlite3.Error) as exc:
            raise StoreError(f"--store-responses {self._path}: cannot be opened: {exc}") from None
        try:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            empty = not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if version != VERSION and not empty:
                raise StoreError(
                    f"--store-responses {self._path}: not a file of responses of this version; name another"
                )
            connection.executescript("PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL;")
            connection.executescript(f"PRAGMA synchronous = NORMAL; BEGIN; {_TABLES} COMMIT;")
        except sqlite3.Error as exc:
            connection.close()
            raise StoreError(f"--store-responses {self._path}: {exc} (one server at a time can use it)") from None
        except StoreError:
            connection.close()
            raise
        return connection

    def put(self, owner: str, response: dict[str, Any], items: list[dict[str, Any]]) -> None:
        """Keeps it, soon. A disk that is full is told in the log."""
        self._thread.submit(self._put, owner, response["id"], orjson.dumps(items), orjson.dumps(response))

    def _put(self, owner: str, name: str, items: bytes, response: bytes) -> None:
        if len(items) + len(response) > self._bounds[1]:  # nothing would be left of what others have here
            log.error("the response %s is not kept: it is larger than all that --store-limit allows", name)
            return
        try:
            with self._connection as transaction:
                row = (name, owner, len(items) + len(response), items, response)
                transaction.execute(
                    "INSERT INTO responses (id, owner, size, items, response) VALUES (?, ?, ?, ?, ?)", row
                )
                transaction.execute(_DROP_OLDEST, self._bounds)
        except sqlite3.Error as exc:
            log.error("the response %s is not kept: %s: %s", name, self._path, exc)

    def get(self, owner: str, name: str) -> StoredResponse | None:
        """The response of that id, if it is there and the owner's."""
        return self._thread.submit(self._get, owner, name).result()

    def _get(self, owner: str, name: str) -> StoredResponse | None:
        query = "SELECT items, response FROM responses WHERE id = ? AND owner = ?"
        row = self._connection.execute(query, (name, owner)).fetchone()
        return None if row is None else StoredResponse(*map(orjson.loads, row))

    def delete(self, owner: str, name: str) -> bool:
        """Whether it was there."""
        return self._thread.submit(self._delete, owner, name).result()

    def _delete(self, owner: str, name: str) -> bool:
        with self._connection as transaction:
            return transaction.execute("DELETE FROM responses WHERE id = ? AND owner = ?", (name, owner)).rowcount > 0

    def close(self) -> None:
        """After what is on its way."""
        self._thread.submit(self._connection.close).result()
        self._thread.shutdown()


@dataclass(frozen=True, slots=True)
class OwnResponses:
    """The store as one owner sees it."""

    store: ResponseStore
    owner: str

    def put(self, response: dict[str, Any], items: list[dict[str, Any]]) -> None:
        """See `ResponseStore.put`."""
        self.store.put(self.owner, response, items)

    def get(self, name: str) -> StoredResponse | None:
        """See `ResponseStore.get`."""
        return self.store.get(self.owner, name)

    def delete(self, name: str) -> bool:
        """See `ResponseStore.delete`."""
        return self.store.delete(self.owner, name)

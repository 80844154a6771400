"""A server on this machine that speaks as much of the Hugging Face hub's API as fetching a repository takes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LFS_FROM = 4096
"""Bytes: larger files are told with their SHA-256, as those in Git LFS are."""
NEVER_FETCHED = 16 << 20


class LocalHub:
    """Serves the directories in `repositories` (by ORG/NAME) at `url`.

    `commit`: what every branch points to. `refuses`: (status, X-Error-Code) for every file. `token`: what is asked for.
    `lies`: content of files by path, in place of what their checksums say. `cut`: files, and the byte at which the
    connection breaks off. `asked`: (path, first byte) of every file that was asked for."""

    def __init__(self) -> None:
        self.repositories: dict[str, Path] = {}
        self.commit = COMMIT
        self.refuses: tuple[int, str] | None = None
        self.token: str | None = None
        self.lies: dict[str, bytes] = {}
        self.cut: dict[str, int] = {}
        self.asked: list[tuple[str, int]] = []
        self.before_file: Callable[[str], object] = lambda path: None
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                hub.answer(self)

            do_HEAD = do_GET

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def running(self) -> Iterator[LocalHub]:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Answers one request."""
        path = request.path.partition("?")[0]
        if self.token is not None and request.headers.get("Authorization") != f"Bearer {self.token}":
            _error(request, 401, "RepoNotFound")
        elif found := re.fullmatch(r"/api/models/([\w.-]+/[\w.-]+)(?:/revision/([\w.-]+))?", path):
            self._info(request, found[1], found[2] or "main")
        elif found := re.fullmatch(r"/([\w.-]+/[\w.-]+)/resolve/(\w+)/(.+)", path):
            self._file(request, found[1], found[2], found[3])
        else:
            _error(request, 404, "")

    def _info(self, request: BaseHTTPRequestHandler, name: str, revision: str) -> None:
        root = self.repositories.get(name)
        if root is None:
            return _error(request, 404, "RepoNotFound")
        if revision not in ("main", self.commit):
            return _error(request, 404, "RevisionNotFound")
        files = sorted(path for path in root.rglob("*") if path.is_file())
        siblings = [{"rfilename": path.relative_to(root).as_posix(), **_facts(path)} for path in files]
        document = {"id": name, "modelId": name, "sha": self.commit, "private": False, "gated": False, "tags": [],
                    "siblings": siblings, "cardData": {"license": "mit"}}  # fmt: skip
        return _send(request, 200, json.dumps(document).encode(), {"Content-Type": "application/json"})

    def _file(self, request: BaseHTTPRequestHandler, name: str, revision: str, inner: str) -> None:
        path = self.repositories.get(name, Path("/nowhere")) / inner
        start = int((re.match(r"bytes=(\d+)-", request.headers.get("Range", "")) or [0, 0])[1])
        self.asked.append((inner, start))
        self.before_file(inner)
        if self.refuses is not None:
            return _error(request, *self.refuses)
        if revision != self.commit or not path.is_file():
            return _error(request, 404, "EntryNotFound")
        content = self.lies.get(inner, b"") or path.read_bytes()
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": self.commit}
        headers |= {"X-Linked-Size": str(len(content)), "Accept-Ranges": "bytes"}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        most = max(0, self.cut[inner] - start) if inner in self.cut else None
        return _send(request, 206 if start else 200, content[start:], headers, most)


def _facts(path: Path) -> dict[str, Any]:
    size = path.stat().st_size
    if size > LFS_FROM:
        digest = "0" * 64  # of stubs that nobody fetches
        if size < NEVER_FETCHED:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
        return {"size": size, "blobId": "0" * 40, "lfs": {"sha256": digest, "size": size, "pointerSize": 130}}
    content = path.read_bytes()
    return {"size": size, "blobId": hashlib.sha1(b"blob %d\0" % size + content).hexdigest()}


def _error(request: BaseHTTPRequestHandler, status: int, code: str) -> None:
    _send(request, status, b"", {"X-Error-Code": code, "X-Error-Message": code} if code else {})


def _send(
    request: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str], most: int | None = None
) -> None:
    request.send_response(status)
    for name, value in headers.items():
        request.send_header(name, value)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    if request.command != "HEAD":
        with contextlib.suppress(ConnectionError):
            request.wfile.write(body if most is None else body[:most])
    if most is not None and most < len(body):
        request.close_connection = True

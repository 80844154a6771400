"""Requests of a server that speaks OpenAI's API, with the standard library only."""

from __future__ import annotations

import http.client
import json
import os
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

from axpress.core.errors import AxpressError

POLL_SECONDS = 0.5
"""Between two looks at a server that loads."""


class ServerError(AxpressError):
    """What the server, or the way to it, said instead of an answer. `status`: of the response, None: there was none."""

    def __init__(self, text: str, status: int | None = None) -> None:
        super().__init__(text)
        self.status = status


class Connection:
    """The way to the server at `url` (with or without /v1 at its end); each request takes a connection of its own.

    `key` None: that of AXPRESS_API_KEY, if it has one."""

    def __init__(self, url: str, key: str | None = None) -> None:
        try:
            parts = urlsplit(url if "//" in url else "http://" + url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host = None
        if not host or parts.scheme not in ("http", "https"):
            raise ServerError(f"'{url}' is not the address of a server; one looks like http://127.0.0.1:8000")
        self.url = url
        self._connect = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._host, self._port = host, port or self._connect.default_port
        self._path = parts.path.rstrip("/").removesuffix("/v1")
        key = (os.environ.get("AXPRESS_API_KEY", "") if key is None else key).strip()
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    def health(self) -> dict[str, Any]:
        """The server's /health, whatever its status; empty where it has none that we could read."""
        with self._request("GET", "/health", None, timeout=10) as response, suppress(ValueError):
            document = json.loads(response.read())
            return document if isinstance(document, dict) else {}
        return {}

    def get(self, path: str) -> dict[str, Any]:
        """The document at `path`. Raises ServerError where it is none."""
        with self._request("GET", path, None, timeout=10) as response:
            raw = response.read()
            if response.status != 200:
                raise ServerError(_error_text(raw, response.status), response.status)
        with suppress(ValueError):
            document = json.loads(raw)
            if isinstance(document, dict):
                return document
        raise ServerError(f"{self._host}:{self._port} answers {path} with something else than a document of ours")

    def wait(self, tell: Callable[[str], object]) -> dict[str, Any]:
        """/health once the model is loaded and the card is there; `tell` gets each new reason why it is not."""
        told = None
        while (health := self.health()).get("status") in ("loading", "recovering"):
            reason = str(health.get("reason") or "the server loads its model")
            if reason != told:
                tell(reason)
            told = reason
            time.sleep(POLL_SECONDS)
        return health

    def events(self, path: str, document: object) -> Iterator[dict[str, Any] | None]:
        """The events of the stream that answers a POST; None where a comment says that the server is still there.

        Raises ServerError where there is none, or where it breaks off."""
        with self._request("POST", path, json.dumps(document).encode(), timeout=None) as response:
            if response.status != 200:
                raise ServerError(_error_text(response.read(), response.status), response.status)
            try:
                for raw in response:
                    line = raw.strip()
                    if line.startswith(b":"):
                        yield None
                    elif line.startswith(b"data:") and line != b"data: [DONE]":
                        yield json.loads(line[5:])
            except (OSError, http.client.HTTPException, ValueError) as exc:
                raise ServerError(f"the answer broke off: {exc or type(exc).__name__}") from exc

    @contextmanager
    def _request(
        self, method: str, path: str, body: bytes | None, timeout: float | None
    ) -> Iterator[http.client.HTTPResponse]:
        """A response; leaving it closes the connection, which is how an answer is stopped."""
        with closing(self._connect(self._host, self._port, timeout=timeout)) as connection:
            try:
                kind = {"Content-Type": "application/json"} if body is not None else {}
                connection.request(method, self._path + path, body, self._headers | kind)
                response = connection.getresponse()
            except (OSError, http.client.HTTPException) as exc:
                where = f"{self._host}:{self._port}"
                if isinstance(exc, ssl.SSLError) and not isinstance(exc, ssl.SSLCertVerificationError):
                    raise ServerError(f"{where} does not speak https; try --url http://{where}") from exc
                raise ServerError(f"cannot reach {where}: {exc or type(exc).__name__}") from exc
            with response:
                yield response


def _error_text(body: bytes, status: int) -> str:
    with suppress(ValueError, KeyError, TypeError):
        return str(json.loads(body)["error"]["message"])
    return f"the server answered {status}"

"""Keys, and requests of those who have one and of those who have none."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from server_process import RunningServer

from axpress.server.http.access import Access

ALICE, ALICE_NEW, BOB, PLAIN, ENVIRONMENT = (
    f"CANARY-{name}-0123456789" for name in ("alice", "alice-new", "bob", "plain", "environment")
)
WRONG = "CANARY-wrong-0123456789"
KEYS = f"# those who may\nalice:{ALICE}\nalice:{ALICE_NEW}  # replaces the first\n\nbob:{BOB}\n{PLAIN}\n"
APP = "https://app.example"


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def refused(answer: tuple[int, dict[str, str], bytes], status: int, code: str) -> str:
    """Checks an error of ours; returns its message."""
    error = json.loads(answer[2])["error"]
    assert (answer[0], error["code"], set(error)) == (status, code, {"message", "type", "param", "code"}), answer
    assert error["type"] == ("authentication_error" if status == 401 else "invalid_request_error")
    assert "access-control-allow-origin" not in answer[1] and answer[1]["x-request-id"]
    assert answer[1].get("www-authenticate") == ('Bearer realm="axpress"' if status == 401 else None)
    return str(error["message"])


def talk(server: RunningServer, *parts: bytes, until: Callable[[bytes], bool] | None = None) -> bytes:
    """Send `parts` on one connection; what came back until the server closed it (or `until` is true)."""
    got = b""
    with server.raw() as sock:
        for part in parts:
            sock.sendall(part)
        while until is None or not until(got):
            if not (data := sock.recv(65536)):
                break
            got += data
    return got


def http(
    method: str, path: str, *headers: str, host: str | None = "localhost", body: bytes = b"", version: str = "1.1"
) -> bytes:
    lines = [f"{method} {path} HTTP/{version}", *([f"host: {host}"] if host is not None else []), *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


def request_of(access: Access, key: str | None) -> Any:
    """What is left of a request after it was admitted."""
    identity = access.keys.identify(key) if key else None
    return SimpleNamespace(
        app=SimpleNamespace(ctx=SimpleNamespace(access=access)), ctx=SimpleNamespace(key=identity), headers=NO_HEADERS
    )


NO_HEADERS = SimpleNamespace(getone=lambda name, default: default)

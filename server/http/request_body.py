"""A request's body: read under a total deadline and a size limit, and parsed as strict JSON."""

from __future__ import annotations

import asyncio
import json
import math
import re
from typing import Any

from sanic.request import Request
from sanic.response import HTTPResponse

from axpress.core.errors import RequestError

from .errors import HttpError

MAX_KEYS = 2048
MAX_DIGITS = 400
MAX_VALUES = 300_000
"""In all of a document; reading more holds up all answers for a good part of a second. The ids of a prompt of the
longest context are fewer."""
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)
SMALL_BODY = 1 << 16
LINGER_SECONDS = 5.0
LINGER_BYTES = 256 << 20


def check_content_type(request: Request, any_content_type: bool = False) -> None:
    """Raise 415 unless the body is plain (uncompressed) JSON in UTF-8.

    `any_content_type`: a client that is no page may say what it likes; to say nothing is always allowed it. Of a page,
    saying so is asked in any case: no browser lets a page say it to another site without having asked there."""
    if "origin" not in request.headers and (any_content_type or "content-type" not in request.headers):
        _check_encoding(request)
        return
    kind, _, rest = (request.headers.getone("content-type", "") or "").partition(";")
    charset = rest.strip().lower().replace('"', "")
    if kind.strip().lower() != "application/json" or charset not in ("", "charset=utf-8", "charset=utf8"):
        text = "Send the request as Content-Type: application/json (UTF-8)."
        raise HttpError(415, text, code="unsupported_media_type")
    _check_encoding(request)


def _check_encoding(request: Request) -> None:
    if request.headers.getone("content-encoding", "identity").strip().lower() != "identity":
        raise HttpError(415, "Compressed request bodies are not supported.", code="unsupported_media_type")


async def read_body(request: Request, limit: int, seconds: float) -> bytes:
    """All of a streaming route's body: at most `limit` bytes within `seconds` in total.

    Raises HttpError 413 or 408; the connection is closed after either.
    """
    stream: Any = request.stream
    stream.request_max_size = limit
    declared = stream.request_bytes or 0
    if declared > limit:
        raise _too_large(limit)
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(seconds):
            while stream.request_body:
                part = await stream.read()
                if not part:
                    break
                size += len(part)
                if size > limit:
                    raise _too_large(limit)
                parts.append(part)
    except TimeoutError:
        stream.keep_alive = False
        text = f"The request body did not arrive within {seconds:g} seconds."
        raise HttpError(408, text, code="request_timeout") from None
    return b"".join(parts)


def _too_large(limit: int) -> HttpError:
    return HttpError(413, f"The request body is larger than {limit} bytes.", code="request_too_large")


async def answer_unread(request: Request, response: HTTPResponse) -> None:
    """Sends `response` while the body may still be on its way.

    A small body is skipped, so that the connection lives on; a large one ends it.
    """
    stream: Any = request.stream
    waits, stream.expecting_continue = stream.expecting_continue, False  # a client that asked first keeps its body
    small = stream.request_body is True and stream.request_bytes <= SMALL_BODY and not waits
    if stream.request_body and not small:
        stream.keep_alive = False
    sent = await request.respond(response)
    await sent.send(end_stream=True)
    if waits:
        stream.request_body = None
    elif stream.request_body and not small:
        await _discard(request)


async def _discard(request: Request) -> None:
    """Throw the rest of a refused body away for a little while, so that the client reads our answer and not a reset.

    Call after the answer was sent. The connection is closed afterwards in any case.
    """
    stream: Any = request.stream
    stream.keep_alive = False
    stream.request_max_size = LINGER_BYTES
    try:
        async with asyncio.timeout(LINGER_SECONDS):
            while stream.request_body and await stream.read():
                pass
    except (TimeoutError, Exception):
        pass
    stream.request_body = None


def parse_json(body: bytes) -> Any:
    """The document in `body`. Stricter than the standard library: no duplicate keys, no BOM, valid UTF-8, bounded
    depth.

    NaN, Infinity and absurdly long integers come out as non-finite floats, so that the schema refuses them by field
    name. Raises RequestError."""
    if not body:
        raise RequestError("The request body is empty; send a JSON object.", None, "invalid_json")
    if _marks(body) > MAX_VALUES and _marks(_STRING.sub(b"", body)) > MAX_VALUES:
        raise RequestError(f"The request body holds more than {MAX_VALUES} values.", None, "invalid_json")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise RequestError(f"The request body is not valid UTF-8 (byte {exc.start}).", None, "invalid_json") from None
    if text.startswith("\ufeff"):
        raise RequestError("The request body starts with a byte order mark; send plain UTF-8.", None, "invalid_json")
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_int=_integer)
    except json.JSONDecodeError as exc:
        text = f"The request body is not valid JSON: {exc.msg} (line {exc.lineno}, column {exc.colno})."
        raise RequestError(text, None, "invalid_json") from None
    except RecursionError:
        raise RequestError("The request body is nested too deeply.", None, "invalid_json") from None


def _marks(body: bytes) -> int:
    """At least half as many as there are values, outside strings."""
    return body.count(b",") + body.count(b"[") + body.count(b"{")


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= MAX_DIGITS else math.inf


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > MAX_KEYS:
        raise RequestError(f"An object in the request has more than {MAX_KEYS} keys.", None, "invalid_json")
    document = dict(pairs)
    if len(document) != len(pairs):
        seen: set[str] = set()
        key = next(k for k, _ in pairs if k in seen or seen.add(k))  # type: ignore[func-returns-value]
        raise RequestError(f"The key '{key[:64]}' appears twice in one object.", key[:64], "invalid_json")
    return document

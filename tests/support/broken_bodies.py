"""Bodies of requests that are broken before any field is looked at."""

from __future__ import annotations

import json

from server_process import chat

BROKEN_BODIES: dict[str, bytes] = {
    "empty": b"",
    "not json": b"hello",
    "cut off": b'{"messages": [',
    "bom": b"\xef\xbb\xbf" + json.dumps(chat()).encode(),
    "utf-16": json.dumps(chat()).encode("utf-16"),
    "invalid utf-8": b'{"messages": [{"role": "user", "content": "\xff"}]}',
    "nesting": b'{"messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "nesting of objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "array": b"[]",
    "string": b'"x"',
    "null": b"null",
    "number": b"1",
    "trailing": json.dumps(chat()).encode() + b"{}",
    "many keys": b"{" + b",".join(b'"k%d": 1' % i for i in range(100_000)) + b"}",
    "control character": b'{"messages": [{"role": "user", "content": "\x01"}]}',
}

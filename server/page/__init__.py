"""The page at `/` and its files. They are read once, and only they can be asked for: no path ever reaches the file
system."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sanic.exceptions import NotFound
from sanic.request import Request
from sanic.response import HTTPResponse

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_HEADERS = {
    # Nothing but the page's own files: text of a model or of a visitor that ended up as markup could still do nothing.
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",  # kept, but asked for again: the page of a new version is there at the next reload
}


@dataclass(frozen=True, slots=True)
class PageFile:
    """A file as it is sent."""

    content: bytes
    content_type: str
    etag: str


@cache
def page_files() -> dict[str, PageFile]:
    """All files of the page by name."""
    files = {}
    for path in sorted(Path(__file__).parent.iterdir()):
        if path.suffix in _TYPES:
            content = path.read_bytes()
            files[path.name] = PageFile(content, _TYPES[path.suffix], f'"{hashlib.sha256(content).hexdigest()[:24]}"')
    return files


def send_file(request: Request, name: str) -> HTTPResponse:
    """The answer for one of the page's files. Raises NotFound."""
    file = page_files().get(name)
    if file is None:
        raise NotFound(f"no file {name!r}")
    headers = {**_HEADERS, "etag": file.etag}
    known = [tag.strip().removeprefix("W/") for tag in request.headers.getone("if-none-match", "").split(",")]
    if file.etag in known or "*" in known:
        return HTTPResponse(status=304, headers=headers)
    if request.method == "HEAD":
        headers["content-length"] = str(len(file.content))
        return HTTPResponse(headers=headers, content_type=file.content_type)
    return HTTPResponse(file.content, headers=headers, content_type=file.content_type)

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
    ".png": "image/png",
    ".woff2": "font/woff2",
    ".webmanifest": "application/manifest+json",
}
_HEADERS = {
    # Nothing but the page's own files: text of a model or of a visitor that ended up as markup could still do nothing.
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "font-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",  # kept, but asked for again: the page of a new version is there at the next reload
}


_FOR_EVER = "public, max-age=31536000, immutable"  # what has its hash in its name, as the libraries in vendor/


@dataclass(frozen=True, slots=True)
class PageFile:
    """A file as it is sent."""

    content: bytes
    content_type: str
    etag: str
    headers: dict[str, str]


@cache
def page_files() -> dict[str, PageFile]:
    """All files of the page by name, those of vendor/ as vendor/NAME."""
    folder = Path(__file__).parent
    files = {}
    for path in sorted((*folder.iterdir(), *(folder / "vendor").iterdir())):
        if path.suffix in _TYPES:
            content = path.read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            kept = {"cache-control": _FOR_EVER} if f".{digest[:12]}." in path.name else {}
            headers = {**_HEADERS, **kept, "etag": f'"{digest[:24]}"'}
            name = path.relative_to(folder).as_posix()
            files[name] = PageFile(content, _TYPES[path.suffix], headers["etag"], headers)
    return files


def send_file(request: Request, name: str) -> HTTPResponse:
    """The answer for one of the page's files. Raises NotFound."""
    file = page_files().get(name)
    if file is None:
        raise NotFound(f"no file {name!r}")
    headers = dict(file.headers)
    known = [tag.strip().removeprefix("W/") for tag in request.headers.getone("if-none-match", "").split(",")]
    if file.etag in known or "*" in known:
        return HTTPResponse(status=304, headers=headers)
    if request.method == "HEAD":
        headers["content-length"] = str(len(file.content))
        return HTTPResponse(headers=headers, content_type=file.content_type)
    return HTTPResponse(file.content, headers=headers, content_type=file.content_type)

"""GET /report: what somebody needs to know who is to find out what happened here. No prompt, no key, no address, no
name of a user or of a host: made to be attached to an issue."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

from sanic.request import Request
from sanic.response import HTTPResponse

from .. import version
from ..http.logs import RECENT
from ..http.routing import json_response
from ..serving.engine_service import Service
from ..settings import Settings
from .live import Feed

_COUNTED = ("allow_origins", "allow_hosts", "aliases")
_HOME = re.compile(r"(?<![\w.~/-])(/(?:home|Users)/[^/\s'\"]+|/root)(?=[/\s'\"]|$)")
_ADDRESS = re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}\b|\b(?:[0-9A-Fa-f]{1,4}:){3,}[0-9A-Fa-f:]*")


def scrubbed(text: str) -> str:
    """`text` without homes and addresses."""
    return _ADDRESS.sub("(address)", _HOME.sub("~", text))


def public_settings(settings: Settings) -> dict[str, Any]:
    """Every option as it is set; of paths the last part, of names of others how many, of keys whether there are any."""
    said: dict[str, Any] = {}
    for field in fields(settings):
        value = getattr(settings, field.name)
        if field.name == "api_keys":
            value = value is not None
        elif field.name == "host":
            value = value if value in ("127.0.0.1", "::1", "0.0.0.0", "::", "localhost") else "(address)"
        elif field.name in _COUNTED:
            value = len(value)
        elif isinstance(value, Path):
            value = value.name
        elif field.name == "more_models":
            value = [path.name for path in value]
        said[field.name] = value
    return said


async def get_report(request: Request) -> HTTPResponse:
    """Version, settings, state, counters, the picture of /live and the latest events."""
    service: Service = request.app.ctx.service
    feed: Feed = request.app.ctx.live
    live = await feed.facts()
    events = [[*record[:3], scrubbed(record[3])] for record in RECENT.records]
    health = {name: scrubbed(v) if isinstance(v, str) else v for name, v in service.health()[1].items()}
    document = {
        "axpress": version(),
        "settings": public_settings(service.settings),
        "health": health,
        "picture": live["picture"],
        "responses": [[*key, count] for key, count in service.answers.responses.items()],
        "failures": dict(service.answers.failures),
        "events": events,
    }
    return json_response(document, 200, {"cache-control": "no-store"})

"""GET and DELETE /v1/responses/{id}: responses that were stored, where the server stores any."""

from __future__ import annotations

from typing import Any, Literal

from sanic.request import Request
from sanic.response import HTTPResponse
from typing_extensions import TypedDict

from ..http.access import owner_of
from ..http.errors import HttpError
from ..http.replies import closed
from ..http.routing import json_response
from ..serving.handler import in_thread
from .response_store import OwnResponses, StoredResponse

MOST_ITEMS = 100
"""OpenAI's bound of a page; 20 come where the request does not say."""


@closed
class DeletedResponse(TypedDict):
    """What is said of a response that is gone."""

    id: str
    object: Literal["response"]
    deleted: Literal[True]


@closed
class InputItems(TypedDict):
    """A page of the items that a response was made from, those of the responses before it included."""

    object: Literal["list"]
    data: list[dict[str, Any]]
    first_id: str | None
    last_id: str | None
    has_more: bool


def own_responses(request: Request) -> OwnResponses | None:
    """The stored responses of whoever asks; None where nothing is stored."""
    store = request.app.ctx.responses
    return None if store is None else OwnResponses(store, owner_of(request))


async def get_response(request: Request, name: str) -> HTTPResponse:
    """The response as it was sent."""
    if request.args.get("stream", "false") != "false":
        raise _wrong("stream", "false: a stored response is given whole")
    return json_response((await _stored(request, name)).response)


async def delete_response(request: Request, name: str) -> HTTPResponse:
    """Forgets it; responses that went on from it stay whole."""
    own = own_responses(request)
    if own is None or not await in_thread(request.app.ctx.service, own.delete, name):
        raise _not_found(own, name)
    return json_response({"id": name, "object": "response", "deleted": True})


async def list_input_items(request: Request, name: str) -> HTTPResponse:
    """What the response was made from, the last item first unless `order` is asc."""
    items = (await _stored(request, name)).items
    order, after, limit = (request.args.get(*each) for each in (("order", "desc"), ("after", ""), ("limit", "20")))
    if order not in ("asc", "desc"):
        raise _wrong("order", "asc or desc")
    if limit not in map(str, range(1, MOST_ITEMS + 1)):
        raise _wrong("limit", f"1 to {MOST_ITEMS}")
    if order == "desc":
        items = items[::-1]
    ids = [item["id"] for item in items]
    if after and after not in ids:
        raise _wrong("after", "the id of an item of this response")
    start = ids.index(after) + 1 if after else 0
    end = start + int(limit)
    shown = ids[start:end]
    ends = {"first_id": shown[0], "last_id": shown[-1]} if shown else {"first_id": None, "last_id": None}
    return json_response({"object": "list", "data": items[start:end], **ends, "has_more": end < len(ids)})


async def _stored(request: Request, name: str) -> StoredResponse:
    """Raises HttpError where there is none."""
    own = own_responses(request)
    found: StoredResponse | None = None
    if own is not None:
        found = await in_thread(request.app.ctx.service, own.get, name)
    if found is None:
        raise _not_found(own, name)
    return found


def _not_found(own: OwnResponses | None, name: str) -> HttpError:
    why = "nothing is stored here, each answer is given once"
    if own is not None:
        why = "it never was stored, was deleted, or is older than what is kept"
    text = f"There is no response '{name[:128]}': {why}."
    return HttpError(404, text, param="response_id", code="response_not_found")


def _wrong(parameter: str, right: str) -> HttpError:
    return HttpError(400, f"'{parameter}': use {right}.", param=parameter, code="invalid_value")

"""POST /v1/responses: OpenAI's Responses."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Self

import orjson
from sanic.request import Request
from sanic.response import HTTPResponse

from axpress.core.errors import RequestError

from ..http.routing import Handler
from ..serving.dialect import Answer, Dialect, StreamWriter, Totals
from ..serving.generation_spec import FieldNames, GenerationSpec
from ..serving.handler import answer_request
from ..serving.model_names import ModelNames
from ..serving.prepared_request import PreparedRequest
from .response_items import listed_items, neutral_items
from .response_store import OwnResponses
from .responses_request import ResponsesRequest
from .responses_stream import Output, ResponseStream
from .stored_responses import own_responses


def responds(read: Callable[..., Dialect]) -> Handler:
    """The handler of a route whose requests `read` understands, which takes the sender's `own` stored responses too."""

    async def handler(request: Request, **_: str) -> HTTPResponse | None:
        return await answer_request(request, partial(read, own=own_responses(request)))

    return handler


class ResponsesDialect(Dialect):
    """OpenAI's Responses."""

    def __init__(self, request: ResponsesRequest, own: OwnResponses | None = None) -> None:
        """Raises RequestError where the response to go on from is not there."""
        self.request = request
        self._own = None if request.store is False else own
        self._earlier = earlier_items(request, own)
        self.spec = spec(request, self._earlier)

    @classmethod
    def read(cls, document: Any, names: ModelNames, own: OwnResponses | None = None) -> Self:
        """`own`: the sender's stored responses; None where nothing is stored."""
        request = ResponsesRequest.read(document)
        if own is None:
            request.refuse_store()
        return cls(request, own)

    def pictures_taken(self) -> None:
        super().pictures_taken()
        if self._own is None:  # what is stored keeps its pictures
            self.request = self.request.model_copy(update={"input": ""})

    def stream(self, prepared: PreparedRequest) -> StreamWriter:
        return ResponseStream(prepared, partial(self._response, prepared), partial(self._finished, prepared))

    def whole(self, prepared: PreparedRequest, answers: list[Answer], totals: Totals) -> bytes:
        output = Output(prepared)
        for _ in output.take(answers[0].deltas):
            pass
        status = "completed" if answers[0].finish_reason == "stop" else "incomplete"
        return orjson.dumps(self._finished(prepared, status, output.items, totals=totals))

    def _finished(self, prepared: PreparedRequest, status: str, output: list[Any], *, totals: Totals) -> dict[str, Any]:
        """The response object in the end, which is stored where it shall be."""
        response = self._response(prepared, status, output, totals=totals)
        if self._own is not None:
            self._own.put(response, listed_items(self.request.input, prepared.nonce, self._earlier))
        return response

    def _response(
        self,
        prepared: PreparedRequest,
        status: str,
        output: list[Any],
        *,
        totals: Totals | None = None,
        error: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """The response object: what came, and the settings that it came from, as OpenAI repeats them."""
        return {
            "id": "resp_" + prepared.nonce,
            "object": "response",
            "created_at": prepared.created,
            "completed_at": int(time.time()) if status == "completed" else None,
            "status": status,
            "error": error,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "model": prepared.model,
            "output": output,
            "usage": None if totals is None else usage(totals),
            **self._settings(prepared),
        }

    def _settings(self, prepared: PreparedRequest) -> dict[str, Any]:
        request, params = self.request, prepared.requests[0].params
        tier = request.service_tier
        text = request.echoed("text") or {}
        return {
            "instructions": request.instructions,
            "max_output_tokens": request.max_output_tokens,
            "max_tool_calls": request.max_tool_calls,
            "temperature": params.temperature,
            "top_p": params.top_p,
            "top_logprobs": request.logprobs or 0,
            "text": {"format": text.get("format") or {"type": "text"}, "verbosity": "medium"},
            "tools": [
                {"description": None, "parameters": None, "strict": True, **tool}
                for tool in request.echoed("tools") or []
            ],
            "tool_choice": request.echoed("tool_choice") or "auto",
            "parallel_tool_calls": request.parallel_tool_calls is not False,
            "reasoning": {
                "effort": request.reasoning.effort if request.reasoning is not None else None,
                "summary": None,
            },
            "service_tier": "default" if tier in (None, "auto") else tier,
            "metadata": request.metadata or {},
            "prompt_cache_key": request.prompt_cache_key,
            "safety_identifier": request.safety_identifier,
            "user": request.user,
            "background": False,
            "previous_response_id": request.previous_response_id,
            "store": self._own is not None,
            "truncation": "disabled",
        }


def usage(totals: Totals) -> dict[str, Any]:
    """Responses' usage object. What was not found in the cache is written to it."""
    return {
        "input_tokens": totals.prompt_tokens,
        "input_tokens_details": {
            "cached_tokens": totals.cached_tokens,
            "cache_write_tokens": totals.prompt_tokens - totals.cached_tokens,
        },
        "output_tokens": totals.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": totals.reasoning_tokens},
        "total_tokens": totals.prompt_tokens + totals.completion_tokens,
    }


def earlier_items(request: ResponsesRequest, own: OwnResponses | None) -> list[dict[str, Any]]:
    """What the conversation begins with: all of the response that the request goes on from, its output too. Raises
    RequestError where there is no such response."""
    name = request.previous_response_id
    if name is None or own is None:
        return []
    stored = own.get(name)
    if stored is None:
        text = f"'previous_response_id': there is no response '{name[:128]}': it never was stored, was deleted, or is"
        text += " older than what is kept. Send the whole conversation as 'input'."
        raise RequestError(text, "previous_response_id", "previous_response_not_found")
    output: list[dict[str, Any]] = stored.response["output"]
    return [*stored.items, *output]


def spec(request: ResponsesRequest, earlier: Sequence[dict[str, Any]] = ()) -> GenerationSpec:
    """The request in neutral form. `earlier`: items that come before its input."""
    thinking, budget = request.asked_thinking()
    return GenerationSpec(
        model=request.model,
        stream=bool(request.stream),
        messages=neutral_items(request.input, request.instructions, earlier),
        tools=request.asked_tools(),
        body=request.asked_body(),
        thinking=thinking,
        thinking_budget=budget,
        max_tokens=request.max_output_tokens,
        sampling=request.sampling(request.logprobs),
        prompt_cache_key=request.prompt_cache_key,
        low_priority=request.service_tier == "flex",
        names=FieldNames(
            prompt="input",
            max_tokens="max_output_tokens",
            thinking="reasoning.effort",
            tool_parameters="tools[{}].parameters",
        ),
    )

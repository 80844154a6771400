"""POST /v1/responses: OpenAI's Responses, without a store."""

from __future__ import annotations

import time
from functools import partial
from typing import Any, Self

import orjson
from sanic.request import Request
from sanic.response import HTTPResponse

from ..http.errors import HttpError
from ..serving.dialect import Answer, Dialect, StreamWriter, Totals
from ..serving.generation_spec import FieldNames, GenerationSpec
from ..serving.model_names import ModelNames
from ..serving.prepared_request import PreparedRequest
from .response_items import neutral_items
from .responses_request import ResponsesRequest
from .responses_stream import Output, ResponseStream


async def not_stored(request: Request, name: str) -> HTTPResponse:
    """The handler for an earlier response: none is ever found, since none is stored."""
    text = f"There is no response '{name[:128]}': nothing is stored here, each answer is given once."
    raise HttpError(404, text, param="response_id", code="response_not_found")


class ResponsesDialect(Dialect):
    """OpenAI's Responses."""

    def __init__(self, request: ResponsesRequest) -> None:
        self.request = request
        self.spec = spec(request)

    @classmethod
    def read(cls, document: Any, names: ModelNames) -> Self:
        return cls(ResponsesRequest.read(document))

    def stream(self, prepared: PreparedRequest) -> StreamWriter:
        return ResponseStream(prepared, partial(self._response, prepared))

    def whole(self, prepared: PreparedRequest, answers: list[Answer], totals: Totals) -> bytes:
        output = Output(prepared)
        for _ in output.take(answers[0].deltas):
            pass
        status = "completed" if answers[0].finish_reason == "stop" else "incomplete"
        return orjson.dumps(self._response(prepared, status, output.items, totals=totals))

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
            "previous_response_id": None,
            "store": False,
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


def spec(request: ResponsesRequest) -> GenerationSpec:
    """The request in neutral form."""
    thinking, budget = request.asked_thinking()
    return GenerationSpec(
        model=request.model,
        stream=bool(request.stream),
        messages=neutral_items(request.input, request.instructions),
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

"""POST /v1/chat/completions: OpenAI's chat."""

from __future__ import annotations

from typing import Any, Self

from sanic import Blueprint
from sanic.request import Request
from sanic.response import HTTPResponse

from ..schema.fields import stop_strings
from ..serving.dialect import Answer, Dialect, StreamWriter, Totals
from ..serving.generation_spec import GenerationSpec, sampling_of
from ..serving.handler import answer
from ..serving.prepared_request import PreparedRequest
from .chat_request import ChatRequest
from .messages import neutral_messages
from .reply_parts import AnswerHead, ChatStream, choice, completion, timings, usage

chat = Blueprint("chat")


@chat.post("/v1/chat/completions", stream=True)
async def chat_completions(request: Request) -> HTTPResponse | None:
    """Answer a conversation, streamed or whole."""
    return await answer(request, ChatDialect)


class ChatDialect(Dialect):
    """OpenAI's chat completions."""

    def __init__(self, request: ChatRequest) -> None:
        self.request = request
        self.spec = spec(request)
        self._old_calls = bool(request.functions)

    @classmethod
    def read(cls, document: Any) -> Self:
        return cls(ChatRequest.read(document))

    def _head(self, prepared: PreparedRequest) -> AnswerHead:
        """A service tier is told when one was asked for, "auto" being the default one."""
        tier = self.request.service_tier
        tier = "default" if tier == "auto" else tier
        return AnswerHead("chatcmpl-" + prepared.nonce, prepared.created, prepared.model, prepared.fingerprint, tier)

    def stream(self, prepared: PreparedRequest) -> StreamWriter:
        include_usage = bool(self.request.stream_options and self.request.stream_options.include_usage)
        return ChatStream(self._head(prepared), prepared, include_usage, self._old_calls)

    def whole(self, prepared: PreparedRequest, answers: list[Answer], totals: Totals) -> bytes:
        made = [choice(index, one, prepared, self._old_calls) for index, one in enumerate(answers)]
        timed = timings(totals, prepared.engine.info.emulated) if prepared.spec.timings else None
        return completion(self._head(prepared), made, usage(totals), timed)


def spec(request: ChatRequest) -> GenerationSpec:
    """The request in neutral form."""
    thinking, budget, thinking_field = request.asked_thinking()
    limit = "max_completion_tokens" if request.max_completion_tokens is not None else "max_tokens"
    return GenerationSpec(
        model=request.model,
        stream=bool(request.stream),
        messages=neutral_messages(request.messages),
        tools=request.asked_tools(),
        body=request.asked_body()[1],
        thinking=thinking,
        thinking_budget=budget,
        thinking_field=thinking_field,
        tools_field="functions[{}].parameters" if request.functions else "tools[{}].function.parameters",
        n=request.n or 1,
        max_tokens=getattr(request, limit),
        max_tokens_field=limit,
        sampling=sampling_of(request, (request.top_logprobs or 0) if request.logprobs else None),
        logit_bias=request.logit_bias or {},
        stop=stop_strings(request.stop),
        ignore_eos=bool(request.ignore_eos),
        prediction=request.prediction.text if request.prediction is not None else None,
        prompt_cache_key=request.prompt_cache_key,
        low_priority=request.service_tier == "flex",
        timings=bool(request.timings),
    )

"""POST /v1/chat/completions: OpenAI's chat."""

from __future__ import annotations

from typing import Any, Self

from sanic import Blueprint
from sanic.request import Request
from sanic.response import HTTPResponse

from .answering import answer
from .ask import Ask, sampling_of
from .dialect import Answer, Dialect, StreamWriter, Totals
from .job import Job
from .schema.chat import ChatRequest
from .schema.fields import stop_strings
from .schema.messages import neutral_messages
from .sse import AnswerHead, ChatStream, choice, completion, timings, usage

chat = Blueprint("chat")


@chat.post("/v1/chat/completions", stream=True)
async def chat_completions(request: Request) -> HTTPResponse | None:
    """Answer a conversation, streamed or whole."""
    return await answer(request, ChatDialect)


class ChatDialect(Dialect):
    """OpenAI's chat completions."""

    def __init__(self, request: ChatRequest) -> None:
        self.request = request
        self.ask = ask(request)
        self._old_calls = bool(request.functions)

    @classmethod
    def read(cls, document: Any) -> Self:
        return cls(ChatRequest.read(document))

    def _head(self, job: Job) -> AnswerHead:
        """A service tier is told when one was asked for, "auto" being the default one."""
        tier = self.request.service_tier
        tier = "default" if tier == "auto" else tier
        return AnswerHead("chatcmpl-" + job.nonce, job.created, job.model, job.fingerprint, tier)

    def stream(self, job: Job) -> StreamWriter:
        include_usage = bool(self.request.stream_options and self.request.stream_options.include_usage)
        return ChatStream(self._head(job), job, include_usage, self._old_calls)

    def whole(self, job: Job, answers: list[Answer], totals: Totals) -> bytes:
        made = [choice(index, one, job, self._old_calls) for index, one in enumerate(answers)]
        timed = timings(totals, job.engine.info.emulated) if job.ask.timings else None
        return completion(self._head(job), made, usage(totals), timed)


def ask(request: ChatRequest) -> Ask:
    """The request in neutral form."""
    thinking, budget, thinking_field = request.asked_thinking()
    limit = "max_completion_tokens" if request.max_completion_tokens is not None else "max_tokens"
    return Ask(
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
        background=request.service_tier == "flex",
        timings=bool(request.timings),
    )

"""POST /v1/chat/completions: OpenAI's chat."""

from __future__ import annotations

from typing import Any, Self

from ..schema.fields import stop_strings
from ..schema.logprobs import logprobs_content
from ..serving.dialect import Answer, Dialect, StreamWriter, Totals
from ..serving.generation_spec import FieldNames, GenerationSpec
from ..serving.model_names import ModelNames
from ..serving.output_parser import Piece
from ..serving.prepared_request import PreparedRequest
from .chat_request import ChatRequest
from .chat_stream import ChatStream
from .messages import neutral_messages
from .reply_parts import AnswerHead, finish_reason


class ChatDialect(Dialect):
    """OpenAI's chat completions."""

    def __init__(self, request: ChatRequest) -> None:
        self.request = request
        self.spec = spec(request)

    @classmethod
    def read(cls, document: Any, names: ModelNames) -> Self:
        return cls(ChatRequest.read(document))

    def pictures_taken(self) -> None:
        super().pictures_taken()
        self.request = self.request.model_copy(update={"messages": []})

    def _head(self, prepared: PreparedRequest) -> AnswerHead:
        """A service tier is told when one was asked for, "auto" being the default one."""
        tier = self.request.service_tier
        return AnswerHead.of("chatcmpl-", prepared, "default" if tier == "auto" else tier)

    def stream(self, prepared: PreparedRequest) -> StreamWriter:
        return ChatStream(self._head(prepared), prepared, self.request)

    def whole(self, prepared: PreparedRequest, answers: list[Answer], totals: Totals) -> bytes:
        old_calls = bool(self.request.functions)
        choices = [choice(index, answer, prepared, old_calls) for index, answer in enumerate(answers)]
        timed = bool(self.request.timings)
        return self._head(prepared).whole("chat.completion", choices, totals, prepared, timed)


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
        n=request.n or 1,
        max_tokens=getattr(request, limit),
        sampling=request.sampling((request.top_logprobs or 0) if request.logprobs else None),
        stop=stop_strings(request.stop),
        ignore_eos=bool(request.ignore_eos),
        prediction=request.prediction.text if request.prediction is not None else None,
        prompt_cache_key=request.prompt_cache_key,
        low_priority=request.service_tier == "flex",
        names=FieldNames(
            max_tokens=limit,
            thinking=thinking_field,
            tool_parameters="functions[{}].parameters" if request.functions else "tools[{}].function.parameters",
        ),
    )


def choice(index: int, answer: Answer, prepared: PreparedRequest, old_calls: bool = False) -> dict[str, Any]:
    """One choice of a whole answer. `old_calls`: a call is told as `function_call`."""
    parser, finish = prepared.parser(index), answer.finish_reason
    message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None}
    if parser is not None:
        message |= _parts(parser.read(answer.deltas), prepared, index, old_calls)
        finish = finish_reason(finish, parser, old_calls)
    logprobs = None
    if prepared.token_bytes is not None:
        logprobs = {"content": logprobs_content(answer.logprobs, prepared.token_bytes), "refusal": None}
    return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": finish}


def _parts(pieces: list[Piece], prepared: PreparedRequest, index: int, old_calls: bool) -> dict[str, Any]:
    """The message's fields that an answer's pieces make."""
    joined = {kind: "".join([p.text for p in pieces if p.kind == kind]) for kind in ("content", "reasoning")}
    calls = [
        {
            "id": prepared.call_id(index, call.call),
            "type": "function",
            "function": {
                "name": call.text,
                "arguments": "".join([p.text for p in pieces if p.kind == "arguments" and p.call == call.call]),
            },
        }
        for call in pieces
        if call.kind == "call"
    ]
    fields: dict[str, Any] = {"content": joined["content"] or (None if calls else "")}
    if any(p.kind == "reasoning" for p in pieces):
        fields["reasoning_content"] = joined["reasoning"]
    if calls and old_calls:
        fields["function_call"] = calls[0]["function"]
    elif calls:
        fields["tool_calls"] = calls
    return fields

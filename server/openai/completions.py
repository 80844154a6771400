"""POST /v1/completions: OpenAI's plain completions."""

from __future__ import annotations

from typing import Any, Self

import orjson
from sanic import Blueprint
from sanic.request import Request
from sanic.response import HTTPResponse

from axpress.core.request import Delta, TokenLogprob
from axpress.core.tokenizer.tokenizer import Tokenizer

from ..schema.fields import stop_strings
from ..serving.dialect import Answer, Dialect, StreamWriter, Totals
from ..serving.generation_spec import GenerationSpec, sampling_of
from ..serving.handler import answer
from ..serving.prepared_request import PreparedRequest
from .completions_request import DEFAULT_MAX_TOKENS, CompletionRequest
from .reply_parts import AnswerHead, Chunks, timings, usage

completions = Blueprint("completions")


@completions.post("/v1/completions", stream=True)
async def plain_completions(request: Request) -> HTTPResponse | None:
    """Go on from one prompt or several, streamed or whole."""
    return await answer(request, CompletionDialect)


class CompletionDialect(Dialect):
    """OpenAI's completions."""

    def __init__(self, request: CompletionRequest) -> None:
        self.request = request
        self.spec = spec(request)

    @classmethod
    def read(cls, document: Any) -> Self:
        return cls(CompletionRequest.read(document))

    def stream(self, prepared: PreparedRequest) -> StreamWriter:
        include_usage = bool(self.request.stream_options and self.request.stream_options.include_usage)
        return CompletionStream(_head(prepared), prepared, include_usage, self._echoes(prepared))

    def whole(self, prepared: PreparedRequest, answers: list[Answer], totals: Totals) -> bytes:
        choices = [
            {
                "index": index,
                "text": echo + one.text,
                "logprobs": Logprobs(prepared.engine.text, len(echo)).of(one.logprobs)
                if prepared.spec.wants_logprobs
                else None,
                "finish_reason": one.finish_reason,
            }
            for index, (one, echo) in enumerate(zip(answers, self._echoes(prepared), strict=True))
        ]
        extra = {"timings": timings(totals, prepared.engine.info.emulated)} if prepared.spec.timings else {}
        return orjson.dumps(
            {**_head(prepared).fields("text_completion"), "choices": choices, "usage": usage(totals), **extra}
        )

    def _echoes(self, prepared: PreparedRequest) -> list[str]:
        """What each answer's text begins with: its prompt, where that is wanted. Ids are spelled out, control tokens
        too."""
        if not self.request.echo:
            return [""] * len(prepared.requests)
        text = prepared.engine.text
        shown = [
            one if isinstance(one, str) else text.decode(one, skip_special_tokens=False)
            for one in prepared.spec.prompts
        ]
        return [one for one in shown for _ in range(prepared.spec.n)]


def _head(prepared: PreparedRequest) -> AnswerHead:
    return AnswerHead("cmpl-" + prepared.nonce, prepared.created, prepared.model, prepared.fingerprint)


def spec(request: CompletionRequest) -> GenerationSpec:
    """The request in neutral form."""
    return GenerationSpec(
        model=request.model,
        stream=bool(request.stream),
        prompts=request.prompts,
        prompt_field="prompt",
        control_tokens=bool(request.parse_special),
        body=request.asked_body()[1],
        n=request.n or 1,
        max_tokens=request.max_tokens or DEFAULT_MAX_TOKENS,
        clip=request.max_tokens is None,
        sampling=sampling_of(request, request.logprobs),
        logit_bias=request.logit_bias or {},
        stop=stop_strings(request.stop),
        ignore_eos=bool(request.ignore_eos),
        prompt_cache_key=request.prompt_cache_key,
        timings=bool(request.timings),
    )


class Logprobs:
    """The `logprobs` object of one answer, piece by piece. Offsets count the characters of the answer's text, from
    `offset` on."""

    def __init__(self, text: Tokenizer, offset: int) -> None:
        self._text, self._offset = text, offset
        self._detokenizer = text.detokenizer()

    def of(self, logprobs: list[TokenLogprob]) -> dict[str, Any]:
        """The object for the next tokens: the likeliest ones by their text, the chosen one always among them."""
        offsets = []
        for one in logprobs:
            offsets.append(self._offset)
            self._offset += len(self._detokenizer.push(one.token))
        return {
            "tokens": [self._spelled(one.token) for one in logprobs],
            "token_logprobs": [_finite(one.logprob) for one in logprobs],
            "top_logprobs": [
                {self._spelled(token): _finite(logprob) for token, logprob in ((one.token, one.logprob), *one.top)}
                for one in logprobs
            ],
            "text_offset": offsets,
        }

    def _spelled(self, token: int) -> str:
        """A token's text, or its bytes in OpenAI's spelling where it is a part of a character."""
        data = self._text.token_bytes(token)
        try:
            return data.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join([f"\\x{byte:02x}" for byte in data])


def _finite(logprob: float) -> float:
    return max(logprob, -9999.0)


class CompletionStream(Chunks):
    """The chunks of plain completions. Per token: one JSON string between two constants."""

    def __init__(self, head: AnswerHead, prepared: PreparedRequest, include_usage: bool, echoes: list[str]) -> None:
        super().__init__(head, "text_completion", prepared, include_usage)
        self._heads = [
            self.start + b',"choices":[{"index":%d,"text":' % index for index in range(len(prepared.requests))
        ]
        self._plain_tail = b',"logprobs":null,"finish_reason":null}]' + self.tail
        self._echoes = echoes
        self._logprobs = (
            [Logprobs(prepared.engine.text, len(echo)) for echo in echoes] if prepared.spec.wants_logprobs else None
        )

    def begin(self) -> bytes:
        pairs = zip(self._heads, self._echoes, strict=True)
        return b"".join([head + orjson.dumps(echo) + self._plain_tail for head, echo in pairs if echo])

    def encode(self, index: int, deltas: list[Delta]) -> bytes:
        head, reason = self._heads[index], deltas[-1].finish_reason
        if self._logprobs is None:
            data = b"".join([head + orjson.dumps(delta.text) + self._plain_tail for delta in deltas if delta.text])
        else:
            data = b"".join([self._detailed(index, delta) for delta in deltas if delta.text or delta.logprobs])
        if reason in ("stop", "length"):
            data += head + b'"","logprobs":null,"finish_reason":' + orjson.dumps(reason) + b"}]" + self.tail
        return data

    def _detailed(self, index: int, delta: Delta) -> bytes:
        assert self._logprobs is not None
        logprobs = orjson.dumps(self._logprobs[index].of(list(delta.logprobs)))
        return (
            self._heads[index]
            + orjson.dumps(delta.text)
            + b',"logprobs":'
            + logprobs
            + b',"finish_reason":null}]'
            + self.tail
        )

"""POST /v1/completions: OpenAI's plain completions."""

from __future__ import annotations

from typing import Any, Self

import orjson

from axpress.core.request import Delta, TokenLogprob
from axpress.core.tokenizer.tokenizer import Tokenizer

from ..schema.fields import stop_strings
from ..schema.logprobs import finite
from ..serving.dialect import Answer, Dialect, StreamWriter, Totals
from ..serving.generation_spec import FieldNames, GenerationSpec
from ..serving.model_names import ModelNames
from ..serving.prepared_request import PreparedRequest
from .completions_request import DEFAULT_MAX_TOKENS, CompletionRequest, each_prompt
from .reply_parts import AnswerHead, Chunks


class CompletionDialect(Dialect):
    """OpenAI's completions."""

    def __init__(self, request: CompletionRequest) -> None:
        self.request = request
        self.spec = spec(request)

    @classmethod
    def read(cls, document: Any, names: ModelNames) -> Self:
        return cls(CompletionRequest.read(document))

    def stream(self, prepared: PreparedRequest) -> StreamWriter:
        head = AnswerHead.of("cmpl-", prepared)
        return CompletionStream(head, prepared, self.request, self._echoes(prepared))

    def whole(self, prepared: PreparedRequest, answers: list[Answer], totals: Totals) -> bytes:
        choices = []
        for index, (answer, echo) in enumerate(zip(answers, self._echoes(prepared), strict=True)):
            logprobs = None
            if prepared.spec.wants_logprobs:
                logprobs = Logprobs(prepared.engine.text, len(echo)).of(answer.logprobs)
            choice = {"index": index, "text": echo + answer.text, "logprobs": logprobs}
            choices.append({**choice, "finish_reason": answer.finish_reason})
        head = AnswerHead.of("cmpl-", prepared)
        return head.whole("text_completion", choices, totals, prepared, bool(self.request.timings))

    def _echoes(self, prepared: PreparedRequest) -> list[str]:
        """What each answer's text begins with: its prompt, where that is wanted. Ids are spelled out, control tokens
        too."""
        if not self.request.echo:
            return [""] * len(prepared.requests)
        text = prepared.engine.text
        prompts = [
            prompt if isinstance(prompt, str) else text.decode(prompt, skip_special_tokens=False)
            for prompt in prepared.spec.prompts
        ]
        return [prompt for prompt in prompts for _ in range(prepared.spec.n)]


def spec(request: CompletionRequest) -> GenerationSpec:
    """The request in neutral form."""
    return GenerationSpec(
        model=request.model,
        stream=bool(request.stream),
        prompts=each_prompt(request.prompt),
        control_tokens=bool(request.parse_special),
        suffix=request.suffix or None,
        body=request.asked_body()[1],
        n=request.n or 1,
        max_tokens=request.max_tokens or DEFAULT_MAX_TOKENS,
        clip=request.max_tokens is None,
        sampling=request.sampling(request.logprobs),
        stop=stop_strings(request.stop),
        ignore_eos=bool(request.ignore_eos),
        prompt_cache_key=request.prompt_cache_key,
        names=FieldNames(prompt="prompt"),
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
        for chosen in logprobs:
            offsets.append(self._offset)
            self._offset += len(self._detokenizer.push(chosen.token))
        return {
            "tokens": [self._spelled(chosen.token) for chosen in logprobs],
            "token_logprobs": [finite(chosen.logprob) for chosen in logprobs],
            "top_logprobs": [
                {self._spelled(token): finite(value) for token, value in ((chosen.token, chosen.logprob), *chosen.top)}
                for chosen in logprobs
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


class CompletionStream(Chunks):
    """The chunks of plain completions. Per token: one JSON string between two constants."""

    def __init__(
        self, head: AnswerHead, prepared: PreparedRequest, request: CompletionRequest, echoes: list[str]
    ) -> None:
        super().__init__(head, "text_completion", prepared, request)
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
        text = self._heads[index] + orjson.dumps(delta.text)
        return text + b',"logprobs":' + logprobs + b',"finish_reason":null}]' + self.tail

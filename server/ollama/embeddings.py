"""POST /api/embed and /api/embeddings: Ollama's vectors of texts."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Self

import orjson
from pydantic import Discriminator, Field, Tag

from ..schema.fields import Text, kind
from ..serving.dialect import Answer, Dialect, NothingToGenerate, Totals
from ..serving.generation_spec import EmbeddingSpec, FieldNames, GenerationSpec
from ..serving.model_names import ModelNames
from ..serving.prepared_request import PreparedRequest
from .requests import Count, KeepAlive, OllamaFields, OllamaRequest, Options, keep_seconds

MAX_INPUTS = 2048
Inputs = Annotated[
    Annotated[Text, Tag("<text>")] | Annotated[list[Text], Field(fail_fast=True, max_length=MAX_INPUTS), Tag("<list>")],
    Discriminator(kind),
]


class EmbedOptions(Options):
    """Those of /api/chat, which clients send along; of them `num_ctx` counts."""

    harmless: ClassVar[dict[str, str]] = {
        **dict.fromkeys(Options.model_fields, "an embedding is not sampled"),
        **Options.harmless,
        "num_keep": "the beginning of a text that is too long is what is kept",
    }
    del harmless["num_ctx"]

    num_ctx: Annotated[Count, Field(ge=1)] | None = None
    """Tokens of a text at most, where that is less than the model's context."""


class OllamaEmbedRequest(OllamaFields):
    """POST /api/embed. Where an embedding model is served; one that generates text refuses it. Without an input: only
    whether the model is there."""

    harmless: ClassVar[dict[str, str]] = {"keep_alive": OllamaRequest.harmless["keep_alive"]}

    model: Text
    input: Inputs | None = None
    """A text or several, each of which gets a vector of length 1."""
    truncate: bool | None = None
    """null and absent mean true, as Ollama has it: of a text that is longer than the context its beginning counts.
    false: it is refused."""
    dimensions: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    """So many of the vector's first values, again of length 1. Refused where the model was not trained for it."""
    options: EmbedOptions | None = None
    keep_alive: KeepAlive | None = None


class OllamaEmbeddingsRequest(OllamaFields):
    """POST /api/embeddings, an older form of /api/embed for one text. The vector has length 1, too."""

    harmless: ClassVar[dict[str, str]] = OllamaEmbedRequest.harmless

    model: Text
    prompt: Text | None = None
    """Of one that is longer than the context the beginning counts."""
    options: EmbedOptions | None = None
    keep_alive: KeepAlive | None = None


class OllamaEmbed(Dialect):
    """/api/embed."""

    def __init__(self, request: OllamaEmbedRequest, texts: tuple[str, ...]) -> None:
        self._model = request.model
        wish = EmbeddingSpec(request.dimensions, truncate=request.truncate is not False)
        self.spec = _spec(request, texts, wish, "input")

    @classmethod
    def read(cls, document: Any, names: ModelNames) -> Self:
        request = OllamaEmbedRequest.read(document)
        names.check(request.model)
        texts = (request.input,) if isinstance(request.input, str) else tuple(request.input or ())
        if texts in ((), ("",)):
            nothing = orjson.dumps({"model": request.model, "embeddings": []})
            raise NothingToGenerate(nothing, keep_seconds(request.keep_alive))
        return cls(request, texts)

    def whole(self, prepared: PreparedRequest, answers: list[Answer], totals: Totals) -> bytes:
        document = {
            "model": self._model,
            "embeddings": [answer.embedding for answer in answers],
            "total_duration": round(1e9 * max(spent.total_s for spent in totals.spent)),
            "load_duration": 0,
            "prompt_eval_count": totals.prompt_tokens,
        }
        return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)


class OllamaEmbeddings(Dialect):
    """/api/embeddings."""

    def __init__(self, request: OllamaEmbeddingsRequest, text: str) -> None:
        self.spec = _spec(request, (text,), EmbeddingSpec(truncate=True), "prompt")

    @classmethod
    def read(cls, document: Any, names: ModelNames) -> Self:
        request = OllamaEmbeddingsRequest.read(document)
        names.check(request.model)
        if not request.prompt:
            raise NothingToGenerate(orjson.dumps({"embedding": []}), keep_seconds(request.keep_alive))
        return cls(request, request.prompt)

    def whole(self, prepared: PreparedRequest, answers: list[Answer], totals: Totals) -> bytes:
        return orjson.dumps({"embedding": answers[0].embedding}, option=orjson.OPT_SERIALIZE_NUMPY)


def _spec(
    request: OllamaEmbedRequest | OllamaEmbeddingsRequest, texts: tuple[str, ...], wish: EmbeddingSpec, field: str
) -> GenerationSpec:
    return GenerationSpec(
        prompts=texts,
        embedding=wish,
        keep_alive=keep_seconds(request.keep_alive),
        context=request.options.num_ctx if request.options else None,
        names=FieldNames(field, context="options.num_ctx"),
    )

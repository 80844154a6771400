"""POST /v1/embeddings: OpenAI's vectors of texts."""

from __future__ import annotations

import base64
from typing import Annotated, Any, ClassVar, Literal, Self

import orjson
from pydantic import Field

from ..schema.fields import RequestFields, Text
from ..serving.dialect import Answer, Dialect, Totals
from ..serving.generation_spec import EmbeddingSpec, FieldNames, GenerationSpec
from ..serving.model_names import ModelNames
from ..serving.prepared_request import PreparedRequest
from .completions_request import Prompt, each_prompt


class EmbeddingRequest(RequestFields):
    """POST /v1/embeddings. Where an embedding model is served; one that generates text refuses it."""

    harmless: ClassVar[dict[str, str]] = {"user": "a label of the caller's own; never stored, never logged"}

    model: Text | None = None
    input: Prompt
    """A text, token ids, or a list of either: each gets a vector of length 1. Texts are text throughout, also where
    they spell control tokens. The model's end token is put behind each, and counted, where ids do not have it."""
    encoding_format: Literal["float", "base64"] | None = None
    """base64: of the vector's values as little-endian float32."""
    dimensions: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    """So many of the vector's first values, again of length 1. Refused where the model was not trained for it."""
    user: Text | None = None


class EmbeddingDialect(Dialect):
    """OpenAI's embeddings."""

    def __init__(self, request: EmbeddingRequest) -> None:
        self.request = request
        self.spec = GenerationSpec(
            model=request.model,
            prompts=each_prompt(request.input),
            embedding=EmbeddingSpec(request.dimensions),
            names=FieldNames(prompt="input"),
        )

    @classmethod
    def read(cls, document: Any, names: ModelNames) -> Self:
        return cls(EmbeddingRequest.read(document))

    def whole(self, prepared: PreparedRequest, answers: list[Answer], totals: Totals) -> bytes:
        vectors: list[Any] = [answer.embedding for answer in answers]
        if self.request.encoding_format == "base64":
            vectors = [base64.b64encode(vector.astype("<f4").tobytes()).decode() for vector in vectors]
        document = {
            "object": "list",
            "data": [{"object": "embedding", "index": i, "embedding": vector} for i, vector in enumerate(vectors)],
            "model": prepared.model,
            "usage": {"prompt_tokens": totals.prompt_tokens, "total_tokens": totals.prompt_tokens},
        }
        return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)

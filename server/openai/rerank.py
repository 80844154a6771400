"""POST /v1/rerank: documents in the order in which they meet a query, as Jina's, Cohere's, vLLM's and llama.cpp's
clients ask for them."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Self

import orjson
from pydantic import Discriminator, Field, Tag

from ..schema.fields import RequestFields, Strict, Text
from ..serving.dialect import Answer, Dialect, Totals
from ..serving.generation_spec import FieldNames, GenerationSpec, RerankSpec
from ..serving.model_names import ModelNames
from ..serving.prepared_request import PreparedRequest
from .completions_request import MAX_PROMPTS


class TextDocument(Strict):
    """A document that is an object."""

    text: Text


def _document_kind(value: Any) -> str:
    return "<object>" if isinstance(value, dict) else "<text>"


Document = Annotated[
    Annotated[Text, Tag("<text>")] | Annotated[TextDocument, Tag("<object>")], Discriminator(_document_kind)
]
Count = Annotated[int, Field(ge=1, lt=2**31)]


class RerankRequest(RequestFields):
    """POST /v1/rerank. Where a reranker is served; other models refuse it."""

    harmless: ClassVar[dict[str, str]] = {"user": "a label of the caller's own; never stored, never logged"}
    refused: ClassVar[dict[str, str]] = {
        "rank_fields": "documents of several fields",
        "max_chunks_per_doc": "documents in chunks",
        "truncate_prompt_tokens": "truncate_prompt_tokens (see truncation, max_tokens_per_doc)",
        "priority": "priorities",
    }

    model: Text | None = None
    query: Text
    """What is looked for. It and the documents are text throughout, also where they spell control tokens."""
    documents: Annotated[list[Document], Field(fail_fast=True, min_length=1, max_length=MAX_PROMPTS)]
    """Texts, or objects with a `text`."""
    top_n: Count | None = None
    """So many of the best; all where the request does not say."""
    return_documents: bool | None = None
    """true: each result has its document, as an object with its `text`."""
    instruction: Text | None = None
    """What a document is to be good for, in a sentence; where the request does not say, the model's own: that it
    answers a web search query."""
    max_tokens_per_doc: Count | None = None
    """Of each document the first so many tokens count."""
    truncation: bool | None = None
    """true: of a document that is too long for the model's context its beginning counts; else it is refused."""
    user: Text | None = None


class RerankDialect(Dialect):
    """Ranked documents."""

    def __init__(self, request: RerankRequest) -> None:
        self.request = request
        self.texts = tuple(one if isinstance(one, str) else one.text for one in request.documents)
        self.spec = GenerationSpec(
            model=request.model,
            prompts=self.texts,
            rerank=RerankSpec(
                request.query, request.instruction, request.max_tokens_per_doc, request.truncation is True
            ),
            names=FieldNames(prompt="documents"),
        )

    @classmethod
    def read(cls, document: Any, names: ModelNames) -> Self:
        return cls(RerankRequest.read(document))

    def whole(self, prepared: PreparedRequest, answers: list[Answer], totals: Totals) -> bytes:
        yes_over_no = [float(yes) - float(no) for yes, no in (answer.logits for answer in answers)]
        best = sorted(range(len(answers)), key=lambda index: -yes_over_no[index])[: self.request.top_n]
        results: list[dict[str, Any]] = [
            {"index": index, "relevance_score": probability(yes_over_no[index])} for index in best
        ]
        if self.request.return_documents:
            for result in results:
                result["document"] = {"text": self.texts[result["index"]]}
        tokens = totals.prompt_tokens
        document = {
            "id": f"rerank-{prepared.nonce}",
            "object": "list",
            "model": prepared.model,
            "results": results,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            "meta": {"tokens": {"input_tokens": tokens}},
        }
        return orjson.dumps(document)


def probability(difference: float) -> float:
    """Of the first of two tokens, by the difference of their logits."""
    small = math.exp(-abs(difference))
    return (1.0 if difference >= 0 else small) / (1.0 + small)

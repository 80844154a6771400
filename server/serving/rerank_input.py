"""From a request to rank documents to the engine's: each document with its query, as the model was trained to judge
them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from axpress.core.errors import ContextOverflow, RequestError
from axpress.core.request import GenerationRequest

from .embedding_input import beginning
from .generation_spec import GenerationSpec, RerankSpec

if TYPE_CHECKING:
    from axpress.core.tokenizer.tokenizer import Tokenizer

    from .reranker import Reranker
    from .served_model import ServedModel


def rerank_requests(
    spec: GenerationSpec, wish: RerankSpec, served: ServedModel, cache_salt: bytes, client: bytes
) -> list[GenerationRequest]:
    """One for each document; all begin with the same tokens, which are computed once. Raises RequestError,
    ContextOverflow."""
    reranker, text, context = served.reranker, served.engine.text, served.limits.context_length
    if reranker is None:
        raise _no_reranker(bool(served.engine.info.embedding_size))
    common = [*reranker.before, *_common_part(wish, reranker, text, context)]
    room = context - len(common) - len(reranker.after)
    if room < 1:
        raise ContextOverflow(
            f"'query', the instruction and the prompt around them take {len(common) + len(reranker.after)} tokens or"
            f" more; this model's context is {context} tokens and must have room for a document. Shorten it.",
            "query",
        )
    pairs = []
    for index, document in enumerate(spec.prompts):
        assert isinstance(document, str)
        pairs.append([*common, *_document(document, index, wish, text, room), *reranker.after])
    return [GenerationRequest(pair, scored=reranker.scored, cache_salt=cache_salt, client=client) for pair in pairs]


def _no_reranker(embeds: bool) -> RequestError:
    if embeds:
        text = "This model ranks no documents: it is an embedding model. Ask a reranker (Qwen3-Reranker)."
    else:
        text = (
            "This model ranks no documents: it is no reranker. Ask one (Qwen3-Reranker); if this is one whose package"
            " does not say so, serve it with --reranker."
        )
    return RequestError(text, "model", "unsupported")


def _common_part(wish: RerankSpec, reranker: Reranker, text: Tokenizer, context: int) -> list[int]:
    """The ids of instruction and query, up to where documents begin; no more than is needed to see that they are too
    long. What comes behind the colon, a blank first, makes tokens of its own: tokenizers of this family join no blank
    to what is before it."""
    instruction = wish.instruction if wish.instruction is not None else reranker.instruction
    parts = [beginning(part, text, context) for part in (instruction, wish.query)]
    return text.encode(f"<Instruct>: {parts[0]}\n<Query>: {parts[1]}\n<Document>:")


def _document(document: str, index: int, wish: RerankSpec, text: Tokenizer, room: int) -> list[int]:
    """The ids of a document, or of as much of it as counts."""
    read = beginning(document, text, min(room, wish.document_tokens or room))
    ids = text.encode(f" {read}")[: wish.document_tokens]
    if len(ids) <= room or wish.truncate:
        return ids[:room]
    more = "more than " if len(read) < len(document) else ""
    field = f"documents[{index}]"
    raise ContextOverflow(
        f"'{field}' takes {more}{len(ids)} tokens; beside the query this model's context has room for {room}. Shorten"
        " it, or send 'truncation': true.",
        field,
    )

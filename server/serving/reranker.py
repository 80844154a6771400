"""A served model as a reranker: what it is asked, and by which tokens it answers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from axpress.core.device.rerank_tokens import rerank_tokens
from axpress.core.model_files.rerank_models import AFTER, BEFORE, INSTRUCTION

if TYPE_CHECKING:
    from axpress.core.engine.engine_group import AnyEngine


@dataclass(frozen=True, slots=True)
class Reranker:
    """Token ids: `before` instruction, query and document, `after` them; `scored`: yes and no. `instruction`: where a
    request has none."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    scored: tuple[int, int]
    instruction: str

    @classmethod
    def of(cls, engine: AnyEngine) -> Reranker:
        """Raises PackageError where the model can be none: its kind, its tokenizer, or its head."""
        package, text = engine.package, engine.text
        package = replace(package, embeds=bool(engine.info.embedding_size))
        (_, first), *_ = engine.cards
        scored = rerank_tokens(package, text, first.model.program.token_ids)
        before, after = (tuple(text.encode(part, control=True)) for part in (BEFORE, AFTER))
        return cls(before, after, scored, package.rerank_instruction or INSTRUCTION)

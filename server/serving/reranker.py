"""A served model as a reranker: what it is asked, and by which tokens it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from axpress.core.errors import PackageError
from axpress.core.model_files.rerank_models import AFTER, BEFORE, CONTROL, INSTRUCTION, NO, SUPPORTED, YES, check_kind

if TYPE_CHECKING:
    from axpress.core.engine.engine import Engine


@dataclass(frozen=True, slots=True)
class Reranker:
    """Token ids: `before` instruction, query and document, `after` them; `scored`: yes and no. `instruction`: where a
    request has none."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    scored: tuple[int, int]
    instruction: str

    @classmethod
    def of(cls, engine: Engine) -> Reranker:
        """Raises PackageError where the model can be none: its kind, its tokenizer, or its head."""
        package, text = engine.package, engine.text
        check_kind(package.family, package.embeds or bool(engine.info.embedding_size), package.directory)
        if missing := next((token for token in CONTROL if not text.has_control(token)), None):
            raise PackageError(f"{package.tokenizer_path} has no token {missing}: {SUPPORTED}")
        ids = [text.encode(answer) for answer in (YES, NO)]
        if any(len(tokens) != 1 for tokens in ids):
            raise PackageError(f"{package.tokenizer_path} has no token for {YES!r}, or none for {NO!r}: {SUPPORTED}")
        (yes,), (no,) = ids
        given = engine.model.program.token_ids
        if given is not None and not {yes, no} <= set(given.tolist()):
            raise PackageError(
                f"{package.head_file} is trimmed, and gives no logits of {YES!r} and {NO!r} (tokens {yes} and {no}),"
                f" which judge documents: keep both in {package.head_ids_file}, or serve it as no reranker"
            )
        before, after = (tuple(text.encode(part, control=True)) for part in (BEFORE, AFTER))
        return cls(before, after, (yes, no), package.rerank_instruction or INSTRUCTION)

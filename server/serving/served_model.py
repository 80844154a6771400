"""The loaded model as requests see it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from axpress.core.errors import PackageError, RequestError

from ..settings import Settings
from .chat_format import chat_format_of
from .fingerprint import fingerprint
from .model_limits import ModelLimits, model_limits
from .model_names import ModelNames
from .reranker import Reranker

if TYPE_CHECKING:
    from axpress.core.engine.engine_group import AnyEngine
    from axpress.core.model_files.model_package import ModelPackage
    from axpress.core.structured_output.grammar_compiler import GrammarCompiler
    from axpress.core.vision import ImageAdapter

    from .chat_format import ChatFormat

log = logging.getLogger("axpress.server")


@dataclass(frozen=True, slots=True)
class ServedModel:
    """An open engine, and what is known of its model. `fingerprint` changes when anything that can change an answer
    does."""

    engine: AnyEngine
    limits: ModelLimits
    name: str
    fingerprint: str
    chat_format: ChatFormat
    grammars: GrammarCompiler
    reranker: Reranker | None
    """How documents are ranked with it; None: it is no reranker."""
    eyes: ImageAdapter | None
    """How it takes pictures; None: it reads text only."""
    files: tuple[int, float]
    """Bytes of the model's files, and when the last of them was changed; they may be gone later."""

    @classmethod
    def of(cls, engine: AnyEngine, settings: Settings) -> ServedModel:
        """What requests need to know of the model; reading its vocabulary for grammars takes a moment. PackageError: it
        is to be a reranker and can be none."""
        from axpress.core.structured_output.grammar_compiler import GrammarCompiler

        package = engine.package
        names = ModelNames(
            settings.model_name or engine.info.model, (engine.info.model, *package.aliases, *settings.aliases)
        )
        reranker = Reranker.of(engine) if package.reranks or settings.reranker else None
        grammars = GrammarCompiler(engine.text, engine.info.vocab_size)
        grammars.prepare()
        eyes = eyes_of(engine)
        return cls(
            engine,
            model_limits(engine, names, settings.max_queue + settings.max_running),
            names.served,
            fingerprint(engine, settings),
            chat_format_of(engine.text, package.enable_thinking, eyes),
            grammars,
            reranker,
            eyes,
            files_of(package),
        )


def eyes_of(engine: AnyEngine) -> ImageAdapter | None:
    """How the model takes pictures. PackageError: its tokenizer or encoder is not as its family has it."""
    from axpress.core.vision import adapter_for
    from axpress.core.vision.decoding import pillow

    vision, encoder = engine.package.vision, engine.encoder_input
    if vision is None or encoder is None:
        return None
    try:
        pillow()
    except RequestError as error:
        log.warning("%s", error)
    adapter = adapter_for(vision.kind, encoder)
    if not engine.text.has_control(adapter.placeholder):
        text = f"{engine.package.tokenizer_path} has no token {adapter.placeholder}, which stands for {vision.kind}'s"
        raise PackageError(f"{text} pictures: copy the tokenizer of the original model into the package")
    return adapter


def files_of(package: ModelPackage) -> tuple[int, float]:
    """Bytes of the model's files, and when the last of them was changed."""
    stats = [path.stat() for path in (*package.layer_files, package.head_file, package.embed_file)]
    return sum(stat.st_size for stat in stats), max(stat.st_mtime for stat in stats)

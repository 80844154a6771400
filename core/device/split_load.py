"""A model's files on their way to several cards: contiguous blocks of layers, the head on the last layer's card."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

from ..errors import PackageError
from ..model_files.layer_blocks import layer_blocks
from ..model_files.simulated_axmodel import published_bytes
from .axmodel import LoadedModel
from .card_group import CardGroup, CardThread
from .card_memory import CardMemory, share_banks
from .load_watch import LoadWatch, Progress
from .program import Program
from .shape_groups import common_shape
from .split_program import SplitProgram
from .vision_encoder import VisionEncoder
from .wanted import Surroundings, Wanted


class _Block:
    """What of a model belongs on one card. `paths`: its files, vision encoder and head first where it has them: the
    `first` ones."""

    def __init__(self, wanted: Wanted, thread: CardThread, layers: slice, first: list[Path]) -> None:
        self.thread, self.layers, self.num_first = thread, layers, len(first)
        self._vision = wanted.package.vision
        self.paths = [*first, *wanted.package.layer_files[layers]]
        self.sizes = [published_bytes(path) for path in self.paths]
        self.models: list[LoadedModel] = []
        where = f"{wanted.package.directory}: layers {layers.start} to {layers.stop - 1} on card {thread.card.device}"
        self.memory = CardMemory(thread.card, where, self.sizes, wanted.banks, len(first))

    def loaded(self, path: Path) -> LoadedModel | None:
        """One of its first files; None: it lies on another card."""
        at = self.paths.index(path) if path in self.paths else None
        return None if at is None else self.models[at]

    @property
    def loaded_layers(self) -> list[LoadedModel]:
        return self.models[self.num_first :]

    def encoder(self, hidden: int) -> VisionEncoder | None:
        """The model's, where it lies on this card."""
        if self._vision is None or (loaded := self.loaded(self._vision.encoder)) is None:
            return None
        return VisionEncoder(loaded, self._vision.kind, hidden, self.thread.call)

    def next_file(self, watch: LoadWatch, number: int) -> None:
        """The next of its files, which is the `number`-th of all."""
        path = self.paths[len(self.models)]
        watch.loading(number)
        with watch.file(number, path.name):
            self.models.append(self.thread.call(lambda: LoadedModel(self.thread.card, path)))
        self.memory.check_growth(self.models)


class SplitLoad:
    """One model on its way to `cards`, which are open. Errors as for `open_models`."""

    def __init__(self, cards: CardGroup, wanted: Wanted, progress: Progress | None = None) -> None:
        self._cards, self._wanted = cards, wanted
        if any(wanted.package.recurrent):
            raise PackageError(
                f"{wanted.package.directory}: a hybrid model, with recurrent layers, is not split over several cards"
                " yet: serve it on one (--device 0)"
            )
        blocks = layer_blocks(wanted.package, len(cards.cards))
        head, vision = wanted.package.head_file, wanted.package.vision
        encoders = [vision.encoder] if vision is not None else []
        self._blocks = [
            _Block(wanted, thread, layers, encoders * (layers is blocks[0]) + [head] * (layers is blocks[-1]))
            for thread, layers in zip(cards.threads, blocks, strict=True)
        ]
        self._order = [block for block in self._blocks for _ in range(block.num_first)]
        self._order += [block for block in self._blocks for _ in block.paths[block.num_first :]]
        sizes = [size for block in self._blocks for size in block.sizes[: block.num_first]]
        sizes += [size for block in self._blocks for size in block.sizes[block.num_first :]]
        self.watch = LoadWatch(sizes, progress)
        self.seconds = 0.0

    @property
    def taken(self) -> int | None:
        """Bytes of the cards' memory, together; None: not known."""
        each = [block.memory.taken for block in self._blocks]
        return None if None in each else sum(filter(None, each))

    def load(self) -> SplitProgram:
        """All files, and what is around them, with as many banks as were asked for, or as fit on each card."""
        begun = time.monotonic()
        for block in self._blocks:
            block.memory.check_files()
        for number, block in enumerate(self._order):
            block.next_file(self.watch, number)
        num_banks = min(share_banks([(block.memory, block.loaded_layers)])[0] for block in self._blocks)
        program = self._program(num_banks)
        for block in self._blocks:
            block.memory.pause()
        self.seconds = time.monotonic() - begun
        return program

    def _program(self, num_banks: int) -> SplitProgram:
        wanted = self._wanted
        common = common_shape([layer for block in self._blocks for layer in block.loaded_layers])
        head = self._blocks[-1].loaded(wanted.package.head_file)
        assert head is not None
        around = Surroundings.of(wanted, head)

        def make(block: _Block) -> Program:
            return Program(
                block.thread.card, block.loaded_layers, block.loaded(wanted.package.head_file), around.embedding,
                num_banks=num_banks, logits_slots=wanted.logits_slots, token_ids=around.token_ids, embeds=around.embeds,
                windows=wanted.package.windows[block.layers], first_layer=block.layers.start,
                common=common.part(block.layers), encoder=block.encoder(common.shape.hidden),
            )  # fmt: skip

        return SplitProgram(self._cards, [block.thread.call(partial(make, block)) for block in self._blocks])

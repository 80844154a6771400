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
from .wanted import Surroundings, Wanted


class _Block:
    """What of a model belongs on one card. `paths`: its files, the head first where it has that."""

    def __init__(self, wanted: Wanted, thread: CardThread, layers: slice, head: list[Path]) -> None:
        self.thread, self.layers, self._num_heads = thread, layers, len(head)
        self.paths = [*head, *wanted.package.layer_files[layers]]
        self.sizes = [published_bytes(path) for path in self.paths]
        self.models: list[LoadedModel] = []
        where = f"{wanted.package.directory}: layers {layers.start} to {layers.stop - 1} on card {thread.card.device}"
        self.memory = CardMemory(thread.card, where, self.sizes, wanted.banks, len(head))

    @property
    def head(self) -> LoadedModel | None:
        return self.models[0] if self._num_heads else None

    @property
    def loaded_layers(self) -> list[LoadedModel]:
        return self.models[self._num_heads :]

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
        blocks, head = layer_blocks(wanted.package, len(cards.cards)), wanted.package.head_file
        self._blocks = [
            _Block(wanted, thread, layers, [head] if layers is blocks[-1] else [])
            for thread, layers in zip(cards.threads, blocks, strict=True)
        ]
        last = self._blocks[-1]
        sizes = [last.sizes[0], *(size for block in self._blocks[:-1] for size in block.sizes), *last.sizes[1:]]
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
        last = self._blocks[-1]
        order = [last, *(block for block in self._blocks[:-1] for _ in block.paths), *(last for _ in last.paths[1:])]
        for number, block in enumerate(order):
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
        if common.num_attention < len(common.states):
            raise PackageError(
                f"{wanted.package.directory}: a hybrid model, with recurrent layers, is not split over several cards"
                " yet: serve it on one (--device 0)"
            )
        head = self._blocks[-1].head
        assert head is not None
        around = Surroundings.of(wanted, head)

        def make(block: _Block) -> Program:
            return Program(
                block.thread.card, block.loaded_layers, block.head, around.embedding, num_banks=num_banks,
                logits_slots=wanted.logits_slots, token_ids=around.token_ids, embeds=around.embeds,
                windows=wanted.package.windows[block.layers], first=block is self._blocks[0],
                common=common.part(block.layers),
            )  # fmt: skip

        return SplitProgram(self._cards, [block.thread.call(partial(make, block)) for block in self._blocks])

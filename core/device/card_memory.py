"""Whether a model fits into the card's memory (CMM): by the sizes of its files before the first is loaded, by what the
loaded ones took afterwards. Running out half way leaves a card in need of a reset, and asking the runtime what a file
needs would load it."""

from __future__ import annotations

import logging
from math import prod

from ..errors import PackageError
from ..model_files.model_package import ModelPackage
from ..model_files.simulated_axmodel import read_axmodel, read_layers
from .axmodel import LoadedModel
from .runtime import Card
from .shape_groups import common_shape, is_recurrent, state_shape

log = logging.getLogger(__name__)

CMM_FLOOR = 64 << 20  # bytes of card memory that stay free: the runtime's own buffers need some
BUFFERS = 16 << 20  # around a model: what a pass works on beside masks
MAX_BANKS = 8
STATE_SLOTS = 34  # of models with recurrent layers: two of its own, for those who run, and to go on from
STATE_BYTES = 768 << 20  # but no more than this for them
LEAST_SLOTS = 6  # two of its own, two for one text, and as many to go on from
USUAL_PERCENT = 130  # what a model takes of the card, by its file: the vendor's guard for its own runner
CURE = (
    "close other programs on the card, reset it, split the model over several cards (--split 0,1), or choose a smaller"
    " model"
)


class CardMemory:
    """What is free, and what a model takes while it is loaded, head first. Where the runtime does not say what is free
    nothing is refused.

    `sizes`: bytes of the files in their order, `num_heads` of what comes before layers (vision encoder, head), then of
    layers; `where`: the package, for errors; `num_recurrent` of the layers keep states, not rows."""

    def __init__(
        self, card: Card, where: str, sizes: list[int], banks: int | None, num_heads: int = 1, num_recurrent: int = 0
    ) -> None:
        self._card, self._where, self._sizes, self._banks = card, where, sizes, banks
        self._num_heads, self._num_recurrent = num_heads, num_recurrent
        self._before = self._after_head = self._latest = self._free()

    def check_files(self) -> None:
        """PackageError where the files alone do not fit."""
        free, need = self._before, sum(self._sizes)
        if free is None:
            log.warning("this runtime does not say how much card memory is free: whether the model fits shows only"
                        " when it is loaded; its files have %d MiB", need >> 20)  # fmt: skip
        elif need + CMM_FLOOR > free:
            raise PackageError(
                f"{self._where}: its {len(self._sizes)} model files need at least {need >> 20} MiB of card memory and"
                f" {CMM_FLOOR >> 20} MiB stay free, but the card has {free >> 20} MiB free; {CURE}"
            )
        elif need * USUAL_PERCENT // 100 + CMM_FLOOR > free:
            log.warning("the model may not fit: its files have %d MiB, the card has %d MiB free; loading stops before"
                        " that is used up", need >> 20, free >> 20)  # fmt: skip

    def resume(self) -> None:
        """Its loading goes on: what others took of the card since its last step is not its own."""
        free = self._free()
        if free is None or self._before is None or self._after_head is None or self._latest is None:
            return
        others = self._latest - free
        self._before, self._after_head, self._latest = self._before - others, self._after_head - others, free

    def pause(self) -> None:
        """Others may load now."""
        self._latest = self._free()

    @property
    def taken(self) -> int | None:
        """Bytes that it took up to its last step."""
        return None if self._before is None or self._latest is None else self._before - self._latest

    def check_growth(self, models: list[LoadedModel]) -> None:
        """PackageError where the files after `models`, which are loaded, and the caches will not fit, if the others
        take as much for their size as the layers so far did."""
        free, done = self._free(), len(models)
        self._latest = free
        if free is None or self._before is None or self._after_head is None:
            return
        need, cache = sum(self._sizes[done:]), 0
        heads, num_layers = self._num_heads, len(self._sizes) - self._num_heads
        if done <= heads:
            self._after_head = free
        else:
            need = max(need, need * (self._after_head - free) // max(sum(self._sizes[heads:done]), 1))
            cache = self._cache_bytes(models[heads:], num_layers)
        if need + cache + CMM_FLOOR > free:
            first = ("", "the head and ", "vision encoder, head and ")[min(done, heads, 2)]
            raise PackageError(
                f"{self._where}: loading stopped with {first}{max(done - heads, 0)} of {num_layers} layers on"
                f" the card: they take {self._before - free >> 20} MiB of its memory, the remaining"
                f" {len(self._sizes) - done} files will take about {need >> 20} MiB, caches {cache >> 20} MiB, and"
                f" {CMM_FLOOR >> 20} MiB stay free, but {free >> 20} MiB are left; {CURE}"
            )

    def fit_banks(self, layers: list[LoadedModel], reserved: int = 0) -> tuple[int, int, int | None]:
        """How many banks it has at least, at most, and bytes of the memory that are left for further ones (None: not
        known), beside the loaded layers and `reserved` bytes. PackageError where fewer fit than were asked for, or
        none."""
        available, count = self._free(), self._banks or 1
        if available is None:
            return count, count, None
        bank_bytes = _bank_bytes(layers)
        free = available - CMM_FLOOR - reserved
        fit = free // bank_bytes
        if fit < count:
            raise PackageError(
                f"{count} bank(s) need {count * bank_bytes >> 20} MiB, but {max(free, 0) >> 20} MiB of card memory are"
                f" left beside the model and a reserve of {CMM_FLOOR >> 20} MiB: ask for fewer banks (--banks) or"
                " choose a smaller model"
            )
        return count, self._banks or MAX_BANKS, free - count * bank_bytes

    def _cache_bytes(self, loaded: list[LoadedModel], num_layers: int) -> int:
        """Of the banks asked for, and of states, of a model of so many layers, of which these are loaded."""
        attention = [layer for layer in loaded if not is_recurrent(layer)]
        bank = _bank_bytes(attention) // max(len(attention), 1) * (num_layers - self._num_recurrent)
        states = state_bytes(loaded) // max(len(loaded) - len(attention), 1) * self._num_recurrent
        return bank * (self._banks or 1) + states * _num_slots(states)

    def _free(self) -> int | None:
        free: int | None = self._card.properties().get("free_cmm")
        return free


def expected_bytes(package: ModelPackage, banks: int) -> tuple[int, int]:
    """What a model that was never loaded takes of the card's memory: at least, and likely. A simulated one's files tell
    all, its caches included; of others vendors reckon USUAL_PERCENT of the files."""
    if package.simulated:
        layer = read_layers(package.layer_files)
        rows, num_attention = layer.decode_rows[-1], package.num_layers - sum(package.recurrent)
        cache = rows * 2 * layer.kv_heads * layer.head_dim * 2 * num_attention * banks + _expected_states(package)
        chunks = (layer.chunk * (history + layer.chunk) for history in layer.history)
        masks = 2 * max(rows + 1, *chunks) * (2 if any(package.windows) else 1)
        return package.device_bytes + cache, package.device_bytes + cache + masks + BUFFERS
    return package.device_bytes, package.device_bytes * USUAL_PERCENT // 100


def _expected_states(package: ModelPackage) -> int:
    """Bytes of all states of a simulated model's recurrent layers; 0 where it has none."""
    metas = [
        read_axmodel(path)[0]
        for path, recurrent in zip(package.layer_files, package.recurrent, strict=False)
        if recurrent
    ]
    each = sum(
        (4 if meta.state_dtype == "fp32" else 2) * sum(prod(shape) for shape in meta.state_shapes) for meta in metas
    )
    return each * _num_slots(each)


def share_banks(models: list[tuple[CardMemory, list[LoadedModel]]]) -> list[int]:
    """How many banks each of the models has, whose layers are loaded: as many as were asked for, else one, and more in
    turns as long as they fit. PackageError where that is too much."""
    sizes = [_bank_bytes(layers) for _, layers in models]
    reserved = sum(num_state_slots(layers) * state_bytes(layers) for _, layers in models)
    counts, most, left = [], [], None
    for (memory, layers), size in zip(models, sizes, strict=True):
        count, limit, left = memory.fit_banks(layers, reserved)
        counts.append(count)
        most.append(limit)
        reserved += count * size
    while left is not None:
        wanting = [i for i, size in enumerate(sizes) if counts[i] < most[i] and size <= left]
        if not wanting:
            break
        poorest = min(wanting, key=lambda i: counts[i])
        counts[poorest] += 1
        left -= sizes[poorest]
    return counts


def state_bytes(layers: list[LoadedModel]) -> int:
    """What the recurrent ones of these layers keep of a text; 0 where none is."""
    states = [state_shape(layer) for layer in layers if is_recurrent(layer)]
    return sum(state.k_bytes + state.v_bytes for state in states)


def num_state_slots(layers: list[LoadedModel]) -> int:
    """Slots for such states; 0 where no layer is recurrent."""
    return _num_slots(state_bytes(layers))


def _num_slots(nbytes: int) -> int:
    return min(STATE_SLOTS, max(LEAST_SLOTS, STATE_BYTES // nbytes)) if nbytes else 0


def _bank_bytes(layers: list[LoadedModel]) -> int:
    """Of a bank of these layers; 0 where all are recurrent."""
    attention = [layer for layer in layers if not is_recurrent(layer)]
    if not attention:
        return 0
    shape = common_shape(attention).shape
    return shape.rows * 2 * shape.kv_dim * 2 * len(attention)

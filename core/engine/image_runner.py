"""Pictures on their way to the card's vision encoder: which comes next, when, and what is kept of it.

A run of the encoder is long and cannot be divided, so others' answers wait for it. After each they have the card for as
long as it took, and for one pass at least, before the next. What the encoder gave is kept on the host, the latest of it
within a budget, and shared by all who show the same picture; a picture that is cached already is not encoded at all."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Iterable

from ..device.vision_encoder import Encoding, VisionEncoder
from ..errors import LogitsError
from ..recovery.pass_watch import PassWatch
from ..request import ImageInput
from .counters import Counters
from .sequence import Sequence

log = logging.getLogger(__name__)

KEPT_BYTES = 256 << 20  # of encodings that nobody waits for
FIRST_SECONDS = 30.0  # a picture may take so long while it is not known how long they take
FLOOR_SECONDS = 5.0  # nor is one called hanging before
HOST_FLOOR_SECONDS = 60.0  # where this machine's CPUs are the card
EXPECTED_TIMES = 6


Key = tuple[bytes, bytes]


class Encodings:
    """The latest encodings, as many as fit into `budget` bytes, by digest of the picture and cache_salt: how soon an
    answer comes tells a tenant nothing of another one's pictures."""

    def __init__(self, budget: int = KEPT_BYTES) -> None:
        self.budget = budget
        self.nbytes = 0
        self._kept: OrderedDict[Key, Encoding] = OrderedDict()

    def clear(self) -> None:
        """Keeps nothing."""
        self._kept.clear()
        self.nbytes = 0

    def get(self, key: Key) -> Encoding | None:
        """That of a picture, which counts as used now."""
        encoding = self._kept.get(key)
        if encoding is not None:
            self._kept.move_to_end(key)
        return encoding

    def put(self, key: Key, encoding: Encoding) -> None:
        """Keeps one, in place of those that were not used for longest."""
        if (before := self._kept.pop(key, None)) is not None:
            self.nbytes -= before.nbytes
        if encoding.nbytes > self.budget:
            return
        self._kept[key] = encoding
        self.nbytes += encoding.nbytes
        while self.nbytes > self.budget:
            self.nbytes -= self._kept.popitem(last=False)[1].nbytes


class ImageRunner:
    """Runs the encoder for sequences of one model, on the engine's thread. `width`: tokens of the widest pass;
    `on_host`: the card is this machine."""

    def __init__(self, width: int, counters: Counters, watch: PassWatch, on_host: bool) -> None:
        self.encodings = Encodings()
        self._width, self._counters, self._watch, self._on_host = width, counters, watch, on_host
        self._longest = 0.0  # seconds of a picture so far
        self._owed_until = 0.0  # seconds of passes, all in all, that come before the next picture

    def look(self, sequences: Iterable[Sequence]) -> list[Sequence]:
        """Which of these wait for a picture of theirs to be encoded, the first to come first."""
        waiting = []
        for sequence in sequences:
            if sequence.images is None:
                continue
            sequence.images.missing = None
            if not sequence.blocked and self._find(sequence):
                waiting.append(sequence)
        return sorted(waiting, key=lambda s: s.order)

    def _find(self, sequence: Sequence) -> bool:
        """Takes what is kept of the sequence's next pictures; whether one is missing."""
        images = sequence.images
        assert images is not None
        for index in images.wanted(sequence.num_cached, self._width):
            if images.holds(index):
                continue
            kept = self.encodings.get((sequence.cache_salt, images.image(index).digest))
            if kept is None:
                images.missing = index
                return True
            images.hold(index, kept)
        return False

    @property
    def others_first(self) -> bool:
        """Whether passes are owed to others before the next picture."""
        return self._pass_seconds < self._owed_until

    @property
    def _pass_seconds(self) -> float:
        seconds = self._counters.seconds
        return seconds["decode"] + seconds["chunk"]

    def run(self, encoder: VisionEncoder, sequence: Sequence) -> None:
        """Encodes what the sequence waits for. Raises LogitsError where the card gives nonsense, twice; errors as for
        `VisionEncoder.encode`."""
        images, started = sequence.images, time.perf_counter()
        assert images is not None and images.missing is not None
        index, image = images.missing, images.image(images.missing)
        sequence.generation.first_pass = sequence.generation.first_pass or time.monotonic()
        encoding = self._encode(encoder, image, sequence)
        seconds = time.perf_counter() - started
        self.encodings.put((sequence.cache_salt, image.digest), encoding)
        images.hold(index, encoding)  # whatever the budget
        self._longest = max(self._longest, seconds)
        self._counters.add_image(seconds)
        self._owed_until = self._pass_seconds + seconds

    def _encode(self, encoder: VisionEncoder, image: ImageInput, sequence: Sequence) -> Encoding:
        for _ in range(2):
            with self._watch.over("encoding a picture", self._patience()):
                encoding = encoder.encode(image.pixels)
            if encoding.believable():
                sequence.num_bad = 0
                return encoding
            self._counters.totals["repeated_passes"] += 1
            log.warning("the vision encoder gave nonsense (NaN, infinity, or the same everywhere)")
        sequence.num_bad += 1
        raise LogitsError("the vision encoder gave NaN, infinity or the same everywhere, twice in a row")

    def _patience(self) -> float:
        floor = HOST_FLOOR_SECONDS if self._on_host else FLOOR_SECONDS
        return max(floor, EXPECTED_TIMES * self._longest if self._longest else FIRST_SECONDS)

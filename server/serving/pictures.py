"""From the pictures of a request to what the model's eyes take: read or fetched, decoded, cut to size. On threads of
their own, one picture at a time, so that memory stays flat and nobody's prompt waits for a picture of somebody else."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from axpress.core.errors import QueueFull, RequestError
from axpress.core.vision import ImageAdapter, ImageLimits, PreparedImage

from ..http.fetching import FETCH_SECONDS, NotFetched, fetch
from ..settings import Settings
from .generation_spec import ImageSource

if TYPE_CHECKING:
    from .served_model import ServedModel

Pictures = Sequence[Sequence[PreparedImage]]
"""Of each picture, the runs of the vision encoder."""
REQUESTS = 2
"""Requests whose pictures are prepared at a time: one may wait for a host while the other's are decoded."""
REQUEST_SECONDS = 20.0
"""All of a request's pictures are fetched within so long; FETCH_SECONDS is of each."""
KEPT_BYTES = 32 << 20
"""Of prepared pictures, which are a megabyte or a few each."""
LARGE_BODIES = 4
"""Bodies beyond the limit of texts that are held at a time."""


class _Kept:
    """The pictures that were prepared last: a conversation sends all of its pictures again with each question."""

    def __init__(self) -> None:
        self._pictures: OrderedDict[Any, Sequence[PreparedImage]] = OrderedDict()
        self._bytes = 0

    def get(self, *key: object) -> Sequence[PreparedImage] | None:
        if key in self._pictures:
            self._pictures.move_to_end(key)
        return self._pictures.get(key)

    def put(self, runs: Sequence[PreparedImage], *key: object) -> Sequence[PreparedImage]:
        """`runs`, which are kept, or were by somebody else meanwhile."""
        if key not in self._pictures:
            self._pictures[key] = runs
            self._bytes += sum(run.pixels.nbytes for run in runs)
        while self._bytes > KEPT_BYTES and len(self._pictures) > 1:
            self._bytes -= sum(run.pixels.nbytes for run in self._pictures.popitem(last=False)[1])
        return runs


class PictureRoom:
    """Prepares the pictures of all requests, on the event loop but for what takes long."""

    def __init__(self, settings: Settings) -> None:
        self.limits = ImageLimits(settings.max_image_bytes, settings.max_image_pixels)
        self.max_images, self._hosts = settings.max_images, settings.allow_image_hosts
        self.large_bodies = asyncio.Semaphore(LARGE_BODIES)
        self._turns = asyncio.Semaphore(REQUESTS)
        self._num_waiting, self._max_waiting = 0, settings.max_queue
        self._kept = _Kept()
        self._decoding = ThreadPoolExecutor(1, "axpress-pictures")
        self._fetching = ThreadPoolExecutor(REQUESTS, "axpress-fetch")

    async def prepare(self, sources: Sequence[ImageSource], served: ServedModel, cache_salt: bytes = b"") -> Pictures:
        """The pictures as `served` takes them; what is kept of them is found by requests of one salt.

        Raises RequestError, naming a picture's field, where one is refused; all are, where they are too many or the
        model has no eyes, before anything is decoded or fetched. QueueFull: as many requests wait for theirs as may."""
        if not sources:
            return ()
        eyes, first = served.eyes, sources[0].field
        if eyes is None:
            text = f"'{first}': pictures are not supported: this model reads text only."
            raise RequestError(text, first, "invalid_value")
        if len(sources) > self.max_images:
            text = f"{len(sources)} pictures; this server takes at most {self.max_images} in a request"
            raise RequestError(f"'{first}': {text} (axpress serve --max-images).", first, "too_many_images")
        if self._num_waiting >= self._max_waiting:
            text = f"{self._num_waiting} requests are waiting for their pictures to be read, as many as may"
            raise QueueFull(text, FETCH_SECONDS)
        self._num_waiting += 1
        try:
            async with self._turns:
                return await self._prepare(sources, eyes, cache_salt)
        finally:
            self._num_waiting -= 1

    async def _prepare(self, sources: Sequence[ImageSource], eyes: ImageAdapter, cache_salt: bytes) -> Pictures:
        loop, pictures = asyncio.get_running_loop(), []
        until = loop.time() + REQUEST_SECONDS
        for source in sources:
            data, digest = await self._taken(source, max(0.1, min(FETCH_SECONDS, until - loop.time())))
            key = (eyes, cache_salt, digest, source.detail)
            known = self._kept.get(*key)
            if known is None:
                work = partial(eyes.prepare, data, source.detail, self.limits, source.field)
                del data
                known = self._kept.put(await loop.run_in_executor(self._decoding, work), *key)
                del work
            pictures.append(known)
        return pictures

    async def _taken(self, source: ImageSource, seconds: float) -> tuple[bytes, bytes]:
        """As `_file`. Looking up the name of a host has no end of its own: it is left behind."""
        loop = asyncio.get_running_loop()
        if source.url is None or source.url[:5].lower() == "data:":
            return await loop.run_in_executor(self._decoding, self._file, source, seconds)
        try:
            async with asyncio.timeout(seconds + 1):
                return await loop.run_in_executor(self._fetching, self._file, source, seconds)
        except TimeoutError:
            text = f"the picture did not come within {seconds:g} s: its host may not be known, or others wait too"
            raise RequestError(f"'{source.field}': {text}.", source.field, "invalid_image_url") from None

    def _file(self, source: ImageSource, seconds: float) -> tuple[bytes, bytes]:
        """The bytes of the picture's file, and their digest."""
        data = self._read(source, seconds)
        return data, blake2b(data, digest_size=32).digest()

    def _read(self, source: ImageSource, seconds: float) -> bytes:
        """The bytes of the picture's file, fetched within so many seconds. Raises RequestError."""
        if source.url is None:
            return self._decoded(source.encoded, source.field)
        if source.url[:5].lower() != "data:":
            try:
                return fetch(source.url, self._hosts, self.limits.max_bytes, seconds)
            except NotFetched as error:
                raise RequestError(f"'{source.field}': {error}.", source.field, "invalid_image_url") from None
        head, comma, encoded = source.url.partition(",")
        if not comma or not head[:256].lower().endswith(";base64"):
            text = "a data: URL of a picture is spelled data:image/png;base64,... (SVG and other text is not read here)"
            raise RequestError(f"'{source.field}': {text}.", source.field, "invalid_image_url")
        return self._decoded(encoded, source.field)

    def _decoded(self, encoded: str, field: str) -> bytes:
        most = self.limits.max_bytes
        if len(encoded) > (most + 2) // 3 * 4 + 1024:
            text = f"the picture has more than {most} bytes, which are what this server takes at most"
            raise RequestError(f"'{field}': {text} (axpress serve --max-image-bytes).", field, "image_too_large")
        try:
            packed = "".join(encoded.split())
            return base64.b64decode(packed + "=" * (-len(packed) % 4), validate=True)
        except (binascii.Error, ValueError):
            text = "this is not base64, as a picture's bytes are sent"
            raise RequestError(f"'{field}': {text}.", field, "invalid_image") from None

    def close(self) -> None:
        """No more pictures; what is on its way is left to end."""
        for executor in (self._decoding, self._fetching):
            executor.shutdown(wait=False)

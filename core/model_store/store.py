"""The models directory: one directory a model, with a record of where it came from; what is being fetched is hidden.

ROOT/NAME/ or ROOT/ORG/NAME/ is a model if it holds RECORD. ROOT/.NAME.partial/ is the staging directory of a pull: its
own lock, and what the next pull of that name goes on from."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import PackageError
from ..files import read_json
from .catalogue import canonical, close_to

RECORD = "axpress-model.json"


@dataclass(frozen=True, slots=True)
class Record:
    """What is written beside a model's files. `revision`: the exact version or commit. `pulled_at`: UTC, ISO 8601."""

    name: str
    source: str
    revision: str
    licence: str | None
    pulled_at: str
    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A model in the models directory."""

    record: Record
    directory: Path

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def repository(self) -> str:
        """Its id where it came from."""
        return self.record.source.rpartition(": ")[2]


class ModelStore:
    """The models below `root`, which need not exist yet."""

    def __init__(self, root: Path | None = None) -> None:
        """`root` None: AXPRESS_MODELS, else axpress/models in the user's data directory (XDG_DATA_HOME)."""
        if root is None and (named := os.environ.get("AXPRESS_MODELS")):
            root = Path(named).expanduser()
        data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
        self.root = (root or data / "axpress" / "models").absolute()

    def models(self) -> list[StoredModel]:
        """All models, by name. Directories without a sound record are none."""
        found = []
        for pattern in (f"*/{RECORD}", f"*/*/{RECORD}"):
            for path in self.root.glob(pattern):
                inner = path.relative_to(self.root).parent
                if any(part.startswith(".") for part in inner.parts):
                    continue
                with suppress(PackageError, TypeError):
                    found.append(StoredModel(Record(**read_json(path)), path.parent))
        return sorted(found, key=lambda model: model.name.lower())

    def find(self, name: str) -> StoredModel | None:
        """The model of that name, whatever the case of its letters; one of the hub also by NAME alone, where that is
        clear. None: there is none, or it is no name."""
        try:
            plain = canonical(name).lower()
        except PackageError:
            return None
        models = self.models()
        exact = [model for model in models if plain in (model.name.lower(), model.repository.lower())]
        short = [model for model in models if model.name.lower().rpartition("/")[2] == plain]
        return exact[0] if exact else short[0] if len(short) == 1 else None

    def get(self, name: str) -> StoredModel:
        """As find. PackageError: there is none."""
        if found := self.find(name):
            return found
        names = [model.name for model in self.models()]
        close = close_to(name, [known.lower() for known in names])
        raise PackageError(f"there is no model {name} in {self.root}{close or '; `axpress list` shows what is there'}")

    def directory(self, name: str) -> Path:
        """Where a model of that name goes."""
        return self.root / canonical(name)

    def remove(self, name: str) -> int:
        """Removes a model, or what an interrupted pull of it has left; returns the bytes it took. PackageError: there
        is none, or it lies elsewhere (a link), or is being pulled."""
        target = staging_of(self.directory(name))
        if found := self.find(name):
            target = found.directory
        elif not target.is_dir():
            self.get(name)
        root = self.root.resolve()
        if target.is_symlink() or not target.resolve().is_relative_to(root) or target.resolve() == root:
            raise PackageError(f"{target} leads out of {self.root}: remove the link yourself")
        size = size_of(target)
        with lock(target):
            # renamed first: a removal that is interrupted leaves nothing that looks like a model
            doomed = target.with_name(f".{target.name.strip('.')}.removed")
            shutil.rmtree(doomed, ignore_errors=True)
            target.rename(doomed)
            shutil.rmtree(doomed)
        if target.parent != self.root:
            with suppress(OSError):
                target.parent.rmdir()
        return size

    @contextmanager
    def staging(self, name: str) -> Iterator[Path]:
        """The staging directory of a model, made or found, and locked. It goes where it is left empty. PackageError:
        the models directory cannot be written, or another pull of that name is running."""
        directory = staging_of(self.directory(name))
        if self.directory(name).exists():
            raise PackageError(f"{self.directory(name)} is there already: `axpress rm` it, or move it away")
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PackageError(
                f"{directory.parent} cannot be written ({error.strerror}): set AXPRESS_MODELS to another directory"
            ) from None
        with lock(directory):
            try:
                yield directory
            finally:
                with suppress(OSError):
                    directory.rmdir()
                    if directory.parent != self.root:
                        directory.parent.rmdir()

    def finish(self, package: Path, record: Record) -> StoredModel:
        """Makes a complete package within a staging directory a model: all of it or nothing."""
        target = self.directory(record.name)
        (package / RECORD).write_text(json.dumps(asdict(record), indent=1) + "\n", encoding="utf-8")
        try:
            package.rename(target)
        except OSError as error:
            if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                raise PackageError(f"{target} is there already and is no model of ours: move it away") from None
            raise
        shutil.rmtree(staging_of(target), ignore_errors=True)
        return StoredModel(record, target)


def staging_of(target: Path) -> Path:
    """Where the model that will be `target` is put together."""
    return target.with_name(f".{target.name}.partial")


@contextmanager
def lock(directory: Path) -> Iterator[None]:
    """Holds the directory for this process. PackageError: another has it."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            same = os.path.samestat(os.fstat(handle), os.stat(directory))
        except (BlockingIOError, FileNotFoundError):
            same = False
        if not same:
            raise PackageError(f"{directory} is in use by another `axpress pull` or `rm`: wait for it, then try again")
        yield
    finally:
        os.close(handle)


def size_of(directory: Path) -> int:
    """Bytes of the files below a directory."""
    return sum(path.lstat().st_size for path in directory.rglob("*") if not path.is_dir())

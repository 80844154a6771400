"""A package of the Hugging Face hub, through the library `huggingface_hub`: of its files only those that this card's
model consists of, each verified, and pinned to one commit."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import PackageError
from ..model_files.package_survey import LAYERS, Survey, survey_package
from .fetching import CutOff, git_blob_of, sha256_of

TEXTS = (".json", ".txt", ".md", ".jinja", ".model", ".py", ".sh")
MAX_TEXT = 64 << 20
"""Bytes: a larger file is none of the small ones that say what a package is."""


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a repository: its path there, its size in bytes, and its SHA-256 or, of small ones, git's id."""

    path: str
    size: int
    sha256: str | None
    blob: str | None

    @property
    def is_text(self) -> bool:
        """Whether it may say what the package is, or belong to its tokenizer."""
        path = PurePosixPath(self.path)
        plain = path.suffix.lower() in TEXTS or path.name.upper().startswith("LICENSE")
        return plain and self.size <= MAX_TEXT and not any(part.startswith(".") for part in path.parts)


class HubDownload:
    """A pull of `repository` into staging/package. Raises PackageError: one sentence; CutOff where it can go on."""

    def __init__(self, repository: str, revision: str | None, staging: Path, progress: bool) -> None:
        self._hub = _library()
        if not (progress and sys.stderr.isatty()):
            self._hub.utils.disable_progress_bars()
        self.repository, self._package = repository, staging / "package"
        info = self._call(lambda: self._hub.HfApi().model_info(repository, revision=revision, files_metadata=True))
        self.commit = str(info.sha)
        card = getattr(info, "card_data", None)
        self.licence = str(card.license) if card and getattr(card, "license", None) else None
        self._files = {file.path: file for file in map(_file, info.siblings or [])}
        for path in self._files:
            if path.startswith("/") or ".." in PurePosixPath(path).parts:
                raise PackageError(f"{repository} has a file called {path!r}, which leads elsewhere: not fetched")
        _of_commit(staging, self.commit)
        self._chosen: list[HubFile] = []
        self._others: list[HubFile] = []
        self.card_bytes: int | None = None

    @property
    def total(self) -> int:
        """Bytes of all files that belong to the model."""
        return sum(file.size for file in self._chosen)

    @property
    def left(self) -> int:
        """Bytes that are still to be fetched."""
        return sum(file.size - self._there(file) for file in self._chosen)

    def fetch_small(self) -> None:
        """Fetches the files that say what the package is, and chooses the rest by them."""
        texts = [file for file in self._files.values() if file.is_text]
        for file in texts:
            self._fetch(file)
        found = self._survey(texts)
        # an embedding of kind .npy says its own size: it is looked at when it is here
        unread = found.embedding_path is not None and found.embedding is None
        early = [text for rank, text in sorted(found.ranked) if rank <= LAYERS or not unread]
        if early or found.build is None:
            raise PackageError(f"{self.repository} cannot be served: {early[0] if early else 'it has no layers'}")
        names = _Names(found)
        self._chosen = [file for file in self._files.values() if file.path in names.large]
        self._chosen += [file for file in texts if names.keeps(file.path)]
        self._others = [file for file in texts if not names.keeps(file.path)]
        self.card_bytes = sum(self._files[path].size for path in names.on_card if path in self._files)

    def fetch_large(self) -> None:
        """Fetches the rest, and removes what only helped to choose it."""
        for file in self._chosen:
            self._fetch(file)
        for file in self._others:
            (self._package / file.path).unlink()
        for path in sorted(self._package.rglob("*"), reverse=True):
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()

    def _survey(self, texts: Iterable[HubFile]) -> Survey:
        """The survey of the package as it will be: the small files, and empty ones of the right sizes."""
        with tempfile.TemporaryDirectory(prefix="survey.", dir=self._package.parent) as outer:
            root = Path(outer) / self.repository.rpartition("/")[2]
            have = {file.path for file in texts}
            for file in self._files.values():
                path = root / file.path
                path.parent.mkdir(parents=True, exist_ok=True)
                if file.path in have:
                    os.link(self._package / file.path, path)
                else:
                    with open(path, "wb") as empty:
                        empty.truncate(file.size)
            found = survey_package(root)
            found.ranked = [
                (rank, text.replace(f"{root}/", "").replace(str(root), "it")) for rank, text in found.ranked
            ]
            return found

    def _there(self, file: HubFile) -> int:
        """Bytes of a file that are here already."""
        path = self._package / file.path
        part = path.with_name(path.name + ".part")
        return file.size if path.is_file() else part.stat().st_size if part.is_file() else 0

    def _fetch(self, file: HubFile) -> None:
        """Fetches the rest of one file, and gives it its name once its content is verified."""
        path = self._package / file.path
        if path.is_file():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        if self._there(file) > file.size:
            part.unlink()
        with open(part, "ab") as out:
            self._call(lambda: self._stream(file, out))
        found, expected = (sha256_of(part), file.sha256) if file.sha256 else (git_blob_of(part), file.blob)
        if expected is not None and found != expected:
            part.unlink()
            raise CutOff(
                f"{file.path} of {self.repository} came with the checksum {found[:16]}..., not {expected[:16]}...: it"
                " is removed; pull again to fetch it anew"
            )
        part.rename(path)

    def _stream(self, file: HubFile, out: Any) -> None:
        from huggingface_hub.file_download import http_get

        if out.tell() == file.size:
            return
        http_get(
            self._hub.hf_hub_url(self.repository, file.path, revision=self.commit), out, resume_size=out.tell(),
            headers=self._hub.utils.build_hf_headers(), expected_size=file.size, displayed_filename=file.path,
        )  # fmt: skip

    def _call(self, ask: Any) -> Any:
        """What `ask` returns; its failures in words."""
        try:
            return ask()
        except Exception as error:  # of the library's and of its HTTP client's many classes
            if isinstance(error, OSError) and error.errno is not None:  # the disk's
                raise
            raise self._failure(error) from None

    def _failure(self, error: Exception) -> PackageError:
        errors, where, name = self._hub.errors, self._hub.constants.ENDPOINT, self.repository
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(error, errors.GatedRepoError):
            return PackageError(
                f"{name} is gated: accept its terms at {where}/{name}, then set HF_TOKEN to a token of that account"
            )
        if isinstance(error, errors.RevisionNotFoundError):
            return PackageError(f"{name} has no such revision: see {where}/{name}/commits/main")
        if isinstance(error, errors.RepositoryNotFoundError):
            return PackageError(
                f"there is no model {name} at {where}, or none that you may read: for a private one set HF_TOKEN"
            )
        if isinstance(error, errors.HFValidationError):
            return PackageError(f"{name!r} is no id of a model: one looks like AXERA-TECH/Qwen3-0.6B")
        if status in (401, 403):
            return PackageError(f"{where} does not let you read {name} ({status}): set HF_TOKEN to a token that may")
        if status == 404:
            return PackageError(f"a file of {name} is gone from {where} (404): pull again")
        if status is not None:
            return CutOff(f"{where} answered {status} for {name}: try again later; what was fetched is kept")
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        return CutOff(f"cannot reach {where} ({said}): what was fetched is kept, pull again to go on")


class _Names:
    """Paths within the repository of what a survey chose."""

    def __init__(self, found: Survey) -> None:
        assert found.build is not None
        root = found.root
        encoder = found.vision.encoder if found.vision else None
        files = [*found.build.files, *filter(None, [found.head, encoder])]
        self.on_card = {path.relative_to(root).as_posix() for path in files}
        embedding = [found.embedding_path] if found.embedding_path else []
        self.large = self.on_card | {path.relative_to(root).as_posix() for path in embedding}
        tokenizer = [found.tokenizer] if found.tokenizer else []
        self._trees = [path.relative_to(root).as_posix() for path in tokenizer]
        beside = [root, found.home, found.build.directory, *(side.path.parent for side in found.sidecars)]
        self._folders = {path.relative_to(root).as_posix() for path in beside if path.is_relative_to(root)}

    def keeps(self, path: str) -> bool:
        """Whether a small file belongs to the model: it is of its tokenizer, or lies beside its parts."""
        within = any(path == tree or path.startswith(f"{tree}/") for tree in self._trees)
        return within or PurePosixPath(path).parent.as_posix() in self._folders


def _library() -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.constants
        import huggingface_hub.errors
        import huggingface_hub.utils
    except ImportError:
        raise PackageError("models of the hub need the package huggingface_hub: pip install 'axpress[hub]'") from None
    return huggingface_hub


def _file(sibling: Any) -> HubFile:
    lfs = sibling.lfs
    return HubFile(
        sibling.rfilename, int(sibling.size or 0), lfs.sha256 if lfs else None, None if lfs else sibling.blob_id
    )


def _of_commit(staging: Path, commit: str) -> None:
    """Forgets what an earlier pull has fetched of another commit."""
    note = staging / "commit.json"
    if note.is_file() and note.read_text() != json.dumps(commit):
        shutil.rmtree(staging / "package", ignore_errors=True)
    (staging / "package").mkdir(exist_ok=True)
    note.write_text(json.dumps(commit))

"""API keys: read from a file or the environment, kept as digests only, compared in constant time.

A key file holds one key per line, plain or as `name:key`, and after a blank the word `models` for one that may pull and
delete models; blank lines and what follows a # are skipped. Two keys of one name are one tenant, so that a key can be
replaced without a gap. The variable AXPRESS_API_KEYS holds a list with
commas. Keys are never taken from the command line (every process of the machine may read that) and appear in no
message."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from axpress.core.errors import AxpressError

log = logging.getLogger("axpress.access")

VARIABLE = "AXPRESS_API_KEYS"
MAX_KEYS = 1000
MAX_FILE = 1 << 20
RIGHT = re.compile(r"[ \t]+models$")
_KEY = re.compile(r"[!-~]{8,512}")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


class KeyFileError(AxpressError):
    """The keys cannot be used; says which line and why, never what is in it."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a key stands for. `digest` tells tenants apart (32 bytes, for this process only: nobody can try keys against
    it). `lasting` tells them apart in what outlives the process: the key's name, or SHA-256 of a key without one."""

    name: str
    digest: bytes = field(repr=False)
    lasting: str = field(repr=False)
    may_change_models: bool = False


class Keyring:
    """All keys that are taken, or none at all. `file` can be read again while the server runs."""

    def __init__(self, file: Path | None, variable: str | None) -> None:
        self.file = file
        self._variable = variable
        self._secret = secrets.token_bytes(32)
        self._keys: list[tuple[bytes, Identity]] = []
        if file is not None or variable is not None:
            self.load()

    def __len__(self) -> int:
        return len(self._keys)

    def load(self) -> None:
        """Read the keys. Raises KeyFileError, and keeps those it had, when there is anything wrong with them."""
        keys: list[tuple[bytes, Identity]] = []
        seen: dict[bytes, str] = {}
        for where, entry in self._entries():
            plain = RIGHT.sub("", entry)
            name, key = _split(plain, where)
            digest = self._digest(b"key", key)
            if digest in seen:
                raise KeyFileError(f"{where} repeats the key of {seen[digest]}; each key is given once.")
            seen[digest] = where
            tenant = self._digest(b"name", name) if name else digest
            lasting = f"name {name}" if name else f"key {hashlib.sha256(key.encode()).hexdigest()}"
            keys.append((digest, Identity(name or f"key {len(keys) + 1}", tenant, lasting, plain != entry)))
        if not keys:
            text = f"There is no key in {self._source()}; add one, or serve without keys by not giving it at all."
            raise KeyFileError(text)
        if len(keys) > MAX_KEYS:
            raise KeyFileError(f"There are more than {MAX_KEYS} keys.")
        self._keys = keys

    def identify(self, key: str) -> Identity | None:
        """Whose key this is. Takes the same time whichever key matches, or none: all digests are compared, to their
        ends."""
        presented = self._digest(b"key", key)
        owner = None
        for digest, identity in self._keys:
            if hmac.compare_digest(digest, presented):
                owner = identity
        return owner

    def _digest(self, kind: bytes, text: str) -> bytes:
        return hmac.digest(self._secret, kind + b"\0" + text.encode("utf-8", "surrogateescape"), "sha256")

    def _source(self) -> str:
        return " and ".join(["the key file"] * (self.file is not None) + [VARIABLE] * (self._variable is not None))

    def _entries(self) -> Iterator[tuple[str, str]]:
        """Where an entry stands, in words, and the entry."""
        if self.file is not None:
            for number, line in enumerate(_read(self.file).splitlines(), 1):
                if text := re.sub(r"(^|\s)#.*", "", line).strip():
                    yield f"line {number} of the key file", text
        if self._variable is not None:
            for number, part in enumerate(self._variable.split(","), 1):
                if text := part.strip():
                    yield f"entry {number} of {VARIABLE}", text


def _split(entry: str, where: str) -> tuple[str, str]:
    """The name, or "", and the key of one entry."""
    name, colon, key = entry.partition(":")
    if not colon:
        name, key = "", entry
    elif not _NAME.fullmatch(name):
        text = f"{where} has a name that is not 1 to 64 letters, digits, dots, dashes or underscores (it is name:key)."
        raise KeyFileError(text)
    if not _KEY.fullmatch(key):
        text = (
            f"{where} is not a key: 8 to 512 visible ASCII characters without blanks. `openssl rand -hex 24` makes a"
            " good one."
        )
        raise KeyFileError(text)
    return name, key


def _read(file: Path) -> str:
    """The key file's text."""
    try:
        mode = file.stat().st_mode
        if not stat.S_ISREG(mode):
            raise KeyFileError(f"{file}, which --api-keys names, is not a regular file.")
        if mode & stat.S_IWOTH:
            raise KeyFileError(f"Everybody can write {file}, which --api-keys names, and so add keys; chmod 600 it.")
        if mode & stat.S_IROTH:
            log.warning("every user of this machine can read the key file; chmod 600 it")
        with file.open("rb") as opened:
            data = opened.read(MAX_FILE + 1)
    except OSError as exc:
        raise KeyFileError(f"{file}, which --api-keys names, cannot be read: {os.strerror(exc.errno or 0)}.") from None
    except ValueError:
        raise KeyFileError("What --api-keys names is not the path of a file.") from None
    if len(data) > MAX_FILE:
        raise KeyFileError(f"The key file is larger than {MAX_FILE} bytes.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise KeyFileError("The key file is not UTF-8 text.") from None

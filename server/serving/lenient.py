"""`--lenient`: a request that other servers would take is taken, as far as nothing that was asked for is lost.

Fields that nobody knows are left out, and so are two known ones with values that cannot be had and change no answer. A
field that would change the answer is refused as ever. Each name is logged once."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field
from typing import Any

from axpress.core.errors import RequestError

from .dialect import Dialect
from .model_names import ModelNames

log = logging.getLogger("axpress.request")

WITHOUT_EFFECT = frozenset({"store", "verbosity"})
MAX_FIELDS = 32
"""Names that one request may have too many; each takes another look at the whole request."""
MAX_NAMES = 256
"""Names that are remembered, and so logged, at most."""


@dataclass(slots=True)
class Lenience:
    """What a server that was started with `--lenient` has left out so far."""

    _told: set[str] = field(default_factory=set)

    def read(self, read: Any, document: Any, names: ModelNames) -> Dialect:
        """What `read(document, names)` makes of the document without the fields that it does not know.

        Changes `document`. Raises RequestError as `read` does, of anything else that is wrong."""
        for _ in range(MAX_FIELDS):
            try:
                return read(document, names)
            except RequestError as error:
                known = error.code != "unknown_parameter" and error.param not in WITHOUT_EFFECT
                if known or not error.param or not _leave_out(document, error.param):
                    raise
                self._tell(error.param)
        return read(document, names)

    def _tell(self, param: str) -> None:
        name = re.sub(r"\[\d+\]", "[]", param)
        if name not in self._told and len(self._told) < MAX_NAMES:
            self._told.add(name)
            log.warning("--lenient: field %r of a request is ignored (told once)", name)


def _leave_out(document: Any, param: str) -> bool:
    """Deletes the field spelled like messages[2].id, in all elements of its lists; whether it was there."""
    *path, name = re.sub(r"\[\d+\]", ".[]", param).split(".")
    holders = [document]
    for step in path:
        if step == "[]":
            holders = [element for holder in holders if isinstance(holder, list) for element in holder]
        else:
            holders = [holder[step] for holder in holders if isinstance(holder, dict) and step in holder]
    having = [holder for holder in holders if isinstance(holder, dict) and name in holder]
    for holder in having:
        del holder[name]
    return bool(having)

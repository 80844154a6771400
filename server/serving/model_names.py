"""Under which names a model answers. People name a model as they know it: by its package, its directory, the folder of
its layers, the hub's id; programs written for Ollama add ":latest". One model is served, so all of these are it."""

from __future__ import annotations

from collections.abc import Iterable

from ..http.errors import HttpError

DEFAULT = "default"
SHOWN = 128  # characters of a name that an error repeats


def _folded(name: str) -> str:
    return name.casefold().removesuffix(":latest")


class ModelNames:
    """`served`: the name in answers and lists. `aliases`: further ones. Capitals make no difference."""

    def __init__(self, served: str, aliases: Iterable[str] = ()) -> None:
        self.served = served
        unique = {_folded(name): name for name in reversed((served, *aliases)) if name}
        self.aliases = tuple(name for name in unique.values() if name != served)[::-1]
        self._known = {*unique, DEFAULT}

    def __contains__(self, name: str) -> bool:
        return _folded(name) in self._known

    def check(self, name: str | None) -> None:
        """Raises HttpError 404 unless the request names the served model, or none."""
        if name is None or name in self:
            return
        shown = name if len(name) <= SHOWN else name[:SHOWN] + "..."
        others = ", ".join(f"'{alias}'" for alias in (*self.aliases, DEFAULT))
        text = (
            f"model '{shown}' not found: this server has '{self.served}', which also answers as {others}; it takes"
            " another name when it is started with --alias NAME."
        )
        raise HttpError(404, text, param="model", code="model_not_found")

"""A model that requests may ask for by name: on disk, waiting for the card, on its way there, or ready."""

from __future__ import annotations

import asyncio
import logging
import math
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import TYPE_CHECKING, Literal

from axpress.core.errors import AxpressError, PackageError

from ..settings import Settings
from .model_names import ModelNames

if TYPE_CHECKING:
    from axpress.core.engine.engine import Engine
    from axpress.core.model_files.model_package import ModelPackage
    from axpress.core.model_store import StoredModel

    from .served_model import ServedModel

log = logging.getLogger("axpress.server")

MAX_MODELS = 200
"""Of the models directory; further ones are not served."""
State = Literal["idle", "waiting", "loading", "ready", "leaving", "failed"]


@dataclass(eq=False, slots=True)
class HostedModel:
    """`settings`: the server's, with this model's directory and names. `stays`: it never leaves the card by itself.
    `num_users`: requests that have it. Times: of time.monotonic()."""

    settings: Settings
    names: ModelNames
    package: ModelPackage
    stays: bool = True
    engine: Engine | None = None
    served: ServedModel | None = None
    state: State = "idle"
    num_users: int = 0
    num_loads: int = 0
    load_seconds: float = 0.0
    loaded_at: float = 0.0
    wanted_at: float = 0.0
    last_used: float = field(default_factory=monotonic)
    keep: float | None = None
    """Seconds that it stays idle, as the latest request that said so wants it."""
    waiting: list[asyncio.Future[AxpressError | None]] = field(default_factory=list)
    capabilities: list[str] | None = None
    """What it can do, as Ollama names it, once that was read from its files."""

    @property
    def name(self) -> str:
        """In lists and answers."""
        return self.served.name if self.served is not None else self.names.served

    @property
    def context_length(self) -> int | None:
        """Tokens of prompt and answer together; None: that shows when it is loaded."""
        return self.served.limits.context_length if self.served is not None else self.package.rows

    @property
    def has_eyes(self) -> bool:
        """Whether it takes pictures; of one that is not on the card, its files say so."""
        return self.served.eyes is not None if self.served is not None else self.package.vision is not None

    @property
    def expires_at(self) -> float:
        """When it leaves, should nobody ask for it until then."""
        keep = self.settings.keep_loaded if self.keep is None else self.keep
        return math.inf if self.stays or self.num_users else self.last_used + keep

    @property
    def stays_until(self) -> float:
        """It has the card at least as long as its loading took, so that models do not only come and go."""
        return self.loaded_at + self.load_seconds

    def tell(self, error: AxpressError | None = None) -> None:
        """Those who wait for it: they have it now, or why not."""
        waiting, self.waiting = self.waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(error)
                self.num_users += error is None


def hosted_models(settings: Settings) -> list[HostedModel]:
    """The models that were given, which stay, then those of the models directory, where that is served. PackageError:
    one that was given does not open, or has another one's name."""
    from axpress.core.model_store import ModelStore

    stored = {model.directory.resolve(): model for model in ModelStore().models()}
    given = [] if settings.model_dir is None else [settings.model_dir, *settings.more_models]
    more = [path for path in stored if path not in {one.resolve() for one in given}] if settings.on_demand else []
    models: list[HostedModel] = []
    for number, directory in enumerate([*given, *more[:MAX_MODELS]]):
        record = stored.get(directory.resolve())
        own = replace(
            settings,
            model_dir=directory,
            more_models=(),
            on_demand=False,
            model_name=(settings.model_name if number == 0 and given else None) or (record.name if record else None),
            aliases=(*(settings.aliases if number == 0 and given else ()), *((record.repository,) if record else ())),
        )
        try:
            hosted = hosted_model(own)
        except PackageError as error:
            if number < len(given):
                raise
            log.warning("not served: %s", error)
            continue
        hosted.stays = number < len(given) or any(name in hosted.names for name in settings.pinned)
        if same := next((model for model in models if model.names.served == hosted.names.served), None):
            raise PackageError(
                f"{same.settings.model_dir} and {directory} are both called {hosted.names.served}: give the first one"
                " another name with --model-name, or rename a directory"
            )
        models.append(hosted)
    unknown = [name for name in settings.pinned if not any(name in model.names for model in models)]
    if unknown or not models:
        root = ModelStore().root
        raise PackageError(
            f"there is no model {unknown[0]} to pin in {root}"
            if unknown
            else f"no model is in {root}: `axpress pull NAME`"
        )
    return models


def stored_model(settings: Settings, stored: StoredModel) -> HostedModel:
    """A model of the models directory, which comes and goes. PackageError."""
    own = replace(settings, model_dir=stored.directory, more_models=(), on_demand=False)
    hosted = hosted_model(replace(own, model_name=stored.name, aliases=(stored.repository,)))
    hosted.stays = False
    return hosted


def hosted_model(settings: Settings) -> HostedModel:
    """The model of `settings.model_dir`, looked over. PackageError."""
    from axpress.core.model_files.model_package import open_package

    package = open_package(settings.directory)
    names = ModelNames(settings.model_name or package.name, (package.name, *package.aliases, *settings.aliases))
    return HostedModel(settings, names, package)

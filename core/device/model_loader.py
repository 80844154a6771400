"""A model ready to run: package checked, card opened, layers loaded, modes and costs probed."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ..errors import PackageError, RuntimeUnavailable
from ..model_files.model_package import ModelPackage, open_package
from ..model_files.simulated_axmodel import published_bytes
from ..model_files.timing_profile import profile_path
from ..request import EngineInfo
from ..tokenizer.tokenizer import Tokenizer
from .axmodel import LoadedModel
from .backend import Backend, CardHandle, Costs, Modes
from .emulator import emulator_library
from .probe import probe
from .program import Program
from .runtime import Card, find_library
from .shape_groups import find_tensor, layer_shape

log = logging.getLogger(__name__)

CMM_FLOOR = 64 << 20  # bytes of card memory that stay free: the runtime's own buffers need some

MAX_BANKS = 8

Progress = Callable[[str, int, int], None]
"""Called while loading with (what, done, total)."""


class Model:
    """Everything between a model directory and steps on a card. Close it to free the card."""

    def __init__(
        self,
        package: ModelPackage,
        text: Tokenizer,
        card: CardHandle,
        program: Backend,
        modes: Modes,
        costs: Costs,
        profile: str | None = None,
    ) -> None:
        self.card, self.package, self.text = card, package, text
        self.program, self.modes, self.costs = program, modes, costs
        self.info = EngineInfo(
            model=package.name,
            device=f"{'emulated card' if card.emulated else 'card'} {card.device}",
            emulated=bool(card.emulated),
            profile=profile,
            num_layers=program.num_layers,
            vocab_size=program.vocab_size,
            context_length=program.bank_rows,
            runtime_version=card.version(),
            num_banks=program.num_banks,
        )

    def close(self) -> None:
        """Frees program, models and card, in that order."""
        self.program.check_closable()
        self.card.begin_close()
        self.program.close()
        self.card.close()


def open_model(
    directory: str | os.PathLike[str],
    device: str | int = "auto",
    profile: str | None = None,
    settings: dict[str, str] | None = None,
    progress: Progress | None = None,
    *,
    banks: int | None = None,
    logits_slots: int = 1,
) -> Model:
    """Loads a model directory on a card.

    `device`: a card's number; "emu": the emulated card, with timing `profile` (None: the package's own, or "none");
    "auto": the emulated card for simulated packages, card 0 for others; "axengine": card 0 through the vendor's
    PyAXEngine, slow, for a card that only that can open. `settings` are further emulator settings. `banks`: caches of R
    rows each (None: as many as fit, at most MAX_BANKS); `logits_slots`: how many queries of a pass may want logits at
    once. Raises PackageError for everything that can be known without the card, RuntimeUnavailable, RuntimeCallError.
    """
    started = time.monotonic()
    package = open_package(directory)
    for warning in package.warnings:
        log.warning("%s: %s", package.name, warning)
    text = open_tokenizer(package)
    if device == "axengine":
        from .axengine import open_backend  # not everybody's way: what it needs is not loaded for others

        return Model(package, text, *open_backend(package, logits_slots))
    card, profile = _open_card(package, device, profile, settings or {})
    try:
        program = _load(card, package, progress or _silent, banks, logits_slots)
        model = Model(package, text, card, program, *probe(program), profile)
    except BaseException:
        with suppress(BufferError):  # the error's own traceback may hold a view
            card.close()
        raise
    log.info("%s: %d layers, %d bank(s) of %d rows, loaded in %.1f s on %s", package.name, program.num_layers,
             program.num_banks, program.bank_rows, time.monotonic() - started, model.info.device)  # fmt: skip
    return model


def open_tokenizer(package: ModelPackage) -> Tokenizer:
    """The package's tokenizer; the ends of an answer are its own where the package names none. PackageError."""
    return Tokenizer.open(
        package.tokenizer_path,
        tokenizer_type=package.tokenizer_type,
        embedding_rows=package.vocab_size,
        eos_override=package.eos,
        bos_override=package.bos,
    )


def _open_card(
    package: ModelPackage, device: str | int, profile: str | None, settings: dict[str, str]
) -> tuple[Card, str | None]:
    if device == "emu" or (device == "auto" and package.simulated):
        chosen = profile or package.profile or os.environ.get("AXPRESS_EMU_PROFILE") or "none"
        if chosen != "none":
            profile_path(chosen)  # the emulated runtime would tell where it looked, not what there is
        return Card(emulator_library(), 0, {"profile": chosen, **settings}), chosen
    if package.simulated:
        raise PackageError(f"{package.directory}: a simulated model runs on the emulated card only (--device emu)")
    if profile is not None:
        raise RuntimeUnavailable(
            "an emulator profile was given, but the model goes to a real card; add --device emu or drop the profile"
        )
    library = find_library()
    if library is None:
        raise RuntimeUnavailable(
            "no AXCL runtime found (looked at $AXPRESS_AXCL_LIB, $LD_LIBRARY_PATH and /usr/lib/axcl): install the"
            " vendor's axcl package, or use --device emu with a simulated model"
        )
    return Card(library, 0 if device == "auto" else int(device), settings), None


def _load(card: Card, package: ModelPackage, progress: Progress, banks: int | None, logits_slots: int) -> Program:
    """Layers and head on the card, with buffers around them."""
    files = [package.head_file, *package.layer_files]  # the head first: the card wants it so
    free = _check_memory(card, package, files)
    models = []
    for number, path in enumerate(files):
        progress("loading", number, len(files))
        models.append(LoadedModel(card, path))
        free = _check_growth(card, package, free, len(files) - len(models) if number else 0)  # layers are alike
    head, layers = models[0], models[1:]
    embedding = package.embedding(head.inputs[0].shapes[0][-1])
    num_banks = _num_banks(card, layers, banks)
    width = head.outputs[find_tensor(head.outputs, "output", head.path)].shapes[0][-1]
    token_ids = package.head_token_ids(width, len(embedding))
    program = Program(
        card, layers, head, embedding, num_banks=num_banks, logits_slots=logits_slots, token_ids=token_ids
    )
    progress("probing", len(files), len(files))
    return program


def _silent(what: str, done: int, total: int) -> None:
    """Progress for those who do not ask."""


def _check_memory(card: Card, package: ModelPackage, files: list[Path]) -> int:
    """Refuses before the first load what cannot fit, by the files' sizes: running out half way leaves the card in need
    of a reset, and asking the runtime would load everything twice. Returns the bytes that are free."""
    free: int = card.properties()["free_cmm"]
    need = sum(map(published_bytes, files))
    if need + CMM_FLOOR > free:
        raise _too_large(package, f"{len(files)} model files need at least {need >> 20} MiB", free)
    return free


def _check_growth(card: Card, package: ModelPackage, before: int, remaining: int) -> int:
    """Refuses once it shows that `remaining` files which take what the last one took do not fit; `before` was free
    before that one. Returns what is free now."""
    free: int = card.properties()["free_cmm"]
    need = remaining * (before - free)
    if need + CMM_FLOOR > free:
        raise _too_large(package, f"remaining {remaining} model files need about {need >> 20} MiB", free)
    return free


def _too_large(package: ModelPackage, need: str, free: int) -> PackageError:
    return PackageError(
        f"{package.directory}: its {need} of card memory and {CMM_FLOOR >> 20} MiB stay free, but the card has"
        f" {free >> 20} MiB free; close other programs on the card, reset it, or choose a smaller model"
    )


def _num_banks(card: Card, layers: list[LoadedModel], wanted: int | None) -> int:
    """How many banks fit beside the loaded layers; PackageError where fewer fit than `wanted`, or none."""
    shape = layer_shape(layers[0].inputs, layers[0].outputs, layers[0].path)
    bank_bytes = shape.rows * 2 * shape.kv_dim * 2 * len(layers)
    free = card.properties()["free_cmm"] - CMM_FLOOR
    fit = free // bank_bytes
    count = wanted or 1
    if fit < count:
        raise PackageError(
            f"{count} bank(s) of {shape.rows} rows need {count * bank_bytes >> 20} MiB, but {max(free, 0) >> 20} MiB of"
            f" card memory are left beside the model and a reserve of {CMM_FLOOR >> 20} MiB: ask for fewer banks"
            " (--banks) or choose a smaller model"
        )
    return wanted or min(fit, MAX_BANKS)


def default_model() -> Path:
    """The demo model that ships with the package."""
    return Path(__file__).parents[1] / "demo" / "package"

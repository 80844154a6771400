"""A model ready to run: package checked, card opened, layers loaded, modes and costs probed."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ..errors import LogitsError, PackageError, RuntimeUnavailable
from ..model_files.embedding_models import END_OF_TEXT, check_family
from ..model_files.model_package import ModelPackage, open_package
from ..model_files.simulated_axmodel import published_bytes
from ..model_files.timing_profile import profile_path
from ..request import EngineInfo
from ..tokenizer.tokenizer import Tokenizer
from .axmodel import LoadedModel
from .backend import Backend, CardHandle, Costs, Modes
from .card_memory import CardMemory
from .emulator import emulator_library
from .load_watch import LoadWatch, Progress
from .probe import probe
from .probe_passes import choose_tokens
from .program import Program
from .runtime import Card, find_library
from .shape_groups import gives_norm_alone, head_output
from .step import Step

log = logging.getLogger(__name__)


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
        self.load_seconds = 0.0
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
            embedding_size=program.shape.hidden if program.embeds else 0,
        )

    def close(self, settle_ms: int = 5000) -> None:
        """Frees program, models and card, in that order; what still runs may take `settle_ms`. Again: nothing."""
        self.program.check_closable()
        self.card.begin_close(settle_ms)
        self.program.close()
        self.card.close()

    def load_again(self, device_id: int | None, check_ms: int, progress: Progress | None = None) -> OpenCard:
        """Loads the same model, once this one is closed, on the card that the runtime calls `device_id` (None: on its
        own), and lets it compute a token within `check_ms`. To be taken by `adopt`.

        How passes run there stays as it was found when the model was first loaded. Errors as for `open_model`, and
        LogitsError."""
        before, old = self.program, self.card
        if not isinstance(old, Card) or not isinstance(before, Program):
            raise RuntimeUnavailable("PyAXEngine's sessions cannot be opened again in the same process")
        card = Card(old.library, device_id=old.device if device_id is None else device_id)
        program = None
        try:
            sizes = [published_bytes(path) for path in _files(self.package)]
            watch = LoadWatch(sizes, progress)
            program = _load(card, self.package, watch, sizes, before.num_banks, before.logits_slots)
            program.set_modes(use_async=self.modes.use_async, in_place_decode=self.modes.in_place_decode)
            check_card(program, check_ms)
        except BaseException:
            _close_half_open(card, program)
            raise
        return OpenCard(card, program)

    def adopt(self, opened: OpenCard) -> None:
        """Runs there from now on."""
        self.card, self.program = card, _ = opened
        where = f"{'emulated card' if card.emulated else 'card'} {card.device}"
        self.info = replace(self.info, device=where, runtime_version=card.version())


class OpenCard(NamedTuple):
    """A card with a model on it."""

    card: CardHandle
    program: Backend

    def close(self) -> None:
        """Frees both."""
        self.card.begin_close()
        self.program.close()
        self.card.close()


def check_card(program: Backend, timeout_ms: int) -> None:
    """One token by itself, that nobody sees. Raises where the card does not compute: RuntimeCallError, LogitsError."""
    step = Step(1)
    step.reset(0)
    (token,) = choose_tokens(program.table, 1) if isinstance(program, Program) else (0,)
    step.add(token, 0, -1, -1, step.add_view(0, 0), True)
    program.run(step, timeout_ms)
    if program.bad_logits(1):
        raise LogitsError("the card answers a test with NaN, infinity or the same for every token")


def open_model(
    directory: str | os.PathLike[str],
    device: str | int = "auto",
    profile: str | None = None,
    settings: dict[str, str] | None = None,
    progress: Progress | None = None,
    *,
    banks: int | None = None,
    logits_slots: int = 1,
    examine: Callable[[CardHandle], None] | None = None,
) -> Model:
    """Loads a model directory on a card.

    `device`: a card's number; "emu": the emulated card, with timing `profile` (None: the package's own, or "none");
    "auto": the emulated card for simulated packages, card 0 for others; "axengine": card 0 through the vendor's
    PyAXEngine, slow, for a card that only that can open. `settings` are further emulator settings. `banks`: caches of R
    rows each (None: as many as fit, at most MAX_BANKS); `logits_slots`: how many queries of a pass may want logits at
    once. `progress` is called as the loading goes on (load_watch.py), `examine` with the opened card before anything is
    loaded on it; both may raise. Raises PackageError for everything that can be
    known without the card and where its memory will not do, RuntimeUnavailable, RuntimeCallError.
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
    program = None
    try:
        if examine is not None:
            examine(card)
        sizes = [published_bytes(path) for path in _files(package)]
        watch = LoadWatch(sizes, progress)
        program = _load(card, package, watch, sizes, banks, logits_slots)
        if program.embeds and not text.has_control(END_OF_TEXT):
            raise PackageError(f"{package.tokenizer_path} has no token {END_OF_TEXT}, with which texts to embed end")
        watch.probing()
        model = Model(package, text, card, program, *probe(program, watch), profile)
        program.clear_bank(0)  # a NaN that a probe left in a row would be in every answer
    except BaseException:
        _close_half_open(card, program)
        raise
    model.load_seconds = time.monotonic() - started
    log.info("%s: %d layers, %d bank(s) of %d rows, loaded in %.1f s on %s", package.name, program.num_layers,
             program.num_banks, program.bank_rows, model.load_seconds, model.info.device)  # fmt: skip
    return model


def _close_half_open(card: Card, program: Program | None) -> None:
    with suppress(BufferError):  # the error's own traceback may hold a view
        card.begin_close()
        if program is not None:
            program.close()  # it holds views, with which the card would not close
        card.close()


def open_tokenizer(package: ModelPackage) -> Tokenizer:
    """The package's tokenizer; the ends of an answer are its own where the package names none. PackageError."""
    return Tokenizer.open(
        package.tokenizer_path,
        tokenizer_type=package.tokenizer_type,
        embedding_rows=package.vocab_size,
        eos_override=package.eos,
        bos_override=package.bos,
    )


def runtime_of(package: ModelPackage, device: str | int) -> tuple[str, int, bool]:
    """Which runtime library `open_model` opens for these, which of its cards, and whether they are emulated.
    RuntimeUnavailable, and PackageError for a simulated model on a card."""
    if device == "emu" or (device == "auto" and package.simulated):
        return os.fspath(emulator_library()), 0, True
    if package.simulated:
        raise PackageError(f"{package.directory}: a simulated model runs on the emulated card only (--device emu)")
    library = find_library()
    if library is None:
        raise RuntimeUnavailable(
            "no AXCL runtime found (looked at $AXPRESS_AXCL_LIB, $LD_LIBRARY_PATH and /usr/lib/axcl): install the"
            " vendor's axcl package, or use --device emu with a simulated model"
        )
    return library, int(device) if isinstance(device, int) or device.isdigit() else 0, False


def _open_card(
    package: ModelPackage, device: str | int, profile: str | None, settings: dict[str, str]
) -> tuple[Card, str | None]:
    if profile is not None and not package.simulated and device != "emu":
        raise RuntimeUnavailable(
            "an emulator profile was given, but the model goes to a real card; add --device emu or drop the profile"
        )
    library, index, emulated = runtime_of(package, device)
    if emulated:
        chosen = profile or package.profile or os.environ.get("AXPRESS_EMU_PROFILE") or "none"
        if chosen != "none":
            profile_path(chosen)  # the emulated runtime would tell where it looked, not what there is
        return Card(library, index, {"profile": chosen, **settings}), chosen
    return Card(library, index, settings), None


def _load(
    card: Card, package: ModelPackage, watch: LoadWatch, sizes: list[int], banks: int | None, logits_slots: int
) -> Program:
    """Layers and head on the card, with buffers around them."""
    memory = CardMemory(card, str(package.directory), sizes, banks)
    memory.check_files()
    models: list[LoadedModel] = []
    for path in _files(package):
        watch.loading(len(models))
        with watch.file(len(models), path.name):
            models.append(LoadedModel(card, path))
        memory.check_growth(models)
    head, layers = models[0], models[1:]
    embedding = package.embedding(head.inputs[0].shapes[0][-1])
    num_banks = memory.num_banks(layers)
    embeds = package.embeds or (package.head_ids_file is None and gives_norm_alone(head, len(embedding)))
    width = head.outputs[head_output(head, embeds)].shapes[0][-1]
    if embeds:
        check_family(package.family, head.path)
    token_ids = None if embeds else package.head_token_ids(width, len(embedding))
    return Program(
        card, layers, head, embedding, num_banks=num_banks, logits_slots=logits_slots, token_ids=token_ids,
        embeds=embeds, windows=package.windows,
    )  # fmt: skip


def _files(package: ModelPackage) -> list[Path]:
    """In the order of loading: the head first, the card wants it so."""
    return [package.head_file, *package.layer_files]


def default_model() -> Path:
    """The demo model that ships with the package."""
    return Path(__file__).parents[1] / "demo" / "package"

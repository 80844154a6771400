"""A model ready to run: package checked, card opened, layers loaded, modes and costs probed."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import AxpressError, PackageError, RuntimeUnavailable
from ..model_files.layer_blocks import DEVICES, layer_blocks, wanted_devices
from ..model_files.model_package import ModelPackage, open_package
from ..model_files.timing_profile import profile_path
from ..tokenizer.tokenizer import Tokenizer
from .backend import CardHandle
from .card_group import CardGroup
from .card_models import CardModels, Loads, Model, check_card
from .emulator import emulator_library
from .load_watch import Progress
from .probe import probe
from .runtime import Card, device_ids, find_library
from .split_load import SplitLoad
from .wanted import Wanted

__all__ = [
    "CardModels", "Model", "Wanted", "check_card", "default_model", "devices_of", "open_model", "open_models",
    "open_tokenizer", "runtime_of", "want",
]  # fmt: skip

log = logging.getLogger(__name__)


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
    split: Sequence[int] = (),
) -> Model:
    """Loads a model directory on a card that is its own. See `open_models`."""
    (model,) = open_models(
        [directory],
        device,
        profile,
        settings,
        progress,
        banks=banks,
        logits_slots=logits_slots,
        examine=examine,
        split=split,
    ).models
    return model


def open_models(
    directories: Sequence[str | os.PathLike[str]],
    device: str | int = "auto",
    profile: str | None = None,
    settings: dict[str, str] | None = None,
    progress: Progress | None = None,
    *,
    banks: int | None = None,
    logits_slots: int = 1,
    examine: Callable[[CardHandle], None] | None = None,
    split: Sequence[int] = (),
    like: str | os.PathLike[str] | None = None,
    device_id: int | None = None,
) -> CardModels:
    """Loads model directories on one card. Without any, `like` says which model's card is meant: it is opened, examined
    and closed.

    `device`: a card's number; "emu": the emulated card ("emu:1": the second of several), with timing `profile` (None:
    the first that a package names, or "none"); "auto": the emulated card for simulated packages, card 0 for others;
    "axengine": card 0 through the vendor's PyAXEngine, slow, for a card that only that can open. `settings` are further
    emulator settings. `banks`:
    caches of R rows for each model (None: as many as fit, at most MAX_BANKS); `logits_slots`: how many queries of a
    pass may want logits at once. `split`: indexes of cards, over which one model's layers are split in blocks (with
    device "auto" and "emu" empty: over those that the package names, if any); `device` then says only whether they are
    emulated, and of those there are as many as it takes, unless AXPRESS_EMU_DEVICES says how many. `progress` is called
    as the loading goes on (load_watch.py), `examine` with each opened card before anything is loaded on it; both may
    raise. `device_id`: what the runtime calls the card, where its place in the runtime's list may change. Raises
    PackageError for everything that can be known without the card and where its memory will not do, RuntimeUnavailable,
    RuntimeCallError.
    """
    wanted = [want(directory, banks, logits_slots) for directory in directories]
    packages = [each.package for each in wanted]
    if not split:
        split = cards_of(packages, device)
        meant = {p.name: wanted_devices(p) for p in packages if device in ("auto", "emu")}
        for name, devices in meant.items():
            if len(devices) > 1 and not split:
                log.warning("%s is meant for cards %s, and this machine has fewer: it is loaded on one", name,
                            list(devices))  # fmt: skip
    if device == "axengine":
        if split:
            raise RuntimeUnavailable("PyAXEngine's sessions run on one card: a model cannot be split with them")
        from .axengine import open_backend  # not everybody's way: what it needs is not loaded for others

        if len(packages) > 1:
            raise RuntimeUnavailable("PyAXEngine's sessions serve one model: give one, or another --device")
        return Model(packages[0], wanted[0].text, *open_backend(packages[0], logits_slots)).on_card
    if split:
        if len(packages) != 1:
            raise RuntimeUnavailable("a model that is split over several cards has them to itself: name one model")
        return _open_split(wanted[0], device, profile, settings or {}, progress, split, examine)
    card, profile = _open_card(packages or [open_package(like or "")], device, profile, settings or {}, device_id)
    loads = Loads(card, ())
    try:
        if examine is not None:
            examine(card)
        if not wanted:
            loads.close()
            return CardModels(card, [], profile)
        loads = Loads(card, wanted, progress)
        loads.load()
        return CardModels(card, loads.probed(profile=profile), profile)
    except BaseException:
        loads.close()
        raise


def _open_split(
    wanted: Wanted,
    device: str | int,
    profile: str | None,
    settings: dict[str, str],
    progress: Progress | None,
    split: Sequence[int],
    examine: Callable[[CardHandle], None] | None,
) -> CardModels:
    """See open_models."""
    if len(set(split)) != len(split) or len(split) < 2:
        raise RuntimeUnavailable(f"cards {list(split)}: a model is split over two different ones at least")
    layer_blocks(wanted.package, len(split))  # can be done
    library, profile, settings = _runtime([wanted.package], device, profile, settings)
    if profile is not None and "AXPRESS_EMU_DEVICES" not in os.environ:
        settings = {"devices": str(max(split) + 1), **settings}
    cards = CardGroup(library, split, settings)
    try:
        if examine is not None:
            for card in cards.cards:
                examine(card)
    except BaseException:
        cards.give_up()
        raise
    return _load_split(cards, wanted, progress, profile)


def _load_split(cards: CardGroup, wanted: Wanted, progress: Progress | None, profile: str | None) -> CardModels:
    """A model split over open cards, with what these can be trusted with found out. Closes them where that fails;
    errors as for `open_models`."""
    try:
        loads = SplitLoad(cards, wanted, progress)
        program = loads.load()
        loads.watch.probing()
        begun = time.monotonic()
        model = Model(wanted.package, wanted.text, cards, program, *probe(program, loads.watch), profile)
        program.clear_bank(0)
        model.load_seconds, model.card_bytes = loads.seconds + time.monotonic() - begun, loads.taken
        layers = " + ".join(str(block.num_layers) for block in program.blocks)
        log.info("%s: %s layers, %d bank(s) of %d rows, loaded in %.1f s on %s", model.package.name, layers,
                 program.num_banks, program.bank_rows, model.load_seconds, model.info.device)  # fmt: skip
        if program.num_banks == 1:
            log.warning("%s has one bank only: its cards work one after the other, never at the same time; more memory,"
                        " or fewer rows, would let them", model.package.name)  # fmt: skip
        return model.on_card
    except BaseException:
        cards.give_up()
        raise


def want(directory: str | os.PathLike[str], banks: int | None = None, logits_slots: int = 1) -> Wanted:
    """A model directory, looked over, with its tokenizer. PackageError."""
    package = open_package(directory)
    for warning in package.warnings:
        log.warning("%s: %s", package.name, warning)
    return Wanted(package, open_tokenizer(package), banks, logits_slots)


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
    kind, _, number = str(device).partition(":")
    if kind == "emu" or (device == "auto" and package.simulated):
        return os.fspath(emulator_library()), int(number or 0), True
    if package.simulated:
        raise PackageError(f"{package.directory}: a simulated model runs on the emulated card only (--device emu)")
    library = find_library()
    if library is None:
        raise RuntimeUnavailable(
            "no AXCL runtime found (looked at $AXPRESS_AXCL_LIB, $LD_LIBRARY_PATH and /usr/lib/axcl): install the"
            " vendor's axcl package, or use --device emu with a simulated model"
        )
    if isinstance(device, int) or device.isdigit():
        return library, int(device), False
    return library, next(iter(wanted_devices(package)), 0), False


def cards_of(packages: Sequence[ModelPackage], device: str | int) -> tuple[int, ...]:
    """The cards over which one of the models says that it is to be split, where nobody named a card; empty: none does,
    or this machine has fewer. But AXLLM_DEVICES is somebody's word, and holds. PackageError: it cannot be read."""
    if device not in ("auto", "emu"):
        return ()
    package = next((package for package in packages if len(wanted_devices(package)) > 1), None)
    if package is None or any(package.recurrent):  # hybrids are not split yet
        return ()
    devices = wanted_devices(package)
    return devices if os.environ.get(DEVICES) or max(devices) < _num_cards(package, device) else ()


def _num_cards(package: ModelPackage, device: str | int) -> float:
    """How many there are; of emulated ones as many as it takes, unless AXPRESS_EMU_DEVICES says otherwise."""
    try:
        library, _, emulated = runtime_of(package, device)
        if emulated:
            return float(os.environ.get("AXPRESS_EMU_DEVICES", "inf"))
        return len(device_ids(library))
    except (AxpressError, ValueError):
        return 0  # what is wrong with them is told when one is opened


def devices_of(package: ModelPackage, device: str | int) -> list[str | int]:
    """The cards that are meant, each as `open_models` takes it: by a number or a word one, as "0,1" or "emu:0,1"
    several, as "all" or "emu:all" those that the runtime lists. Errors as for `runtime_of`, RuntimeCallError."""
    kind, colon, numbers = str(device).rpartition(":")
    if numbers == "all":
        library, _, emulated = runtime_of(package, kind or "auto")
        kind, colon = ("emu", ":") if emulated else ("", "")
        count = len(device_ids(library)) or 1  # where there is none, opening the first says so
        numbers = ",".join(map(str, range(count)))
    elif not kind and "," not in numbers:
        return [device]
    return [f"{kind}{colon}{number}" if kind else int(number) for number in numbers.split(",")]


def _open_card(
    packages: Sequence[ModelPackage],
    device: str | int,
    profile: str | None,
    settings: dict[str, str],
    device_id: int | None,
) -> tuple[Card, str | None]:
    library, profile, settings = _runtime(packages, device, profile, settings)
    return Card(library, runtime_of(packages[0], device)[1], settings, device_id=device_id), profile


def _runtime(
    packages: Sequence[ModelPackage], device: str | int, profile: str | None, settings: dict[str, str]
) -> tuple[str, str | None, dict[str, str]]:
    """The runtime library for these, the profile of an emulated one (None: it drives cards), and its settings."""
    if profile is not None and not packages[0].simulated and not str(device).startswith("emu"):
        raise RuntimeUnavailable(
            "an emulator profile was given, but the model goes to a real card; add --device emu or drop the profile"
        )
    runtimes = {runtime_of(package, device) for package in packages}
    if len(runtimes) > 1:
        names = " and ".join(str(package.directory) for package in packages)
        raise PackageError(f"{names} run on different cards: some are simulated and some are not")
    library, _, emulated = runtimes.pop()
    if not emulated:
        return library, None, settings
    own = next((package.profile for package in packages if package.profile), None)
    chosen = profile or own or os.environ.get("AXPRESS_EMU_PROFILE") or "none"
    if chosen != "none":
        profile_path(chosen)  # the emulated runtime would tell where it looked, not what there is
    return library, chosen, {"profile": chosen, **settings}


def default_model() -> Path:
    """The demo model that ships with the package."""
    return Path(__file__).parents[1] / "demo" / "package"

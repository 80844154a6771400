"""A card opened for engines, with models on it or none yet: whatever state the process before left it in."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from ..device.backend import CardHandle
from ..device.card_models import CardModels
from ..device.load_watch import Progress
from ..device.model_loader import cards_of, open_models, runtime_of
from ..model_files.model_package import open_package
from .attempts import AttemptLog, attempts_file
from .bounded_call import Meanwhile, nothing
from .first_load import load_first
from .ladder import RecoveryPolicy
from .left_memory import LeftMemory
from .shared_card import SharedCard


def shared_card(
    on_card: CardModels, recovery: RecoveryPolicy | None = None, state_dir: Path | None = None
) -> SharedCard:
    """For all engines of the models on the card. `state_dir`: see `attempts_file`."""
    emulated = bool(on_card.card.emulated)
    return SharedCard(on_card, recovery or RecoveryPolicy(), AttemptLog(attempts_file(state_dir, emulated)))


def open_card(
    directories: Sequence[str | os.PathLike[str]],
    device: str | int = "auto",
    profile: str | None = None,
    settings: dict[str, str] | None = None,
    progress: Progress | None = None,
    *,
    banks: int | None = None,
    logits_slots: int = 16,
    recovery: RecoveryPolicy | None = None,
    state_dir: Path | None = None,
    meanwhile: Meanwhile = nothing,
    holders: Callable[[], str | None] = lambda: None,
    split: Sequence[int] = (),
    like: str | os.PathLike[str] | None = None,
    device_id: int | None = None,
) -> SharedCard:
    """Loads these models, or none: then `like` says which model's card is meant, and it is closed again until there is
    one. A card that fails or hangs meanwhile is tried again, and rebooted. `meanwhile` is called while that is waited
    for, and may raise; `holders`: see LeftMemory. Other parameters and errors as for `open_models`."""

    def load(tell: Progress) -> CardModels:
        on_card = open_models(
            directories, device, profile, settings, tell, banks=banks, logits_slots=logits_slots, examine=examine,
            split=split, like=like, device_id=device_id,
        )  # fmt: skip
        on_card.free_bytes = free[-1] if free else None
        return on_card

    def examine(card: CardHandle) -> None:
        left.check(card)
        free.append(card.properties().get("free_cmm"))

    def runtime() -> tuple[str, int, bool]:
        library, index, emulated = runtime_of(package, device)
        return library, next(iter(split), index), emulated

    package = open_package(directories[0] if directories else like or "")
    split = split or cards_of([package] if directories else [], device)
    free: list[int | None] = []
    emulated = device != "axengine" and runtime()[2]
    path = attempts_file(state_dir, emulated) if device != "axengine" else None
    policy, attempts = recovery or RecoveryPolicy(), AttemptLog(path)
    others = (lambda: "") if emulated else holders  # an emulated card is this process's own
    left = LeftMemory(attempts, policy.max_reboots, others, meanwhile)
    on_card = load_first(load, runtime, policy, attempts, progress, meanwhile, device_id, split)
    return shared_card(on_card, recovery, state_dir)

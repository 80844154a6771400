"""The models on one card, and the card: loaded together, closed together, opened again together.

All files of all models come before the first pass, and heads before layers: many runtimes want it so (rule 6 of the
card's makers), and where one does not, nothing is lost by it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ..errors import AxpressError, LogitsError, RuntimeUnavailable
from ..model_files.model_package import ModelPackage
from ..model_files.simulated_axmodel import published_bytes
from ..request import EngineInfo
from ..tokenizer.tokenizer import Tokenizer
from .axmodel import LoadedModel
from .backend import Backend, CardHandle, Costs, Modes
from .card_group import CardGroup
from .card_memory import CardMemory, num_state_slots, share_banks
from .load_watch import LoadWatch, Progress
from .probe import probe
from .probe_passes import choose_tokens
from .program import Program
from .runtime import Card
from .shape_groups import hidden_size
from .split_load import SplitLoad
from .split_program import SplitProgram
from .step import Step
from .vision_encoder import VisionEncoder
from .wanted import Surroundings, Wanted

log = logging.getLogger(__name__)


class Model:
    """Everything between a model directory and steps on a card. Close it to free what it has there."""

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
        self.package, self.text = package, text
        self.program, self.modes, self.costs = program, modes, costs
        self.num_blocks = program.num_blocks if isinstance(program, SplitProgram) else 1
        """Cards over which its layers are split, and so passes that run at a time."""
        self.max_under_way = 1 if self.num_blocks == 1 else self.num_blocks + 1
        """Passes that are begun before the first has ended: a card that is done with one finds the next."""
        self.load_seconds = 0.0
        self.card_bytes: int | None = None
        """Of the card's memory, caches included, as measured when it was loaded; None: the runtime does not tell."""
        self.on_card = CardModels(card, [self], profile)
        self.info = EngineInfo(
            model=package.name,
            device=_place(card),
            emulated=bool(card.emulated),
            profile=profile,
            num_layers=program.num_layers,
            vocab_size=program.vocab_size,
            context_length=program.bank_rows,
            runtime_version=card.version(),
            num_banks=program.num_banks,
            embedding_size=program.shape.hidden if program.embeds else 0,
            vision_kind=program.encoder.kind if program.encoder is not None else None,
        )

    @property
    def card(self) -> CardHandle:
        """The card that it is on; another one after it was opened again."""
        return self.on_card.card

    @property
    def pipeline(self) -> SplitProgram | None:
        """The program, where it is split over several cards."""
        return self.program if isinstance(self.program, SplitProgram) else None

    def wanted(self) -> Wanted:
        """What to ask for to have it again."""
        return Wanted(self.package, self.text, self.program.num_banks, self.program.logits_slots)

    def drop_bank(self) -> None:
        """Gives the memory of the last bank, which nobody uses any more, back to the card, and does without it from now
        on. Errors as for `Backend.drop_bank`."""
        try:
            self.program.drop_bank()
        finally:
            self.info = replace(self.info, num_banks=self.program.num_banks)

    def close(self, settle_ms: int = 5000) -> None:
        """Frees program and files, and the card with the last model on it; what still runs may take `settle_ms`. Again:
        nothing."""
        self.on_card.remove(self, settle_ms)


class OpenCard(NamedTuple):
    """A card with models on it: programs of those that were there before, in their order, and new models."""

    card: CardHandle
    programs: Sequence[Program | SplitProgram]
    new: list[Model]

    def close(self) -> None:
        """Frees all."""
        self.card.begin_close()
        for program in [*self.programs, *(model.program for model in self.new)]:
            program.close()
        self.card.close()


Gate = Callable[[], AbstractContextManager[None]]


class CardModels:
    """A card, and the models on it. Whoever changes anything here has the card to himself (see recovery/turns.py)."""

    def __init__(self, card: CardHandle, models: list[Model], profile: str | None = None) -> None:
        """`profile`: what an emulated card is paced like."""
        self.card, self.models, self.profile = card, models, profile
        self.free_bytes: int | None = None
        """Of the card's memory, before anything of ours was there; None: not known."""
        for model in models:
            model.on_card = self

    @property
    def load_seconds(self) -> float:
        """For all of them together."""
        return sum(model.load_seconds for model in self.models)

    def close(self, settle_ms: int = 5000) -> None:
        """Frees programs, models and card, in that order; what still runs may take `settle_ms`. Again: nothing."""
        for model in self.models:
            model.program.check_closable()
        self.card.begin_close(settle_ms)
        for model in self.models:
            model.program.close()
        self.card.close()

    def remove(self, model: Model, settle_ms: int = 5000) -> None:
        """Frees what one model has on the card; the others stay. The card is closed with the last one."""
        if self.models in ([model], []):
            self.close(settle_ms)
            self.models = []
            return
        if model not in self.models:
            return
        model.program.check_closable()
        self.models.remove(model)
        if not self.card.closed:
            self.card.bind_thread()
        model.program.close()
        assert isinstance(self.card, Card)  # others have one model
        self.card.unload([str(path) for path in _files(model.package)])

    def clear(self, check_ms: int) -> None:
        """Zeros in all caches, and each model computes a token within `check_ms`. Errors of the card, LogitsError."""
        if self.card.closed:
            raise RuntimeUnavailable("the card is closed")
        self.card.bind_thread()
        for model in self.models:
            for bank in range(model.program.num_banks):
                model.program.clear_bank(bank)
            model.program.clear_states()
            check_card(model.program, check_ms)

    def load_beside(self, wanted: Wanted, gate: Gate, last_gate: Gate, progress: Progress | None = None) -> Model:
        """Loads one more model on the open card, while others use it. See Loads for `gate`; through `last_gate` goes
        what frees all that was loaded, where that failed. Errors as for `open_models`."""
        card = self.card
        if not isinstance(card, Card):
            raise RuntimeUnavailable("PyAXEngine's sessions, and cards over which a model is split, serve one model")
        card.bind_thread()
        loads = Loads(card, [wanted], progress, gate)
        try:
            loads.load_files()
            with gate():
                loads.make_programs()
                (model,) = loads.probed(profile=self.profile)
                model.on_card = self
                self.models.append(model)
                return model
        except BaseException:
            with suppress(AxpressError, BufferError), last_gate():
                loads.undo()
            raise

    def load_again(
        self, device_id: int | None, check_ms: int, progress: Progress | None = None, adding: Sequence[Wanted] = ()
    ) -> OpenCard:
        """Loads the same models and `adding`, once the card is closed, on the card that the runtime calls `device_id`
        (None: on the same), and lets each compute a token within `check_ms`. To be taken by `adopt`.

        How passes of the same models run there stays as it was found when they were first loaded. Errors as for
        `open_models`, and LogitsError."""
        old = self.card
        if isinstance(old, CardGroup):
            if adding:
                raise RuntimeUnavailable("a model that is split over several cards has them to itself")
            return self._split_again(old, device_id, check_ms, progress)
        if not isinstance(old, Card) or not all(isinstance(model.program, Program) for model in self.models):
            raise RuntimeUnavailable("PyAXEngine's sessions cannot be opened again in the same process")
        card = Card(old.library, device_id=old.device if device_id is None else device_id)
        loads = Loads(card, ())
        try:
            loads = Loads(card, [*(model.wanted() for model in self.models), *adding], progress)
            loads.load()
            programs = loads.programs[: len(self.models)]
            for model, program in zip(self.models, programs, strict=True):
                program.set_modes(use_async=model.modes.use_async, in_place_decode=model.modes.in_place_decode)
                check_card(program, check_ms)
            return OpenCard(card, programs, loads.probed(len(self.models), self.profile))
        except BaseException:
            loads.close()
            raise

    def _split_again(self, old: CardGroup, spare: int | None, check_ms: int, progress: Progress | None) -> OpenCard:
        """The same of a model that is split over cards; `spare` takes the place of the one that failed."""
        (model,) = self.models
        devices = list(old.devices)
        if spare is not None and spare not in devices:
            devices[old.suspect] = spare
        cards = CardGroup(old.library, device_ids=devices)
        program: SplitProgram | None = None
        try:
            program = SplitLoad(cards, model.wanted(), progress).load()
            program.set_modes(use_async=model.modes.use_async, in_place_decode=model.modes.in_place_decode)
            check_card(program, check_ms)
            return OpenCard(cards, [program], [])
        except BaseException:
            cards.begin_close()
            with suppress(AxpressError, BufferError):
                if program is not None:
                    program.close()  # it holds views, with which the cards would not close
            cards.give_up()
            raise

    def adopt(self, opened: OpenCard) -> None:
        """They are there from now on; new ones are the last of `models`."""
        self.card = card = opened.card
        for model, program in zip(self.models, opened.programs, strict=True):
            model.program = program
            model.info = replace(model.info, device=_place(card), runtime_version=card.version())
        for model in opened.new:
            model.on_card = self
            self.models.append(model)


def _place(card: CardHandle) -> str:
    kind = "emulated card" if card.emulated else "card"
    if isinstance(card, CardGroup):
        return f"{kind}s {', '.join(map(str, card.devices[:-1]))} and {card.devices[-1]}"
    return f"{kind} {card.device}"


def check_card(program: Backend, timeout_ms: int) -> None:
    """One token by itself, that nobody sees. Raises where the card does not compute: RuntimeCallError, LogitsError."""
    step = Step(1)
    step.reset(0)
    (token,) = choose_tokens(program.table, 1) if isinstance(program, Program | SplitProgram) else (0,)
    step.add(token, 0, -1, -1, step.add_view(0, 0), True)
    program.run(step, timeout_ms)
    if program.bad_logits(1):
        raise LogitsError("the card answers a test with NaN, infinity or the same for every token")


class Loads:
    """Several models on their way to an open card: encoders and heads of all, then the layers of each, then what is
    around them; passes come later. Errors as for `open_models`."""

    def __init__(
        self, card: Card, wanted: Sequence[Wanted], progress: Progress | None = None, gate: Gate = nullcontext
    ) -> None:
        """`gate`: what is entered around each file, and around all that comes after them: others may use the card
        before and after."""
        self._card, self._loads, self._gate = card, [_Load(card, each) for each in wanted], gate
        self.programs: list[Program] = []
        heads = [size for load in self._loads for size in load.sizes[: load.num_first]]
        self._sizes = [*heads, *(size for load in self._loads for size in load.sizes[load.num_first :])]
        self._watch = LoadWatch(self._sizes, progress)

    def load(self) -> None:
        """All files, and the programs."""
        self.load_files()
        self.make_programs()

    def load_files(self) -> None:
        """All files."""
        loads = self._loads
        if len(loads) > 1:
            names = " and ".join(str(load.wanted.package.directory) for load in loads)
            CardMemory(self._card, names, self._sizes, None).check_files()
        with self._gate():
            for load in loads:
                load.begin()
        order = [load for load in loads for _ in range(load.num_first)]
        order += [load for load in loads for _ in load.sizes[load.num_first :]]
        for number, load in enumerate(order):
            with self._gate():
                load.next_file(self._watch, number)

    def make_programs(self) -> None:
        """With as many caches as were asked for, or as fit."""
        loads = self._loads
        counts = share_banks([(load.memory, load.models[load.num_first :]) for load in loads])
        for load, count in zip(loads, counts, strict=True):
            self.programs.append(load.program(count))

    def probed(self, first: int = 0, profile: str | None = None) -> list[Model]:
        """Models of the programs from `first` on, with what the card can be trusted with found out."""
        if first < len(self.programs):
            self._watch.probing()
        models = []
        for load, program in list(zip(self._loads, self.programs, strict=True))[first:]:
            begun = time.monotonic()
            model = Model(load.wanted.package, load.wanted.text, self._card, program, *probe(program, self._watch),
                          profile)  # fmt: skip
            program.clear_bank(0)  # a NaN that a probe left in a row would be in every answer
            model.load_seconds = load.seconds + time.monotonic() - begun
            model.card_bytes = load.memory.taken
            log.info("%s: %d layers, %d bank(s) of %d rows, loaded in %.1f s on %s", model.package.name,
                     program.num_layers, program.num_banks, program.bank_rows, model.load_seconds,
                     model.info.device)  # fmt: skip
            models.append(model)
        return models

    def undo(self) -> None:
        """After an error: frees what is on the card so far; the card stays open, and what others have on it."""
        for program in self.programs:
            program.close()
        for load in self._loads:
            for loaded in reversed(load.models):
                loaded.close()

    def close(self) -> None:
        """After an error: the card and what is on it so far."""
        with suppress(BufferError):  # the error's own traceback may hold a view
            self._card.begin_close()
            for program in self.programs:
                program.close()  # it holds views, with which the card would not close
            self._card.close()


class _Load:
    """One model's way."""

    def __init__(self, card: Card, wanted: Wanted) -> None:
        self._card, self.wanted = card, wanted
        self._paths = _files(wanted.package)
        self.sizes = [published_bytes(path) for path in self._paths]
        self.num_first = len(self._paths) - len(wanted.package.layer_files)
        self.models: list[LoadedModel] = []
        self.seconds = 0.0
        self.memory: CardMemory

    def begin(self) -> None:
        """Nothing is loaded yet: whether it could be."""
        self.memory = CardMemory(self._card, str(self.wanted.package.directory), self.sizes, self.wanted.banks,
                                 self.num_first, sum(self.wanted.package.recurrent))  # fmt: skip
        self.memory.check_files()

    def next_file(self, watch: LoadWatch, number: int) -> None:
        """The next of its files, which is the `number`-th of all."""
        begun = time.monotonic()
        self.memory.resume()
        path = self._paths[len(self.models)]
        watch.loading(number)
        with watch.file(number, path.name):
            self.models.append(LoadedModel(self._card, path))
        self.memory.check_growth(self.models)
        self.seconds += time.monotonic() - begun

    def program(self, num_banks: int) -> Program:
        """Layers and head with buffers around them."""
        begun = time.monotonic()
        self.memory.resume()
        *encoders, head = self.models[: self.num_first]
        layers, vision = self.models[self.num_first :], self.wanted.package.vision
        encoder = VisionEncoder(encoders[0], vision.kind, hidden_size(head)) if encoders and vision else None
        around = Surroundings.of(self.wanted, head)
        program = Program(
            self._card, layers, head, around.embedding, num_banks=num_banks, logits_slots=self.wanted.logits_slots,
            token_ids=around.token_ids, embeds=around.embeds, windows=self.wanted.package.windows,
            num_states=num_state_slots(layers), encoder=encoder,
        )  # fmt: skip
        self.memory.pause()
        self.seconds += time.monotonic() - begun
        return program


def _files(package: ModelPackage) -> list[Path]:
    """In the order of loading: the vision encoder first, then the head, the card wants it so."""
    encoders = [package.vision.encoder] if package.vision is not None else []
    return [*encoders, package.head_file, *package.layer_files]

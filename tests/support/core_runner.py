"""The interface of ctypes_runner.Runner on axpress's own core: one sequence whose row is its position."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from axpress.core.device.axmodel import LoadedModel
from axpress.core.device.backend import FIRST_STATE_SLOT
from axpress.core.device.emulator import Emulator, emulator_library
from axpress.core.device.program import Program
from axpress.core.device.runtime import Card
from axpress.core.device.shape_groups import is_recurrent
from axpress.core.device.step import Step
from axpress.core.model_files.model_package import open_package
from axpress.core.model_files.safetensors import from_bf16
from axpress.core.model_files.simulated_axmodel import read_axmodel


class CoreRunner:
    """A package on the emulated card through Card, LoadedModel and Program; `modes` as Program.set_modes takes them."""

    def __init__(self, directory: Path, **modes: bool) -> None:
        package = open_package(directory)
        self.card = Card(emulator_library(), 0, {"PROFILE": "none", "INPLACE_UNALIGNED": "1"})
        head = LoadedModel(self.card, package.head_file)
        layers = [LoadedModel(self.card, path) for path in package.layer_files]
        hidden = head.inputs[0].shapes[0][-1]
        width = max(shape[-1] for tensor in layers[0].inputs if tensor.name == "indices" for shape in tensor.shapes)
        self.program = Program(
            self.card, layers, head, package.embedding(hidden), logits_slots=width, windows=package.windows,
            num_states=FIRST_STATE_SLOT + 2,
        )  # fmt: skip
        self.program.set_modes(**modes)
        self.used, self.state = 0, 0
        self.recurrent = [is_recurrent(layer) for layer in layers]
        spoils = any(read_axmodel(path)[0].padding == "spoils" for path in package.layer_files)
        self.full = spoils  # chunks only for as many tokens as they take

    def feed(self, tokens: Sequence[int], width: int) -> np.ndarray:
        """Runs `tokens` through groups of `width` (decode where none of that width fits); logits float32 [len(tokens),
        vocab]."""
        logits: list[np.ndarray] = []
        while len(logits) < len(tokens):
            left = len(tokens) - len(logits)
            group = self._group(1 if self.full and left < width else width)
            part = tokens[len(logits) : len(logits) + self.program.groups[group].width]
            logits += self._run(group, part)
        return np.array(logits)

    def _group(self, width: int) -> int:
        groups = self.program.groups
        fitting = [i for i, group in enumerate(groups) if group.width == width and group.history >= self.used]
        return min(fitting, key=lambda i: groups[i].history) if fitting else self._group(1)

    def _run(self, group: int, tokens: Sequence[int]) -> list[np.ndarray]:
        step = Step(self.program.groups[group].width)
        step.reset(group)
        view = step.add_view(0, self.used)
        for number, token in enumerate(tokens):
            step.add(token, self.used + number, self.used + number, number - 1, view, True)
        if self.program.num_states:
            target = FIRST_STATE_SLOT if self.state != FIRST_STATE_SLOT else FIRST_STATE_SLOT + 1
            step.add_part(0, len(tokens), self.state, target)
            self.state = target
        self.program.run(step)
        self.used += len(tokens)
        return [from_bf16(np.array(self.program.logits(slot))) for slot in range(len(tokens))]

    def cache_bytes(self) -> bytes:
        """K and V rows in use, of every layer; of recurrent layers the states."""
        count, program = self.used * self.program.shape.kv_dim, self.program
        attention = iter(range(program.num_attention))
        states = iter(range(program.num_layers - program.num_attention))
        return b"".join(
            buffer.read("uint8").tobytes() if recurrent else buffer.read("uint16", count).tobytes()
            for recurrent in self.recurrent
            for buffer in (program.state_buffers(self.state, next(states)) if recurrent
                           else program.kv_buffers(0, next(attention)))
        )  # fmt: skip

    def reset(self) -> None:
        """Forgets the sequence; what the rows hold stays."""
        self.used = self.state = 0

    def close(self) -> None:
        """Frees program, models and card."""
        self.program.close()
        self.card.close()
        Emulator().set("INPLACE_UNALIGNED", 0)  # it stays with the process

"""The vendor's PyAXEngine, unmodified, on the emulated runtime: every shape group gives the bits that our core
gives."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

import pytest
from repository import PATIENCE
from tiny_models import Tiny, convert_tiny

from axpress.core.device.emulator import emulator_library
from axpress.core.device.model_loader import open_model
from axpress.core.errors import RuntimeUnavailable

SCRIPT = """
import hashlib, json, sys
from axpress.core.device.model_loader import open_model
from axpress.core.device.step import Step
model = open_model(sys.argv[1], sys.argv[2], "none" if sys.argv[2] == "emu" else None)
tokens = [(7 * i) % 250 for i in range(200)]
step, out = Step(64), []
def run(slot, at, count):
    step.reset(slot)
    step.add_chain(tokens[at : at + count], at, at, step.add_view(0, at), True)
    model.program.run(step)
    out.append(hashlib.sha256(model.program.logits(0).tobytes()).hexdigest())
for slot, group in enumerate(model.program.groups):
    if group.width > 1:
        run(slot, group.history, min(group.width, 200 - group.history))
for slot in range(len(model.program.shape.decode)):
    for at in (0, 1, 180):
        run(slot, at, 1)
emulated = model.info.emulated
model.close()
print(json.dumps({"emulated": emulated, "logits": out}))
"""


def run(package, device: str) -> dict:
    environment = dict(os.environ, AXPRESS_EMU_MODE="tolerant", LD_LIBRARY_PATH=str(emulator_library().parent))
    command = [sys.executable, "-c", SCRIPT, str(package), device]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120 * PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    folder = tmp_path_factory.mktemp("axengine")
    return convert_tiny(folder, Tiny("qwen3", layers=3), rows=255, chunk=64, history=[0, 64, 128])


@pytest.mark.skipif(
    importlib.util.find_spec("axengine") is None, reason="the vendor's PyAXEngine wheel (not on PyPI) is not installed"
)
def test_the_vendors_sessions_give_our_bits_in_every_group(package) -> None:
    ours, theirs = run(package, "emu"), run(package, "axengine")
    assert theirs == ours
    assert len(set(ours["logits"])) == len(ours["logits"]) == 6
    assert theirs["emulated"]


@pytest.mark.skipif(
    importlib.util.find_spec("axengine") is not None, reason="PyAXEngine is installed: its absence cannot be shown"
)
def test_without_the_wheel_the_backend_says_what_is_missing(package) -> None:
    with pytest.raises(RuntimeUnavailable, match="PyAXEngine wheel"):
        open_model(package, "axengine")

"""tools/c_layers.py: what it finds in a small tree of C files, and that it sees every function of the emulator."""

from __future__ import annotations

import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from repository import ROOT

from axpress.core.device.emulator import emulator_library

TOOL = ROOT / "tools" / "c_layers.py"

ARITHMETIC, MACHINE, API = "csrc/emu/arithmetic", "csrc/emu/machine", "csrc/emu/api"
WAIT = "int emu_wait(void) { return emu_add(emu_now(), 1); }\n"
INLINE = "static inline int emu_soon(void) { return emu_now() + 1; }\n"
SOUND = {
    "csrc/axcl_abi.h": "typedef int axclError;\n",
    "csrc/mask.h": "int mask_fill(void);\n",
    "csrc/mask.c": '#include "mask.h"\n\nint mask_fill(void) { return 1; }\n',
    f"{ARITHMETIC}/math.h": "int emu_add(int a, int b);\n",
    f"{ARITHMETIC}/math.c": '#include "math.h"\n\nint emu_add(int a, int b)\n{\n    return a + b;\n}\n',
    f"{MACHINE}/clock.h": '#include "../../axcl_abi.h"\n\nint emu_now(void);\nextern int emu_speed;\n',
    f"{MACHINE}/clock.c": '#include "clock.h"\n\nint emu_speed = 1;\n\nint emu_now(void) { return emu_speed; }\n',
    f"{MACHINE}/wait.h": f'#include "clock.h"\n\n{INLINE}int emu_wait(void);\n',
    f"{MACHINE}/wait.c": '#include "wait.h"\n#include "../arithmetic/math.h"\n\n' + WAIT,
    f"{API}/calls.c": '#include "../machine/wait.h"\n\nint axclWait(void) { return emu_wait(); /* not mask_fill */ }\n',
}


def offences(root: Path, files: dict[str, str]) -> list[str]:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    run = subprocess.run([sys.executable, str(TOOL), str(root)], capture_output=True, text=True)
    assert run.returncode == (1 if run.stderr else 0), run
    return run.stderr.splitlines()


def test_a_sound_tree_passes(tmp_path: Path) -> None:
    assert offences(tmp_path, SOUND) == []


def added(name: str, text: str) -> dict[str, str]:
    return {**SOUND, name: SOUND.get(name, "") + text}


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        (f"{ARITHMETIC}/math.c", '#include "../machine/clock.h"\n', f"math.c includes {MACHINE}/clock.h: "),
        (f"{ARITHMETIC}/math.c", '#include "../../axcl_abi.h"\n', "math.c includes csrc/axcl_abi.h: "),
        (f"{ARITHMETIC}/math.c", "int f(void) { return emu_speed; }\n", f"uses emu_speed of {MACHINE}/clock.c: "),
        (f"{MACHINE}/clock.c", "int f(void) { return axclWait(); }\n", f"clock.c uses axclWait of {API}/calls.c: "),
        ("csrc/mask.c", '#include "emu/arithmetic/math.h"\n', f"csrc/mask.c includes {ARITHMETIC}/math.h: "),
        (f"{API}/calls.c", "int f(void) { return mask_fill(); }\n", "calls.c uses mask_fill of csrc/mask.c: "),
        (f"{API}/calls.c", '#include "gone.h"\n', 'calls.c includes "gone.h", which is not in csrc'),
        ("csrc/emu/stray.c", "int stray;\n", "csrc/emu/stray.c lies in no room"),
    ],
)
def test_a_use_of_another_room_is_named(tmp_path: Path, name: str, text: str, said: str) -> None:
    found = [sentence for sentence in offences(tmp_path, added(name, text)) if not sentence.startswith("a circle")]
    assert len(found) == 1 and said in found[0], found


@pytest.mark.parametrize("body", ["return emu_wait();", "return WAITED;"])
def test_a_circle_is_named_with_its_symbols(tmp_path: Path, body: str) -> None:
    files = added(f"{MACHINE}/clock.c", f"int emu_late(void)\n{{\n    {body}\n}}\n")
    files[f"{MACHINE}/clock.h"] += "#define WAITED emu_wait()\n"
    (found,) = offences(tmp_path, files)
    assert found == (
        "a circle of uses: csrc/emu/machine/clock.c uses emu_wait of csrc/emu/machine/wait.c; "
        "csrc/emu/machine/wait.c uses emu_now of csrc/emu/machine/clock.c"
    )


def test_a_use_through_an_inline_function_counts(tmp_path: Path) -> None:
    files = added(f"{MACHINE}/wait.c", "int emu_go(void) { return 1; }\n")
    inline = "static inline int emu_start(void)\n{\n    if (1) { return 1; }\n    return emu_go();\n}\n"
    files[f"{MACHINE}/wait.h"] += inline
    files[f"{MACHINE}/clock.c"] += "int first(void) { return emu_start(); }\n"
    (found,) = offences(tmp_path, files)
    assert "clock.c uses emu_go of csrc/emu/machine/wait.c" in found


def test_a_circle_of_includes_is_named(tmp_path: Path) -> None:
    (found,) = offences(tmp_path, added(f"{MACHINE}/clock.h", '#include "wait.h"\n'))
    way = (f"{MACHINE}/clock.h", f"{MACHINE}/wait.h", f"{MACHINE}/clock.h")
    assert found == "a circle of includes: " + " -> ".join(way)


@pytest.mark.skipif(shutil.which("nm") is None, reason="without nm there is nothing to compare with")
def test_it_sees_every_function_of_the_library() -> None:
    tool = runpy.run_path(str(TOOL))
    known = {name for source in tool["load"](ROOT).values() for name in (*source.defines, *source.shortcuts)}
    nm = subprocess.run(["nm", "--defined-only", emulator_library()], capture_output=True, text=True, check=True)
    symbols = {line.split()[-1] for line in nm.stdout.splitlines()}
    ours = {name for name in symbols if name.startswith(("emu_", "json_")) and "." not in name}
    assert "emu_refuse" in ours and ours <= known, sorted(ours - known)

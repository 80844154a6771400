"""Opens the card and asks what it says of itself: the child of the doctor that may hang, and its parent's side.

Run as `python -m axpress.core.doctor.open_card FD LIBRARY INDEX`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

from ..device.runtime import library_problem
from ..errors import RuntimeCallError
from .child import Outcome, Reporter, run_child
from .raw_runtime import RawRuntime


def open_card(
    library: str, index: int, seconds: float, environ: Mapping[str, str], waiting: Callable[[float], None] | None = None
) -> Outcome:
    """Opens `library` and its `index`-th card in a child.

    What the outcome's `merged()` may hold: `problem` (the library cannot be used, and why), `version`, `full_version`,
    `soc`, `emulated`, `devices` (ids), the keys of `RawRuntime.properties`, and, where a call failed, `call`, `code`,
    `error`.
    """
    return run_child(__name__, [library, str(index)], seconds, environ=environ, waiting=waiting)


def _look(report: Reporter, library: str, index: int) -> None:
    report.step("loading the library")
    if problem := library_problem(library):
        report.found(problem=problem)
        return
    runtime = RawRuntime(library, report.step)
    report.found(emulated=runtime.emulated)
    try:
        runtime.call("axclInit", None)
        report.found(
            version=runtime.version(),
            full_version=runtime.words("axclrtGetFullVersion"),
            soc=runtime.words("axclrtGetSocName"),
        )
        devices = runtime.device_ids()
        report.found(devices=devices)
        if index < len(devices):
            runtime.call("axclrtSetDevice", devices[index])
            report.found(**runtime.properties(devices[index]))
            runtime.call("axclrtResetDevice", devices[index])
        runtime.call("axclFinalize")
    except RuntimeCallError as error:
        report.found(call=error.call, code=error.code, error=str(error))


if __name__ == "__main__":
    _look(Reporter(int(sys.argv[1])), sys.argv[2], int(sys.argv[3]))

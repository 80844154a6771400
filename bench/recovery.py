"""What a fault of the card costs those who are being served: a modelled card of a published model, everything emulated.

    python bench/recovery.py [PROFILE] [--only EXPRESSION]      # default qwen3-1.7b-w8a16-pi5

Four streams run on a real server; then the card fails. For each kind of fault: seconds from that moment until /health
tells of it, the longest gap between two tokens of a stream, how the streams ended, what helped, and what /health said
when. Loading again takes what the profile says; a card that reboots is missing for 8 s. Prints a table and writes
bench/results/recovery.json."""

from __future__ import annotations

import argparse
import re
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from results import write_results
from supervised import Reply, Supervised, ask

from axpress.core.model_files.hollow import hollow

EXECUTE, WAIT = "axclrtEngineExecuteAsync", "axclrtSynchronizeStreamWithTimeout"
FAILS = f"{EXECUTE}@1=fail:0x8030070c"
FAULTS = {
    "an execute fails": FAILS,
    "queued work fails": f"{EXECUTE}@1=later:0x8030070c",
    "a result is NaN once": "nan@any:1",
    "results are NaN for good": "nan@any:1+",
    "an execute hangs": f"{EXECUTE}@1=hang",
    "a copy hangs": "axclrtMemcpyAsync@1=hang",
    "a wait never returns": f"{WAIT}@1=block",
    "the link is lost": "device=offline@1",
    "it resets itself at 120 C": "temperature=119990+10",
    "... and a file of the reload fails": f"{FAILS}; axclrtEngineLoadFromFile@3=fail:0x8030070c",
    "... and freeing hangs": f"{FAILS}; axclrtEngineUnload@2=block",
    "... and memory has leaked": f"{FAILS}; leak=500000000",
    "it is dead": "device=dead@1",
}
CLIENTS, TOKENS, AT = 4, 120, 60  # so many passes between two faults that the one before counts as mended
REBOOT_MS = 8000


def look(server: Supervised, begun: float, told: list[dict[str, Any]]) -> int:
    """Notes what /health says, where that changed; faults and repeated passes so far."""
    status, body = server.health()
    word = body.get("status", "nobody listens")
    trying = body.get("recovery", {}).get("trying", "")
    if not told or (told[-1]["code"], told[-1]["status"], told[-1]["trying"]) != (status, word, trying):
        told.append({"s": round(time.monotonic() - begun, 2), "code": status, "status": word, "trying": trying})
    faults = sum(body.get("recoveries", {}).get("faults", {}).values())
    return int(faults + body.get("stats", {}).get("repeated_passes", 0))


def measure(server: Supervised, fault: str) -> dict[str, Any]:
    """One fault in the middle of CLIENTS streams."""
    replies = [Reply() for _ in range(CLIENTS)]
    fields = {"stream": True, "max_tokens": TOKENS, "ignore_eos": True, "temperature": 0}
    bodies = [{"messages": [{"role": "user", "content": f"{i} " * (20 + i)}], **fields} for i in range(CLIENTS)]
    threads = [
        threading.Thread(target=ask, args=(server.port, body, 1e9, reply))
        for body, reply in zip(bodies, replies, strict=True)
    ]
    for thread in threads:
        thread.start()
    while len(replies[0].times) < AT:
        time.sleep(0.005)
    told: list[dict[str, Any]] = []
    before = look(server, time.monotonic(), told)
    life = server.life
    life.tell(f"faults {fault}")
    begun, noticed = time.monotonic(), None
    while any(thread.is_alive() for thread in threads):
        now = look(server, begun, told)
        if noticed is None and (now > before or told[-1]["status"] != "ready"):
            noticed = round(time.monotonic() - begun, 2)
        if noticed is not None and (fault.endswith("+") or "temperature" in fault):
            life.tell("faults ")  # it lasts until it is noticed
        time.sleep(0.02)
    if life.code is None and told[-1]["status"] == "ready":
        life.tell("faults ")
    while look(server, begun, told) < 0 or told[-1]["status"] != "ready":  # perhaps in another process
        time.sleep(0.1)
    gaps = [b - a for reply in replies for a, b in zip(reply.times, reply.times[1:], strict=False)]
    ends = sorted({reply.outcome for reply in replies})
    return {
        "noticed_s": noticed, "longest_gap_s": round(max(gaps), 2), "ends": ends, "process": life.cause or "lives on",
        "works_again_s": told[-1]["s"], "health": told,
    }  # fmt: skip


def main() -> None:
    """Measures all and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("profile", nargs="?", default="qwen3-1.7b-w8a16-pi5")
    parser.add_argument("--only", default="", help="faults whose name matches this expression")
    options = parser.parse_args()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        package = hollow(options.profile, Path(folder) / "package")
        arguments = (package, "--emu-profile", options.profile, "--state-dir", folder, "--no-drafts")
        server = Supervised(*arguments, quick=False, environment=lambda: {"AXPRESS_EMU_REBOOT_MS": str(REBOOT_MS)})
        began = time.monotonic()
        server.wait(600)
        print(f"{options.profile}, emulated; a first load took {time.monotonic() - began:.0f} s, as modelled")
        for name, fault in FAULTS.items():
            if not re.search(options.only, name):
                continue
            row = results[name] = measure(server, fault)
            print(
                f"{name:36} noticed {row['noticed_s']} s, longest gap {row['longest_gap_s']} s, works again after"
                f" {row['works_again_s']} s; streams: {', '.join(row['ends'])}; process: {row['process']}"
            )
            told = [f"{t['s']} s {t['code']} {t['status']} {t['trying']}".rstrip() for t in row["health"]]
            print("    " + "; ".join(told), flush=True)
        server.stop()
    results["wrong"] = server.wrong
    print(server.wrong)
    write_results("recovery", {"profile": options.profile, "reboot_s": REBOOT_MS / 1000, "faults": results})


if __name__ == "__main__":
    main()

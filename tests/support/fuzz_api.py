"""Thousands of requests made from /openapi.json by schemathesis, good and bad ones, against a server of their own.

    python tests/support/fuzz_api.py [--examples 1000] [--seed N] [--coverage]
    python tests/support/fuzz_api.py --schemas 100000

No answer may be a 5xx, nor be other than documented in status, headers, content type and body, streams included; what
the document forbids may not be accepted. Prints who answered what, and the server's memory before and after.
--coverage: also the cases that schemathesis derives from each bound of each field. --schemas: so many different JSON
schemas for the form of an answer, instead."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from server_process import RunningServer, chat

HERE = Path(__file__).parent
CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance",
    "response_schema_conformance", "negative_data_rejection", "unsupported_method", "allow_header_conformance",
    "streams_conform",
)  # fmt: skip


CONFIG = """
[checks.negative_data_rejection]
expected-statuses = [400, 403, 404, 405, 413, 415]
"""


def fuzz(
    server: RunningServer, examples: int, seed: int, phases: str = "fuzzing"
) -> tuple[Counter[tuple[str, int]], int, str]:
    """How often each route gave each status, schemathesis's exit code, and what it printed."""
    with tempfile.TemporaryDirectory() as directory:
        found, config = Path(directory) / "counts.json", Path(directory) / "schemathesis.toml"
        config.write_text(CONFIG)
        environment = {
            **os.environ, "SCHEMATHESIS_HOOKS": "fuzz_hooks",
            "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]),
            "AXPRESS_FUZZ_COUNTS": str(found),
        }  # fmt: skip
        command = [
            sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()", "--config-file",
            str(config), "run",
            server.url + "/openapi.json",
            "--phases", phases, "--max-examples", str(examples), "--seed", str(seed), "--continue-on-failure",
            "--generation-database", "none", "--exclude-path", "/live/stream", "--checks", ",".join(CHECKS),
            "--workers", "1",
            "--request-timeout", "60", "--output-sanitize", "false", "--no-color", "--suppress-health-check", "all",
            "--warnings", "off",
        ]  # fmt: skip
        done = subprocess.run(command, env=environment, cwd=directory, capture_output=True, text=True)
        counts: Counter[tuple[str, int]] = Counter()
        if found.is_file():
            for method, path, status, count in json.loads(found.read_text()):
                counts[f"{method} {path}", status] += count
        return counts, done.returncode, done.stdout + done.stderr


def resident(server: RunningServer) -> int:
    """The server's memory in bytes."""
    return server.process_status("VmRSS") * 1024


def ask_schemas(server: RunningServer, numbers: range) -> None:
    """One answer in the form of a schema of its own for each number."""
    for number in numbers:
        schema = {
            "type": "object",
            "properties": {f"name{number}": {"enum": [f"value{number}"]}},
            "required": [f"name{number}"],
        }
        status, _, answer = server.post(chat(max_tokens=1, guided_json=schema))
        assert status == 200, answer


def many_schemas(count: int) -> int:
    """Tells the server's memory on the way."""
    with RunningServer() as server:
        for start in range(0, count, max(1, count // 10)):
            ask_schemas(server, range(start, min(count, start + max(1, count // 10))))
            print(f"{start + max(1, count // 10):8d} schemas, {resident(server) / 1e6:.0f} MB", flush=True)
    return 0


def main() -> int:
    """The long run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--examples", type=int, default=1000, help="cases for each route")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--coverage", action="store_true", help="also the derived cases")
    parser.add_argument("--schemas", type=int, metavar="N", help="so many different schemas instead")
    asked = parser.parse_args()
    if asked.schemas:
        return many_schemas(asked.schemas)
    with RunningServer() as server:
        server.post(chat(max_tokens=2))
        before = resident(server)
        counts, code, printed = fuzz(
            server, asked.examples, asked.seed, "coverage,fuzzing" if asked.coverage else "fuzzing"
        )
        server.wait(server.idle, 30, "idle")
        after = resident(server)
    print(printed)
    for (route, status), count in sorted(counts.items()):
        print(f"{count:7d}  {status}  {route}")
    print(
        f"{sum(counts.values())} requests; the server's memory: {before / 1e6:.0f} MB before, {after / 1e6:.0f} MB"
        " after"
    )
    return code


if __name__ == "__main__":
    sys.exit(main())

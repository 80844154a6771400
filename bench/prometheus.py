"""Prometheus scrapes a server under load: it must read what the server says, and draws the dashboard.

    python bench/prometheus.py --seconds 150 --picture docs/dashboard.png

Needs `prometheus` and `promtool` (Debian: prometheus) and matplotlib. The served model is hollow, the card emulated,
made up, and warmed by its work: the picture has no card's figures.
"""

from __future__ import annotations

import argparse
import json
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "support"))

from server_process import RunningServer, chat, hollow_package

ROOT = Path(__file__).resolve().parent.parent
CONFIG = """global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [%s]
scrape_configs: [{job_name: axpress, static_configs: [{targets: ["127.0.0.1:%d"]}]}]
"""
COMMON = ("__name__", "instance", "job", "model_name")
HEAT = {"AXPRESS_EMU_THERMAL_RISE": "45000", "AXPRESS_EMU_THERMAL_SECONDS": "20"}
SAME = {  # what Prometheus must read of an idle server, by what /health says
    "vllm:generation_tokens_total": lambda health: health["stats"]["generated_tokens"],
    "vllm:num_requests_running": lambda health: health["num_running"],
    "axpress_rows_used": lambda health: health["rows_used"],
    "axpress_card_cmm_free_bytes": lambda health: health["card"]["free_cmm"],
    "axpress_passes_total{kind='decode'}": lambda health: health["stats"]["decode_passes"],
}


class Prometheus:
    """One of its own, on a free port, that scrapes the server on `port`."""

    def __init__(self, folder: Path, port: int) -> None:
        config = folder / "prometheus.yml"
        with socket.create_server(("127.0.0.1", 0)) as free:
            own = free.getsockname()[1]
        config.write_text(CONFIG % (ROOT / "deploy" / "alerts.yml", port))
        self.url = f"http://127.0.0.1:{own}/api/v1"
        command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"]
        self.process = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{own}"], stderr=subprocess.DEVNULL)

    def get(self, path: str, **arguments: object) -> Any:
        """The `data` of an answer."""
        query = "&".join(f"{name}={quote(str(value))}" for name, value in arguments.items())
        with urllib.request.urlopen(f"{self.url}/{path}?{query}", timeout=30) as reply:
            return json.load(reply)["data"]

    def value(self, query: str) -> float:
        """The latest value of a query; nan where it has none."""
        result = self.get("query", query=query)["result"]
        return float(result[0]["value"][1]) if result else float("nan")


def load(server: RunningServer, until: float, number: int) -> None:
    """One client after the other: some talk on, some begin anew, some are refused."""
    choose = random.Random(number)
    while time.monotonic() < until:
        words = " ".join(choose.choices(("card", "warm", "tell", "me", "more", "of", "it"), k=choose.randint(5, 150)))
        with suppress(OSError):
            server.post(chat(f"{number} {words}", max_tokens=choose.randint(-5, 160), temperature=0.7))
        time.sleep(choose.expovariate(0.7))


def promtool(*arguments: str, given: bytes = b"") -> None:
    """Ends the program where promtool finds fault."""
    if subprocess.run(["promtool", "check", *arguments], input=given).returncode:
        raise SystemExit(f"promtool check {arguments[0]} has found faults")
    print(f"promtool check {arguments[0]}: fine", flush=True)


def compare(prometheus: Prometheus, server: RunningServer) -> int:
    """Waits until Prometheus has seen the idle server; how many values differ from what /health says."""
    server.wait(server.idle, 60, "idle")
    time.sleep(3)
    health, differ = server.health()[1], 0
    for query, of in SAME.items():
        read, said = prometheus.value(query), of(health)
        differ += read != said
        print(f"{query}: Prometheus {read:.10g}, /health {said}")
    return differ


def draw(prometheus: Prometheus, begun: float, picture: Path) -> None:
    """The dashboard's panels as plots."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = json.loads((ROOT / "deploy" / "grafana.json").read_text())["panels"]
    figure, grid = pyplot.subplots((len(panels) + 2) // 3, 3, figsize=(11, 9), layout="constrained")
    for panel, axes in zip(panels, grid.flat, strict=False):
        axes.set_title(panel["title"], fontsize=8)
        axes.tick_params(labelsize=6)
        for target in panel["targets"]:
            found = prometheus.get("query_range", query=target["expr"], start=begun, end=time.time(), step=2)["result"]
            for series in found:
                labels = [value for name, value in series["metric"].items() if name not in COMMON]
                points = [(float(at) - begun, float(value)) for at, value in series["values"]]
                axes.plot(*zip(*points, strict=True), linewidth=1, label=" ".join(labels) or target.get("legendFormat"))
            print(f"{panel['title']}: {len(found)} series")
        if axes.get_legend_handles_labels()[1]:
            axes.legend(fontsize=5)
    figure.suptitle(
        "emulated: no card, a made-up model's times; the dashboard's queries, seconds since the start", fontsize=9
    )
    figure.savefig(picture, dpi=72)
    print(f"{picture}: {picture.stat().st_size >> 10} kB")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=150.0, help="of load (default 150)")
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--picture", type=Path, metavar="FILE.png", help="where to draw the dashboard's queries")
    arguments = parser.parse_args()
    promtool("rules", str(ROOT / "deploy" / "alerts.yml"))
    with tempfile.TemporaryDirectory() as directory:
        package, profile = hollow_package(Path(directory))
        options = (package, "--device", "emu", "--emu-profile", profile, "--max-running", "4", "--log-level", "error")
        with RunningServer(*options, environment=HEAT) as server:
            prometheus, begun = Prometheus(Path(directory), server.port), time.time()
            try:
                until = time.monotonic() + arguments.seconds
                clients = [threading.Thread(target=load, args=(server, until, n)) for n in range(arguments.clients)]
                for client in clients:
                    client.start()
                for client in clients:
                    client.join()
                own = server.request("GET", "/metrics")[2].replace(b"vllm:", b"vllm_")  # promtool likes no colons
                promtool("metrics", given=own)
                differ = compare(prometheus, server)
                alerts = [alert["labels"]["alertname"] for alert in prometheus.get("alerts")["alerts"]]
                print(f"alerts that wait or fire: {', '.join(alerts) or 'none'}")
                if arguments.picture:
                    draw(prometheus, begun, arguments.picture)
            finally:
                prometheus.process.terminate()
                prometheus.process.wait()
    print("Prometheus reads what the server says" if not differ else f"{differ} values differ")
    return int(bool(differ))


if __name__ == "__main__":
    sys.exit(main())

"""The half of bench/campaign.py over HTTP: clients of all sorts on a server that is killed, told to stop, or ends
itself, and is started again."""

from __future__ import annotations

import collections
import random
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from supervised import Reply, Supervised, Text, ask

MAX_RUNNING = 8


class ServerHalf:
    """Clients and faults on a server that is started again."""

    def __init__(self, rnd: random.Random, draw: Callable[[str], str], state_dir: Path) -> None:
        self.rnd, self._draw = rnd, draw
        self.faulty = False
        self.server = Supervised("--state-dir", state_dir, "--max-running", MAX_RUNNING, quick=True,
                                 environment=self._environment)  # fmt: skip
        self.bodies = make_bodies(self.rnd)
        self.server.wait()
        self.texts = [self._alone(body) for body in self.bodies]
        self.counts: collections.Counter[str] = collections.Counter()
        self.answers: collections.Counter[str] = collections.Counter()
        self.wrong: list[str] = []
        self.over_time: list[dict[str, Any]] = []
        self._stop = threading.Event()

    def _environment(self) -> dict[str, str]:
        """Every other life begins with a fault while it loads."""
        rules = self._rules("load") if self.faulty and self.rnd.random() < 0.5 else ""
        return {"AXPRESS_EMU_HANG_MS": "4000", "AXPRESS_EMU_FAULTS": rules}

    def _rules(self, phase: str) -> str:
        """Faults; none at load that another start cannot help: the process then ends for people to see to it."""
        while "memory" in (rules := self._draw(phase)) or "driver" in rules:
            if phase != "load":
                break
        return rules

    def _alone(self, body: dict[str, Any]) -> Text:
        reply = ask(self.server.port, body)
        if reply.outcome != "answered":
            raise SystemExit(f"without faults: {reply.outcome} {reply.detail} to {body}")
        return reply.text

    def _client(self, seed: int) -> None:
        """One who asks without end."""
        rnd = random.Random(seed)
        while not self._stop.is_set():
            number, life = rnd.randrange(len(self.bodies)), self.server.life
            reply = ask(self.server.port, self.bodies[number], rnd.uniform(0.02, 0.5) if rnd.random() < 0.1 else 1e9)
            self._judge(number, reply, life)
            if reply.outcome in ("refused", "broken"):
                self._stop.wait(0.1)

    def _judge(self, number: int, reply: Reply, life: Any) -> None:
        whole, outcome = self.texts[number], reply.outcome
        if outcome in ("error", "broken"):  # allowed to those whose process ended with them, and to nobody else
            until = time.monotonic() + 30
            while life.code is None and time.monotonic() < until:
                time.sleep(0.05)
            outcome += f": {life.cause}" if life.code is not None else ", though its process lives"
        self.answers[outcome] += 1
        right = reply.text == whole if outcome == "answered" else reply.begins(whole)
        if not right or "lives" in outcome or outcome == "silent":
            self.wrong.append(
                f"request {number} was {outcome} ({reply.detail}); its text is {'right' if right else reply.text}"
            )

    def _break(self) -> None:
        """A fault, or a signal. Mostly the card is well again before the next."""
        life, status = self.server.life, self.server.health()[1].get("status", "loading")
        before = dict(life.effects)
        if self.rnd.random() < 0.03 and not life.cause:
            life.end(*self.rnd.choice(((signal.SIGKILL, "killed"), (signal.SIGTERM, "stopped"))))
            self.counts["SIGKILL" if life.cause == "killed" else "SIGTERM"] += 1
        rules = self._rules({"ready": "pass", "recovering": "recovery"}.get(status, "load"))
        life.tell(f"faults {rules}")
        until = time.monotonic() + (20.0 if "dead" in rules else 1.0)
        while time.monotonic() < until and life.code is None:
            time.sleep(0.02)
            if life.tell("hang_ms 4000") != before and "dead" not in rules:
                break
        if self.rnd.random() < 0.8:
            life.tell("faults ")
            until = time.monotonic() + 20.0
            while (health := self.server.health()[1]).get("status") != "ready" and time.monotonic() < until:
                time.sleep(0.05)
            if health.get("status") == "failed" and life.code is None:
                self.wrong.append(f"a process that cannot serve lives on: {health['reason']}")
                life.end(signal.SIGKILL, "killed")
        self.counts.update({k: n - before.get(k, 0) for k, n in life.effects.items() if n > before.get(k, 0)})

    def run(self, seconds: float, most: int) -> dict[str, Any]:
        """Load and faults for so long."""
        self.faulty = True
        clients = [threading.Thread(target=self._client, args=(i,)) for i in range(MAX_RUNNING + 2)]
        for client in clients:
            client.start()
        until, noted = time.monotonic() + seconds, 0.0
        while time.monotonic() < until and (not most or self.counts.total() < most):
            self._break()
            time.sleep(self.rnd.choice((0.0, 0.05, 0.2)))
            if time.monotonic() - noted > 5.0:
                noted = time.monotonic()
                self.over_time.append({"life": len(self.server.lives), **self.server.life.figures()})
        self.faulty = False
        self._heal()
        self._stop.set()
        for client in clients:
            client.join(150)
            self.wrong += ["a client waits for ever"] * client.is_alive()
        self.server.wait()
        self.wrong += [f"in the end request {i} has another text" for i, body in enumerate(self.bodies)
                       if self._alone(body) != self.texts[i]]  # fmt: skip
        self.server.stop()
        causes = collections.Counter(life.cause or "?" for life in self.server.lives)
        return {
            "faults": dict(self.counts), "answers": dict(self.answers), "lives": dict(causes),
            "over_time": self.over_time, "wrong": self.wrong + self.server.wrong,
        }  # fmt: skip

    def _heal(self) -> None:
        """The card is well, in whichever life."""
        for _ in range(3):
            self.server.life.tell("faults ")
            time.sleep(0.5)


def make_bodies(rnd: random.Random) -> list[dict[str, Any]]:
    """Requests of all sorts, each streamed and whole."""
    words = ["sea", "moon", "bread", "engine", "winter", "salt", "lamp", "river", "stone", "violin"]
    place = {"type": "object", "properties": {"city": {"enum": words}, "days": {"type": "integer", "minimum": 1}},
             "required": ["city", "days"], "additionalProperties": False}  # fmt: skip
    tool = {"type": "function", "function": {"name": "look", "description": "The weather.", "parameters": place}}
    form = {"type": "json_schema", "json_schema": {"name": "place", "strict": True, "schema": place}}
    bodies = []
    for i in range(20):
        text = " ".join(rnd.choice(words) for _ in range((4, 12, 60, 150)[i % 4]))
        body: dict[str, Any] = {"messages": [{"role": "user", "content": f"{i}: tell me of {text}"}], "seed": i,
                                "max_tokens": rnd.randrange(8, 90), "temperature": (0, 0.8)[i % 2]}  # fmt: skip
        kind = i % 5
        if kind == 0:
            body |= {"tools": [tool], "tool_choice": "required", "max_tokens": 90}
        elif kind == 1:
            body |= {"response_format": form, "max_tokens": 90}
        else:
            body |= {"n": (1, 2, 3)[i % 3], "ignore_eos": True}
        bodies += [body, {**body, "stream": True}]
    return bodies


def run_server(rnd: random.Random, draw: Callable[[str], str], seconds: float, faults: int) -> dict[str, Any]:
    """Load and faults for so long, or until so many took effect. `draw` makes the emulator's rules for a phase."""
    with tempfile.TemporaryDirectory() as folder:
        return ServerHalf(rnd, draw, Path(folder)).run(seconds, faults)

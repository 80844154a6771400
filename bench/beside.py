"""A chat model and an embedding model on one emulated card, over HTTP: how long a stream's tokens wait while batches
are embedded, and what both say when the card fails meanwhile. Everything is modelled.

    python bench/beside.py
    python bench/beside.py --speed 2 --texts 128

Both have the shapes and times of the profile; the embedding model's head gives normed hidden states. A stream of greedy
tokens by itself, then while a batch is embedded, then again with the card's failure (an execute that fails) in the
middle, told by the emulator; the batch by itself first. Gaps are between a stream's tokens, in modelled seconds. Goal:
beside the batch no gap is longer than the longest alone and one chunk, as the profile has it, and its head. Writes
bench/results/beside.json."""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from clients import announce, verdict
from results import write_results
from supervised import Reply, Supervised, ask

from axpress.core.model_files.hollow import hollow
from axpress.core.model_files.safetensors import array_source
from axpress.core.model_files.simulated_axmodel import read_axmodel, write_axmodel
from axpress.core.model_files.timing_profile import load_profile

PROFILE = "qwen3-0.6b-w8a16-pi5"
TOKENS, WORDS = 60, 40
LATE = 0.03  # modelled seconds of this machine's own that a gap may have


def embedding_package(folder: Path) -> Path:
    """A hollow model whose head gives hidden states: of a norm that does nothing, since hollow heads give logits."""
    out = hollow(PROFILE, folder, name="embedding")
    (path,) = out.glob("*_post.axmodel")
    meta, _ = read_axmodel(path)
    norm = {"norm": array_source(np.full(meta.hidden, 0x3F80, np.uint16))}
    write_axmodel(path, replace(meta, head_gives="norm", hollow=False), norm)
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps({**config, "is_embedding": True}))
    return out


def embed(port: int, texts: list[str]) -> str:
    """A digest of what comes, or what was refused."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    body = json.dumps({"model": "embedding", "input": texts, "encoding_format": "base64"})
    connection.request("POST", "/v1/embeddings", body, {"content-type": "application/json"})
    response = connection.getresponse()
    data = json.loads(response.read())
    connection.close()
    if response.status != 200:
        return f"{response.status} {data}"
    return hashlib.sha256("".join(one["embedding"] for one in data["data"]).encode()).hexdigest()


class Beside:
    """The server and what is asked of it."""

    def __init__(self, server: Supervised, speed: float, num_texts: int) -> None:
        self.server, self.speed = server, speed
        self.texts = [" ".join(f"word{i * WORDS + j}" for j in range(WORDS)) for i in range(num_texts)]

    def stream(self, reply: Reply | None = None) -> Reply:
        """One answer."""
        body = {"model": "chat", "messages": [{"role": "user", "content": "Go on."}], "max_tokens": TOKENS,
                "temperature": 0, "ignore_eos": True, "stream": True}  # fmt: skip
        reply = ask(self.server.port, body, reply=reply)
        if reply.outcome != "answered":
            raise SystemExit(f"the stream ended as {reply.outcome}: {reply.detail}")
        return reply

    def gaps(self, reply: Reply) -> list[float]:
        """Modelled seconds between the tokens of an answer."""
        return [(b - a) * self.speed for a, b in zip(reply.times, reply.times[1:], strict=False)]

    def both(self, fault: str = "") -> tuple[Reply, str, float]:
        """A stream and, from its fifth token on, a batch; with the batch, modelled seconds that it took."""
        reply, batch = Reply(), []
        thread = threading.Thread(target=self.stream, args=(reply,))
        thread.start()
        while len(reply.times) < 5 and thread.is_alive():
            time.sleep(0.01)
        if fault:
            self.server.life.tell(f"faults {fault}")
        began = time.monotonic()
        batch.append(embed(self.server.port, self.texts))
        took = (time.monotonic() - began) * self.speed
        thread.join()
        return reply, batch[0], took


def chunk_seconds() -> float:
    """The longest chunk that a text of the batch can be part of, and a head, by the profile."""
    profile = load_profile(PROFILE)
    return (profile.model.layers * profile.cost.chunk_us(profile.model.history[1]) / 1000 + profile.cost.head_ms) / 1000


def main() -> int:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speed", type=float, default=1, help="times real time")
    parser.add_argument("--texts", type=int, default=64, help="of a batch")
    args = parser.parse_args()
    announce(f"chat and embeddings on one card, {PROFILE}", args.speed)
    with tempfile.TemporaryDirectory() as folder:
        packages = hollow(PROFILE, Path(folder) / "chat", name="chat"), embedding_package(Path(folder) / "embedding")
        server = Supervised(*packages, "--emu-profile", PROFILE, "--emu-speed", args.speed, "--state-dir", folder,
                            quick=False, environment=lambda: {"AXPRESS_EMU_LOAD_TIME": "0"})  # fmt: skip
        try:
            server.wait(600)
            failed = measure(Beside(server, args.speed, args.texts))
        finally:
            server.stop()
    for wrong in server.wrong:
        print("  wrong:", wrong)
    return int(failed or bool(server.wrong))


def measure(beside: Beside) -> bool:
    """All of it; whether something was not as it has to be."""
    beside.stream()
    alone, batch = beside.stream(), embed(beside.server.port, beside.texts)
    together, same_batch, took = beside.both()
    longest, calm = max(beside.gaps(together)), max(beside.gaps(alone))
    most = calm + chunk_seconds() + LATE
    ok = together.text == alone.text and same_batch == batch
    print(
        f"  alone: longest gap {calm:.3f} s; beside a batch of {len(beside.texts)} texts ({took:.1f} s):"
        f" {longest:.3f} s, {verdict(longest, most, most=True)}; {_same(ok)} text and vectors"
    )
    healed, healed_batch, _ = beside.both("axclrtEngineExecuteAsync@200=fail:0x8030070c")
    recovered = healed.text == alone.text and healed_batch == batch
    status = beside.server.health()[1]
    print(
        f"  an execute fails: longest gap {max(beside.gaps(healed)):.1f} s (both models are loaded again, at once);"
        f" {_same(recovered)} text and vectors; recoveries {status.get('recoveries')}"
    )
    write_results("beside", {"alone_s": calm, "beside_s": longest, "most_s": most, "same": ok, "recovered": recovered})
    return not (ok and recovered)


def _same(same: bool) -> str:
    return "the same" if same else "OTHER"


if __name__ == "__main__":
    raise SystemExit(main())

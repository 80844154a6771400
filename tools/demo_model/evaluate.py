"""Measures the demo model on held-out dialogues: does it stop by itself, is the answer of the right kind?

python evaluate.py --checkpoint DIR                        the Hugging Face checkpoint, through transformers
python evaluate.py --server http://127.0.0.1:8000          whatever a running server answers (OpenAI's chat completions)
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import urllib.request
from pathlib import Path
from typing import Any

try:
    from .corpus import KINDS, Dialogue, check, stream
except ImportError:  # run as a plain script
    from corpus import KINDS, Dialogue, check, stream  # type: ignore[no-redef]

Answer = tuple[str, bool]  # text, stopped by itself


def from_checkpoint(
    path: str, dialogues: list[Dialogue], temperature: float, max_tokens: int, batch: int = 32
) -> list[Answer]:
    """Answers of a checkpoint directory, computed in fp32 from its weights on the CPU."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    torch.set_num_threads(1)  # small matrices: a second thread brings little and waits on a busy machine
    tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    sampling = (
        {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
        if temperature
        else {"do_sample": False}
    )
    answers: list[Answer] = []
    for first in range(0, len(dialogues), batch):
        part = dialogues[first : first + batch]
        prompts = [
            tokenizer.apply_chat_template(d.messages()[:-1], tokenize=False, add_generation_prompt=True) for d in part
        ]
        inputs = tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
        with torch.inference_mode():
            out = model.generate(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                max_new_tokens=max_tokens,
                eos_token_id=end,
                **sampling,
            )
        for row in out[:, inputs["input_ids"].shape[1] :].tolist():
            stopped = end in row
            text = tokenizer.decode(row[: row.index(end)] if stopped else row, skip_special_tokens=True)
            answers.append((str(text), stopped))
    return answers


def from_server(url: str, dialogues: list[Dialogue], temperature: float, max_tokens: int) -> list[Answer]:
    """Answers of a server, one request after the other; the model is the first that /v1/models names."""
    base = url.rstrip("/").removesuffix("/v1")
    with urllib.request.urlopen(base + "/v1/models", timeout=60) as reply:
        models = json.load(reply)["data"]
    if not models:
        raise SystemExit(f"{base} serves no model (yet): look at {base}/health")
    model = models[0]["id"]
    answers: list[Answer] = []
    for number, dialogue in enumerate(dialogues):
        body = {
            "model": model,
            "messages": dialogue.messages()[:-1],
            "temperature": temperature,
            "max_tokens": max_tokens,
            "seed": number,
        }
        request = urllib.request.Request(
            base + "/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=300) as reply:
            choice = json.load(reply)["choices"][0]
        answers.append((choice["message"]["content"], choice["finish_reason"] == "stop"))
    return answers


def tally(dialogues: list[Dialogue], answers: list[Answer]) -> dict[str, Any]:
    """{"all": {"n", "stopped", "right"}, "kinds": {kind: the same}}; parts of 1, rounded."""
    rows: dict[str, list[tuple[bool, bool]]] = {}
    for dialogue, (text, stopped) in zip(dialogues, answers, strict=True):
        last = dialogue.turns[-1]
        rows.setdefault(last.kind, []).append((stopped, stopped and check(last.expect, text)))

    def part(pairs: list[tuple[bool, bool]]) -> dict[str, float]:
        return {
            "n": len(pairs),
            "stopped": round(sum(s for s, _ in pairs) / len(pairs), 3),
            "right": round(sum(r for _, r in pairs) / len(pairs), 3),
        }

    return {
        "all": part([pair for pairs in rows.values() for pair in pairs]),
        "kinds": {kind: part(pairs) for kind, pairs in rows.items()},
    }


def show(result: dict[str, Any]) -> None:
    """The table."""
    print(f"{'kind':12}{'n':>6}{'stops':>9}{'right':>9}")
    for kind, row in [*result["kinds"].items(), ("all", result["all"])]:
        print(f"{kind:12}{row['n']:6}{row['stopped']:9.1%}{row['right']:9.1%}")


def main() -> None:
    """Command line; exit status 1 if the model misses the floor (stops in 95 %, right in 85 %)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--checkpoint", help="Hugging Face directory")
    source.add_argument("--server", help="address of a running server")
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--per-kind", type=int, default=60, help="held-out dialogues of each kind")
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--max-tokens", type=int, default=200)
    parser.add_argument("--failures", type=int, default=0, help="print so many wrong answers of each kind")
    parser.add_argument("--json", help="also write the result to this file")
    args = parser.parse_args()
    dialogues = list(
        itertools.islice(stream(args.seed, want_held_out=True, kinds=list(KINDS)), args.per_kind * len(KINDS))
    )
    ask = (
        (lambda *rest: from_checkpoint(args.checkpoint, *rest))
        if args.checkpoint
        else (lambda *rest: from_server(args.server, *rest))
    )
    answers = ask(dialogues, args.temperature, args.max_tokens)
    result = {
        "source": args.checkpoint or args.server,
        "temperature": args.temperature,
        "seed": args.seed,
        **tally(dialogues, answers),
    }
    shown: dict[str, int] = {}
    for dialogue, (text, stopped) in zip(dialogues, answers, strict=True):
        last = dialogue.turns[-1]
        if not (stopped and check(last.expect, text)) and shown.setdefault(last.kind, 0) < args.failures:
            shown[last.kind] += 1
            print(
                f"[{last.kind}] {last.user!r}\n   -> {text!r}{'' if stopped else ' (did not stop)'}   wanted"
                f" {last.expect}"
            )
    show(result)
    print(json.dumps(result))
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=1) + "\n")
    sys.exit(0 if result["all"]["stopped"] >= 0.95 and result["all"]["right"] >= 0.85 else 1)


if __name__ == "__main__":
    main()

"""Trains the demo model: `python train.py --minutes 45 --out DIR` (see README.md here). Writes a Hugging Face
checkpoint."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.distributed as dist
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

try:
    from .corpus import Dialogue, stream
except ImportError:  # run as a plain script
    from corpus import Dialogue, stream  # type: ignore[no-redef]

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]  # never shown to a reader
# one token each, but text
MARKERS = ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>"]
TEMPLATE = (
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}{%-"
    " endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
MAX_TOKENS = 512  # longest dialogue in training
IGNORE = -100


def train_tokenizer(seed: int, vocab: int, dialogues: int = 20_000) -> PreTrainedTokenizerFast:
    """Byte-level BPE of `vocab` entries, control tokens included; each digit is a token of its own."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab - len(SPECIAL) - len(MARKERS),
        initial_alphabet=sorted(alphabet),
        min_frequency=3,
        show_progress=False,
    )
    texts = (
        message["role"] + "\n" + message["content"]
        for d in itertools.islice(stream(seed), dialogues)
        for message in d.messages()
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in MARKERS])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", model_max_length=2048
    )
    fast.chat_template = TEMPLATE
    return fast


def token_id(tokenizer: PreTrainedTokenizerFast, token: str) -> int:
    """The id of one control token."""
    found = tokenizer.backend_tokenizer.token_to_id(token)
    if found is None:
        raise ValueError(f"the tokenizer has no token {token}: it was not made by train_tokenizer")
    return int(found)


def build_model(args: argparse.Namespace, tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    """A small Qwen3 with tied embeddings, randomly initialised."""
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=args.hidden,
        num_hidden_layers=args.layers,
        intermediate_size=args.ffn,
        num_attention_heads=args.hidden // 64,
        num_key_value_heads=max(1, args.hidden // 128),
        head_dim=64,
        max_position_embeddings=4096,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
        initializer_range=0.02,
        use_cache=False,
        attention_dropout=0.0,
        bos_token_id=None,
        eos_token_id=token_id(tokenizer, "<|im_end|>"),
        pad_token_id=token_id(tokenizer, "<|endoftext|>"),
    )
    return Qwen3ForCausalLM(config)


class Encoder:
    """Dialogues -> (token ids, targets): loss on the assistant's words and the <|im_end|> after them, nowhere else."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer.backend_tokenizer
        self._start, self._end = (token_id(tokenizer, t) for t in SPECIAL[1:])
        self._newline = self._ids("\n")

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def __call__(self, dialogue: Dialogue) -> tuple[list[int], list[int]]:
        """The same ids as the chat template gives, and for each position the id that must follow or IGNORE."""
        ids: list[int] = []
        wanted: list[int] = []  # the id itself where the model is to learn it
        for message in dialogue.messages():
            if message["role"] == "assistant":
                head, body = [self._start, *self._ids("assistant\n")], [*self._ids(message["content"]), self._end]
            else:
                head, body = [self._start, *self._ids(message["role"] + "\n" + message["content"]), self._end], []
            ids += head + body + self._newline
            wanted += [IGNORE] * len(head) + body + [IGNORE] * len(self._newline)
        return ids, [*wanted[1:], IGNORE]


def batches(
    dialogues: Iterator[Dialogue], encode: Encoder, tokens: int, pad: int, seed: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless (ids, targets), each [n, longest], about `tokens` positions; one dialogue per row, rows of similar length
    together."""
    rng = random.Random(seed)
    while True:
        pool = [encode(d) for d in itertools.islice(dialogues, 1024)]
        pool = sorted((p for p in pool if len(p[0]) <= MAX_TOKENS), key=lambda p: len(p[0]) + rng.random() * 8)
        groups: list[list[tuple[list[int], list[int]]]] = [[]]
        for pair in pool:
            if groups[-1] and max(len(pair[0]), *(len(p[0]) for p in groups[-1])) * (len(groups[-1]) + 1) > tokens:
                groups.append([])
            groups[-1].append(pair)
        rng.shuffle(groups)
        for group in groups:
            longest = max(len(ids) for ids, _ in group)
            yield (
                torch.tensor([ids + [pad] * (longest - len(ids)) for ids, _ in group]),
                torch.tensor([wanted + [IGNORE] * (longest - len(wanted)) for _, wanted in group]),
            )


def optimizers(model: Qwen3ForCausalLM, args: argparse.Namespace) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, AdamW for embedding and norms; each group remembers its peak learning rate."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    result: list[torch.optim.Optimizer] = [
        torch.optim.Muon(matrices, lr=args.lr, momentum=0.95, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=args.lr, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    ]
    for optimizer in result:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return result


def loss_of(model: Qwen3ForCausalLM, ids: Tensor, wanted: Tensor, bf16: bool) -> Tensor:
    """Mean cross entropy over the wanted positions; the vocabulary head runs on these only."""
    with torch.autocast(ids.device.type, dtype=torch.bfloat16, enabled=bf16):
        hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state
        chosen = wanted != IGNORE
        logits = model.lm_head(hidden[chosen])
    return cross_entropy(logits.float(), wanted[chosen])


def share_gradients(model: Qwen3ForCausalLM, extra: list[float]) -> list[float]:
    """Averages the gradients (and `extra`) over all workers, in place; returns the averaged `extra`."""
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([g.reshape(-1) for g in grads] + [torch.tensor(extra, device=model.device)])
    if dist.is_initialized():
        dist.all_reduce(flat)
        flat /= dist.get_world_size()
    position = 0
    for grad in grads:
        grad.copy_(flat[position : position + grad.numel()].view_as(grad))
        position += grad.numel()
    return [float(value) for value in flat[position:].tolist()]


def take_step(
    model: Qwen3ForCausalLM,
    opts: list[torch.optim.Optimizer],
    batch: tuple[Tensor, Tensor],
    rate: float,
    done: float,
    bf16: bool,
) -> tuple[float, float]:
    """One step at `rate` times the peak learning rate; (the loss before it, the part of the run that is done), averaged
    over workers."""
    for group in (g for optimizer in opts for g in optimizer.param_groups):
        group["lr"] = group["peak"] * rate
    ids, wanted = (t.to(model.device) for t in batch)
    loss = loss_of(model, ids, wanted, bf16)
    loss.backward()
    mean, done = share_gradients(model, [loss.item(), done])
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in opts:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return mean, done


def start_model(args: argparse.Namespace) -> tuple[PreTrainedTokenizerFast, Qwen3ForCausalLM]:
    """Tokenizer and model in fp32: new ones, or those of `args.resume`."""
    if args.resume:
        return PreTrainedTokenizerFast.from_pretrained(args.resume), Qwen3ForCausalLM.from_pretrained(
            args.resume, dtype=torch.float32
        )
    tokenizer = train_tokenizer(args.seed, args.vocab)
    return tokenizer, build_model(args, tokenizer)


def train(args: argparse.Namespace, worker: int = 0) -> None:
    """Trains for `args.minutes` of wall clock (or `args.steps`); worker 0 logs to OUT/log.jsonl and saves every five
    minutes."""
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    tokenizer, model = start_model(args)
    model.to(args.device).train()
    seed = args.seed + 1000 * worker
    data = batches(
        stream(seed), Encoder(tokenizer), args.batch_tokens // args.workers, token_id(tokenizer, SPECIAL[0]), seed
    )
    opts = optimizers(model, args)
    start = saved = time.monotonic()
    done, mean = 0.0, 0.0
    with (out / "log.jsonl").open("w") if worker == 0 else open(os.devnull, "w") as log:
        for step in itertools.count():
            if done >= 1:
                break
            now = time.monotonic()
            rate = min(1.0, (step + 1) / args.warmup) * min(1.0, (1 - done) / args.decay)
            part = (step + 1) / args.steps if args.steps else (now - start) / (60 * args.minutes)
            loss, done = take_step(model, opts, next(data), rate, part, args.bf16)
            mean = loss if step == 0 else 0.95 * mean + 0.05 * loss
            if step % 20 == 0:
                print(
                    json.dumps({"step": step, "minutes": round((now - start) / 60, 2), "loss": round(mean, 4)}),
                    file=log,
                    flush=True,
                )
            if worker == 0 and now - saved > 300:
                saved = now
                save(model, tokenizer, out)
    if worker == 0:
        save(model, tokenizer, out)


def train_worker(worker: int, args: argparse.Namespace, meeting: str) -> None:
    """One of several processes that train one model together; they meet in the file `meeting`."""
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=worker, world_size=args.workers)
    train(args, worker)
    dist.destroy_process_group()


def save(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Writes the checkpoint in bf16, the precision in which the card holds it."""
    rounded = Qwen3ForCausalLM(model.config)
    rounded.load_state_dict(model.state_dict())
    rounded.bfloat16()
    rounded.config.dtype, rounded.config.use_cache = torch.bfloat16, True
    rounded.generation_config.eos_token_id = model.config.eos_token_id
    rounded.save_pretrained(out)
    tokenizer.save_pretrained(out, save_jinja_files=False)
    config = json.loads((out / "tokenizer_config.json").read_text())
    config["tokenizer_class"] = "PreTrainedTokenizerFast"  # the name that every version of transformers knows
    (out / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True, help="directory of the checkpoint and of log.jsonl")
    parser.add_argument(
        "--minutes", type=float, default=45, help="wall clock of training; the learning rate follows it"
    )
    parser.add_argument(
        "--steps",
        type=int,
        default=0,
        help="fixed number of steps instead of --minutes (then the result does not depend on speed)",
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        help="processes that share the batch; with --threads 1 better on a busy machine",
    )
    parser.add_argument(
        "--bf16", action="store_true", help="autocast to bf16 (needs a CPU with AVX512-BF16 or AMX, or a GPU)"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=5)
    parser.add_argument("--ffn", type=int, default=704)
    parser.add_argument("--vocab", type=int, default=3072)
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument(
        "--decay", type=float, default=0.6, help="part of the run over which the learning rate falls to zero"
    )
    parser.add_argument(
        "--resume", help="checkpoint directory to go on from; give another --seed, so that the dialogues are new ones"
    )
    parser.add_argument("--warmup", type=int, default=50, help="steps")
    args = parser.parse_args()
    if args.workers == 1:
        train(args)
        return
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(train_worker, (args, f"{folder}/meeting"), nprocs=args.workers)


if __name__ == "__main__":
    main()

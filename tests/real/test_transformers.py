"""Greedy answers of a real model against transformers' own reading of the same GGUF file, in bf16 on the CPU.

Every token must be the one that transformers likes best after the same beginning, but where its own two best logits are
closer than one step of bf16, in bf16 or, where rounding through thirty layers pulled them apart, as the same weights in
fp32 give them. These positions are listed. AXPRESS_REAL_PROMPTS=40 asks all prompts, for longer answers (make real)."""

from __future__ import annotations

import copy
import os

import pytest
import real_model
import torch
from collecting import Collector
from transformers import AutoModelForCausalLM

from axpress.core.engine.engine import Engine
from axpress.core.request import GenerationRequest, SamplingParams

PROMPTS = real_model.PROMPTS[: int(os.environ.get("AXPRESS_REAL_PROMPTS", "3"))]
ANSWER_TOKENS = 128 if "AXPRESS_REAL_PROMPTS" in os.environ else 48
BF16_BITS = 8  # of the significand, the hidden one included


@pytest.fixture(scope="module")
def answers() -> list[tuple[list[int], list[int]]]:
    """Prompt and answer ids of every prompt; all of them run at once, sharing passes and prefixes."""
    engine = Engine.open(real_model.package("bf16"), "emu", "none", max_queue=len(PROMPTS))
    try:
        prompts = [engine.text.render([{"role": "user", "content": prompt}]) for prompt in PROMPTS]
        params = SamplingParams(temperature=0, logprobs=0)
        collectors = [Collector() for _ in prompts]
        for ids, collector in zip(prompts, collectors, strict=True):
            engine.submit(GenerationRequest(ids, params, max_tokens=ANSWER_TOKENS), collector)
        assert all(collector.done.wait(600) for collector in collectors), "no end"
        return [
            (ids, [logprob.token for logprob in collector.logprobs])
            for ids, collector in zip(prompts, collectors, strict=True)
        ]
    finally:
        engine.close()


def next_token_logits(model, prompt: list[int], answer: list[int]) -> torch.Tensor:
    """What `model` thinks of the token at each place of the answer: [len(answer), V]."""
    with torch.no_grad():
        return model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1].float()


def test_every_token_is_the_one_that_transformers_chooses(answers) -> None:
    file = real_model.gguf_file()
    precise = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32).eval()
    oracle = copy.deepcopy(precise).to(torch.bfloat16)
    precise.load_state_dict(oracle.state_dict())  # the same weights, of bf16, computed with in fp32
    close, far, count, as_precise = [], [], 0, 0
    for number, (prompt, answer) in enumerate(answers):
        count += len(answer)
        chosen = torch.tensor(answer)
        logits = next_token_logits(oracle, prompt, answer)
        best, second = logits.topk(2).values.T
        differs = (logits[torch.arange(len(answer)), chosen] < best) | (best == second)
        if not differs.any():
            continue
        exact = next_token_logits(precise, prompt, answer)
        for position in differs.nonzero().flatten().tolist():
            token, liked = answer[position], int(logits[position].argmax())
            step = 2.0 ** (torch.frexp(best[position]).exponent.item() - BF16_BITS)
            gap, exact_gap = (float(of[liked] - of[token]) / step for of in (logits[position], exact[position]))
            as_precise += int(exact[position].argmax()) == token
            where = f"prompt {number}, token {position}: {best[position]:.4f} and {second[position]:.4f}, chosen"
            where += f" {gap:.0f} steps of bf16 below the best, in fp32 {exact_gap:.2f}"
            (close if min(gap, exact_gap) <= 1 else far).append(where)
    print(f"{count} tokens; where transformers' two best are closer than bf16 rounding: {len(close)}", *close, sep="\n")
    print(f"in {as_precise} of these transformers in fp32 chooses our token")
    assert not far, far
    assert count > 15 * len(PROMPTS)
    assert len(close) < 5 + count / 20, "the exception has become the rule"

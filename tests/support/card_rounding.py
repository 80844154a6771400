"""transformers' models with the roundings of the card."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def rounded_like_the_card(model: Any) -> Iterator[None]:
    """Within the block the reference rounds embeddings, K, V and layer outputs to bf16, as the card has them."""
    hooks = [layer.register_forward_hook(_round_output) for layer in (model.model.embed_tokens, *model.model.layers)]
    try:
        with keys_and_values_rounded():
            yield
    finally:
        for hook in hooks:
            hook.remove()


def _round_output(_module: Any, _inputs: Any, output: Any) -> Any:
    import torch

    hidden = output[0] if isinstance(output, tuple) else output
    hidden.copy_(hidden.to(torch.bfloat16).float())
    return output


@contextmanager
def inputs_rounded(text_model: Any) -> Iterator[None]:
    """The same of a text part that gets pictures' tokens: what is put in between embeddings and layers, or between
    layers, is rounded with the rest."""
    import torch

    def round_input(_module: Any, inputs: Any) -> Any:
        return (inputs[0].to(torch.bfloat16).float(), *inputs[1:])

    hooks = [module.register_forward_pre_hook(round_input) for module in (*text_model.layers, text_model.norm)]
    hooks += [layer.register_forward_hook(_round_output) for layer in text_model.layers]
    try:
        with keys_and_values_rounded():
            yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def keys_and_values_rounded() -> Iterator[None]:
    """Within the block K and V are kept as bf16."""
    import torch
    import transformers

    update = transformers.cache_utils.DynamicCache.update

    def rounding_update(self: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
        return update(self, key.to(torch.bfloat16).float(), value.to(torch.bfloat16).float(), *args, **kwargs)

    transformers.cache_utils.DynamicCache.update = rounding_update
    try:
        yield
    finally:
        transformers.cache_utils.DynamicCache.update = update


@contextmanager
def states_rounded(state_dtype: str) -> Iterator[None]:
    """Within the block transformers' Qwen3.5 goes token by token, and rounds the states of its recurrent layers to
    `state_dtype` ("bf16", "fp16" or "fp32") after each; it begins with zeros."""
    import torch
    from torch.nn import functional
    from transformers.models.qwen3_5 import modeling_qwen3_5 as module

    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[state_dtype]

    def rounded(values: Any) -> Any:
        return values.to(dtype).float()

    def convolve(hidden_states: Any, weight: Any, *_args: Any, **_kwargs: Any) -> Any:
        before = functional.pad(rounded(hidden_states), (weight.shape[1] - 1, 0))
        sums = functional.conv1d(before, weight[:, None], groups=len(weight))
        return functional.silu(sums + weight[:, -1:] * (hidden_states - rounded(hidden_states)))

    def recur(query: Any, key: Any, value: Any, g: Any, beta: Any, **_kwargs: Any) -> Any:
        times = value.shape[2] // key.shape[2]
        query, key = (module.l2norm(part).repeat_interleave(times, dim=2)[0] for part in (query, key))
        state, result = torch.zeros(value.shape[2], key.shape[-1], value.shape[-1]), []
        for q, k, v, decay, rate in zip(query, key, value[0], g[0].exp(), beta[0], strict=True):
            state = state * decay[:, None, None]
            change = (v - torch.einsum("hkv,hk->hv", state, k)) * rate[:, None]
            state = state + torch.einsum("hk,hv->hkv", k, change)
            result.append(torch.einsum("hkv,hk->hv", state, q * q.shape[-1] ** -0.5))
            state = rounded(state)
        return torch.stack(result)[None], state[None]

    before = module.causal_conv1d_fn, module.torch_chunk_gated_delta_rule
    module.causal_conv1d_fn, module.torch_chunk_gated_delta_rule = convolve, recur
    try:
        yield
    finally:
        module.causal_conv1d_fn, module.torch_chunk_gated_delta_rule = before

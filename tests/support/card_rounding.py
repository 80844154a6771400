"""transformers' models with the roundings of the card."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def rounded_like_the_card(model: Any) -> Iterator[None]:
    """Within the block the reference rounds embeddings, K, V and layer outputs to bf16, as the card has them."""
    import torch
    import transformers

    def round_output(_module: Any, _inputs: Any, output: Any) -> Any:
        hidden = output[0] if isinstance(output, tuple) else output
        hidden.copy_(hidden.to(torch.bfloat16).float())
        return output

    hooks = [layer.register_forward_hook(round_output) for layer in (model.model.embed_tokens, *model.model.layers)]
    update = transformers.cache_utils.DynamicCache.update

    def rounding_update(self: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
        return update(self, key.to(torch.bfloat16).float(), value.to(torch.bfloat16).float(), *args, **kwargs)

    transformers.cache_utils.DynamicCache.update = rounding_update
    try:
        yield
    finally:
        transformers.cache_utils.DynamicCache.update = update
        for hook in hooks:
            hook.remove()

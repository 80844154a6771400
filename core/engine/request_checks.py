"""What a request must be so that it can ever be served."""

from __future__ import annotations

from ..errors import ContextOverflow, RequestError
from ..request import EngineInfo, GenerationRequest
from ..sampling.sampler import check_params
from ..tokenizer.detokenizer import check_stop


def check_request(request: GenerationRequest, info: EngineInfo, vocab_size: int) -> None:
    """Raises RequestError or ContextOverflow; token ids are below `vocab_size`."""
    if request.dimensions and request.scored:
        raise RequestError("a request asks for an embedding or for logits, not for both", "scored")
    info.check_kind(embeds=bool(request.dimensions))
    if not request.prompt_ids:
        raise RequestError("the prompt is empty: a model needs at least one token to continue", "messages")
    (_check_length if request.generates else _check_text)(request, info)
    for what, tokens in (("prompt", request.prompt_ids), ("prediction", request.prediction)):
        if tokens and (min(tokens) < 0 or max(tokens) >= vocab_size):
            raise RequestError(f"{what} token ids go from 0 to {vocab_size - 1}", what)
    if request.scored and not 0 <= min(request.scored) <= max(request.scored) < info.vocab_size:
        raise RequestError(f"scored token ids go from 0 to {info.vocab_size - 1}", "scored")
    check_params(request.params, info.vocab_size)
    check_stop(request.stop)


def _check_length(request: GenerationRequest, info: EngineInfo) -> None:
    num_prompt, context = len(request.prompt_ids), info.context_length
    if num_prompt >= context:
        raise ContextOverflow(
            f"the prompt has {num_prompt} tokens, the model's context holds {context} with the answer; shorten the"
            " prompt"
        )
    if request.max_tokens < 1:
        raise RequestError(f"max_tokens is {request.max_tokens}; an answer has at least one token", "max_tokens")
    if num_prompt + request.max_tokens > context:
        raise ContextOverflow(
            f"the prompt has {num_prompt} tokens and {request.max_tokens} are asked for, the model's context holds"
            f" {context}; ask for at most {context - num_prompt} or shorten the prompt",
            "max_tokens",
        )


def _check_text(request: GenerationRequest, info: EngineInfo) -> None:
    if request.dimensions and not 0 < request.dimensions <= info.embedding_size:
        text = f"an embedding has 1 to {info.embedding_size} values, not {request.dimensions}"
        raise RequestError(text, "dimensions")
    if len(request.prompt_ids) > info.context_length:
        raise ContextOverflow(
            f"the text has {len(request.prompt_ids)} tokens, the model's context holds {info.context_length}; shorten"
            " it"
        )

"""From a checked chat request to the engine's GenerationRequest: the one place where defaults and limits meet the model."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from axpress.core.errors import ContextOverflow, RequestError
from axpress.core.request import GenerationRequest, SamplingParams, choice_seed

from .errors import HttpError
from .schema import MAX_CHOICES, ChatRequest

if TYPE_CHECKING:
    from axpress.core.engine import Engine
    from axpress.core.package import SamplingDefaults

_SAME_NAME = ("temperature", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "seed")


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """What of the served model a request is checked against. `max_choices`: answers that the engine takes at one time."""

    names: frozenset[str]
    vocab_size: int
    context_length: int
    defaults: SamplingParams
    max_choices: int = MAX_CHOICES


def sampling_defaults(config: SamplingDefaults | None) -> SamplingParams:
    """A package's post_config.json as SamplingParams, used where a request is silent; what the file does not say stays neutral."""
    said = asdict(config) if config is not None else {}
    return SamplingParams(**{name: value for name, value in said.items() if value is not None})


def check_model(request: ChatRequest, limits: ModelLimits) -> None:
    """Raise 404 unless the request names the served model, "default", or none."""
    name = request.model
    if name is None or name == "default" or name in limits.names:
        return
    shown = name if len(name) <= 128 else name[:128] + "..."
    served = ", ".join(sorted(limits.names))
    raise HttpError(404, f"The model '{shown}' does not exist here; this server has: {served}.", param="model", code="model_not_found")


def template_messages(request: ChatRequest) -> list[dict[str, str]]:
    """Messages as chat templates know them: text content, and developer as system."""
    return [
        {"role": "system" if message.role == "developer" else message.role, "content": message.text}
        for message in request.messages
    ]


def sampling(request: ChatRequest, limits: ModelLimits) -> SamplingParams:
    """The sampling parameters of `request`, the model's own defaults where it is silent."""
    given: dict[str, Any] = {name: value for name in _SAME_NAME if (value := getattr(request, name)) is not None}
    if request.top_k is not None:
        given["top_k"] = max(0, request.top_k)
    if request.logit_bias:
        given["logit_bias"] = _bias(request.logit_bias, limits.vocab_size)
    if request.logprobs:
        given["logprobs"] = request.top_logprobs or 0
    return replace(limits.defaults, **given)


def _bias(bias: dict[str, float], vocab_size: int) -> dict[int, float]:
    out = {}
    for key, value in bias.items():
        token = int(key) if key.isascii() and key.isdigit() and len(key) < 12 else -1
        if not 0 <= token < vocab_size:
            shown = key[:32]
            text = f"'logit_bias': '{shown}' is not a token id of this model (0 to {vocab_size - 1})."
            raise RequestError(text, "logit_bias", "invalid_value")
        out[token] = float(value)
    return out


def generation_request(
    request: ChatRequest, limits: ModelLimits, prompt_ids: list[int], prediction: tuple[int, ...] = ()
) -> GenerationRequest:
    """The engine's request. max_tokens absent fills the context; a prompt, answer or prediction that cannot fit raises ContextOverflow."""
    context, used = limits.context_length, len(prompt_ids)
    room = context - used
    if room < 1:
        raise ContextOverflow(f"'messages' take {used} tokens; this model's context is {context} tokens. Shorten them.", "messages")
    field = "max_completion_tokens" if request.max_completion_tokens is not None else "max_tokens"
    asked = getattr(request, field)
    if asked is not None and asked > room:
        raise ContextOverflow(
            f"'{field}' is {asked} and the messages take {used} tokens; this model's context is {context} tokens. "
            f"Ask for at most {room}, or shorten the messages.",
            field,
        )
    if len(prediction) > context:
        raise ContextOverflow(
            f"'prediction' has {len(prediction)} tokens; this model's context is {context} tokens, so no answer can be as long.",
            "prediction",
        )
    stop = request.stop
    return GenerationRequest(
        prompt_ids=prompt_ids,
        params=sampling(request, limits),
        max_tokens=room if asked is None else asked,
        stop=(stop,) if isinstance(stop, str) else tuple(stop or ()),
        ignore_eos=bool(request.ignore_eos),
        prediction=prediction,
        salt=cache_salt(request),
        background=request.service_tier == "flex",
    )


def cache_salt(request: ChatRequest) -> bytes:
    """What a request's cached prompts are kept under, apart from other tenants'."""
    key = request.prompt_cache_key
    return b"" if key is None else hashlib.sha256(key.encode()).digest()


def choices(request: ChatRequest, limits: ModelLimits, generation: GenerationRequest) -> list[GenerationRequest]:
    """One engine request for each of the `n` choices, which differ in the seed only. Raises RequestError where `n` can never fit."""
    n = request.n or 1
    if n == 1:
        return [generation]
    if n > limits.max_choices:
        raise RequestError(f"'n' is {n}; this server takes at most {limits.max_choices} answers at a time.", "n", "invalid_value")
    seed = generation.params.seed if generation.params.seed is not None else secrets.randbits(63)
    return [replace(generation, params=replace(generation.params, seed=choice_seed(seed, i))) for i in range(n)]


def model_limits(engine: Engine, names: frozenset[str], max_together: int) -> ModelLimits:
    """Limits of the model that `engine` has open, served under `names`; it takes `max_together` requests at a time."""
    info, defaults = engine.info, sampling_defaults(engine.package.post_config)
    return ModelLimits(names, info.vocab_size, info.context_length, defaults, min(MAX_CHOICES, max_together))

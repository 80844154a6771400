"""From a checked chat request to the engine's GenerationRequest: the one place where defaults and limits meet the model."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from axpress.core.errors import ContextOverflow, RequestError
from axpress.core.request import GenerationRequest, SamplingParams

from .errors import HttpError
from .schema import ChatRequest

if TYPE_CHECKING:
    from axpress.core.engine import Engine
    from axpress.core.package import SamplingDefaults

_SAME_NAME = ("temperature", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "seed")


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """What of the served model a request is checked against."""

    names: frozenset[str]
    vocab_size: int
    context_length: int
    defaults: SamplingParams


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


def generation_request(request: ChatRequest, limits: ModelLimits, prompt_ids: list[int]) -> GenerationRequest:
    """The engine's request. max_tokens absent fills the context; a prompt or answer that cannot fit raises ContextOverflow."""
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
    stop = request.stop
    return GenerationRequest(
        prompt_ids=prompt_ids,
        params=sampling(request, limits),
        max_tokens=room if asked is None else asked,
        stop=(stop,) if isinstance(stop, str) else tuple(stop or ()),
        ignore_eos=bool(request.ignore_eos),
    )


def model_limits(engine: Engine, names: frozenset[str]) -> ModelLimits:
    """Limits of the model that `engine` has open, served under `names`."""
    info = engine.info
    return ModelLimits(names, info.vocab_size, info.context_length, sampling_defaults(engine.package.post_config))

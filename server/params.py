"""From a checked chat request to the engine's GenerationRequest: the one place where defaults and limits meet the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from axpress.core.errors import ContextOverflow, RequestError
from axpress.core.request import GenerationRequest, SamplingParams

from .errors import HttpError
from .schema import ChatRequest

if TYPE_CHECKING:
    from axpress.core.engine import Engine

_SAME_NAME = ("temperature", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "seed")


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """What of the served model a request is checked against."""

    names: frozenset[str]
    vocab_size: int
    context_length: int
    defaults: SamplingParams


def sampling_defaults(config: Mapping[str, Any] | None) -> SamplingParams:
    """Defaults of a package's post_config.json, used where a request is silent.

    A value counts unless its enable_* switch is there and false; what the file does not say stays neutral.
    """
    config = config or {}
    values: dict[str, Any] = {}
    for field, key, switch in (
        ("temperature", "temperature", "enable_temperature"),
        ("top_p", "top_p", "enable_top_p_sampling"),
        ("top_k", "top_k", "enable_top_k_sampling"),
        ("repetition_penalty", "repetition_penalty", "enable_repetition_penalty"),
        ("penalty_window", "penalty_window", "enable_repetition_penalty"),
    ):
        if key in config and config.get(switch, True):
            values[field] = config[key]
    return SamplingParams(**values)


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
    given = {name: value for name in _SAME_NAME if (value := getattr(request, name)) is not None}
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
    room = limits.context_length - len(prompt_ids)
    asked = request.max_completion_tokens or request.max_tokens
    if room < 1 or (asked is not None and asked > room):
        answer = f" and the answer may take {asked}" if asked is not None and room >= 1 else ""
        raise ContextOverflow(
            f"This model's context is {limits.context_length} tokens: the messages take {len(prompt_ids)}{answer}. "
            + ("Ask for a shorter answer." if answer else "Shorten the messages."),
            "messages" if not answer else ("max_completion_tokens" if request.max_completion_tokens else "max_tokens"),
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

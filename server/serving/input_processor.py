"""From a GenerationSpec to the engine's GenerationRequests: the one place where a request meets the model."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from axpress.core.errors import ContextOverflow, RequestError
from axpress.core.request import GenerationRequest, ImageInput, SamplingParams, choice_seed

from .answer_constraint import make_constraint
from .embedding_input import embedding_requests
from .generation_spec import GenerationSpec
from .model_limits import ModelLimits, check_together
from .output_parser import OutputParser
from .pictures import Pictures
from .prepared_request import PreparedRequest
from .prompts import check_length, check_size, plain_prompts, seen_conversation
from .rerank_input import rerank_requests
from .served_model import ServedModel


def prepare_request(
    spec: GenerationSpec, served: ServedModel, cache_salt: bytes, client: bytes = b"", pictures: Pictures = ()
) -> PreparedRequest:
    """Checks, renders, tokenises; cached prompts are shared among requests of one salt, places among clients.
    `pictures`: those of the messages, as the model takes them.

    Takes milliseconds: not on the event loop. Raises RequestError, HttpError.
    """
    limits, text, thinking = served.limits, served.engine.text, None
    limits.names.check(spec.model)
    if spec.rerank is not None:
        pairs = rerank_requests(spec, spec.rerank, served, cache_salt, client)
        return PreparedRequest(spec, pairs, served.engine, served.name, served.fingerprint)
    served.engine.info.check_kind(embeds=spec.embedding is not None)
    if spec.embedding is not None:
        texts = embedding_requests(spec, spec.embedding, served, cache_salt, client)
        return PreparedRequest(spec, texts, served.engine, served.name, served.fingerprint)
    check_size(spec, limits.max_characters)
    check_length(spec, text, limits.context_length)
    images: tuple[ImageInput, ...] = ()
    if spec.messages is not None:
        prompt, images, thinking = seen_conversation(spec, served, pictures)
        prompts = [prompt]
    else:
        prompts = plain_prompts(spec, text, limits.vocab_size)
    prediction = tuple(text.encode(spec.prediction)) if spec.prediction is not None else ()
    output = served.chat_format.output_spec(spec, thinking)
    # before a grammar is compiled in vain
    of_prompts = [generation_request(spec, limits, ids, prediction, cache_salt) for ids in prompts]
    constraint = make_constraint(spec, output, served.grammars)
    rules: dict[str, Any] = {"client": client, "images": images, "constraint": constraint}
    if thinking is not None:
        rules |= {"stop_after": thinking.end, "stop_after_begin": "" if thinking.open else thinking.begin}
    requests = [choice for request in of_prompts for choice in choices(spec, limits, replace(request, **rules))]
    check_together(len(requests), limits)
    plain = thinking is None and not output.tools
    only_calls = output.tool_choice == "required"
    parsers = [] if plain else [OutputParser(thinking, output.tool_format, only_calls) for _ in requests]
    return PreparedRequest(spec, requests, served.engine, served.name, served.fingerprint, parsers)


def sampling(spec: GenerationSpec, limits: ModelLimits) -> SamplingParams:
    """The sampling parameters, the model's own defaults where the request is silent.

    A request that asks for randomness (a temperature above 0, or top_p) gets it: what the package would undo it with,
    greedy choice by temperature 0, top_k 1 or top_p 0, does not apply then."""
    fields = dict(spec.sampling)
    if "top_k" in fields:
        fields["top_k"] = max(0, fields["top_k"])
    if "logit_bias" in fields:
        fields["logit_bias"] = _bias_by_token(fields["logit_bias"], limits.vocab_size)
    defaults = limits.defaults
    if fields.get("temperature", fields.get("top_p")):
        defaults = replace(
            defaults,
            temperature=defaults.temperature or 1.0,
            top_k=0 if defaults.top_k == 1 else defaults.top_k,
            top_p=defaults.top_p or 1.0,
        )
    return replace(defaults, **fields)


def _bias_by_token(bias: Mapping[str, float], vocab_size: int) -> dict[int, float]:
    by_token = {}
    for key, value in bias.items():
        token = int(key) if key.isascii() and key.isdigit() and len(key) < 12 else -1
        if not 0 <= token < vocab_size:
            text = f"'logit_bias': '{key[:32]}' is not a token id of this model (0 to {vocab_size - 1})."
            raise RequestError(text, "logit_bias", "invalid_value")
        by_token[token] = float(value)
    return by_token


def generation_request(
    spec: GenerationSpec,
    limits: ModelLimits,
    prompt_ids: list[int],
    prediction: tuple[int, ...] = (),
    cache_salt: bytes = b"",
) -> GenerationRequest:
    """The engine's request. max_tokens absent or -1 fills the context; a prompt, answer or prediction that cannot fit
    raises ContextOverflow."""
    return GenerationRequest(
        prompt_ids=prompt_ids,
        params=sampling(spec, limits),
        max_tokens=_max_tokens(spec, limits, len(prompt_ids), len(prediction)),
        stop=spec.stop,
        ignore_eos=spec.ignore_eos,
        prediction=prediction,
        cache_salt=cache_salt,
        low_priority=spec.low_priority,
    )


def _max_tokens(spec: GenerationSpec, limits: ModelLimits, num_prompt: int, num_predicted: int) -> int:
    """Tokens that the answer may have. Raises ContextOverflow."""
    context, prompt = min(limits.context_length, spec.context or limits.context_length), spec.names.prompt
    room = context - num_prompt
    which = "this model's context" if context == limits.context_length else f"'{spec.names.context}'"
    takes, them = ("take", "them") if prompt == "messages" else ("takes", "it")
    if room < 1:
        text = f"'{prompt}' {takes} {num_prompt} tokens; {which} is {context} tokens. Shorten {them}."
        raise ContextOverflow(text, prompt)
    wanted = room if spec.max_tokens in (None, -1) else min(spec.max_tokens, room) if spec.clip else spec.max_tokens
    if wanted > room:
        raise ContextOverflow(
            f"'{spec.names.max_tokens}' is {wanted} and '{prompt}' {takes} {num_prompt} tokens; {which} is {context}"
            f" tokens. Ask for at most {room}, or shorten the prompt.",
            spec.names.max_tokens,
        )
    if num_predicted > context:
        text = f"'prediction' has {num_predicted} tokens; {which} is {context} tokens, so no answer can be as long."
        raise ContextOverflow(text, "prediction")
    return wanted


def choices(spec: GenerationSpec, limits: ModelLimits, request: GenerationRequest) -> list[GenerationRequest]:
    """One engine request for each of the `n` choices, which differ in the seed only. Raises RequestError where `n` can
    never fit."""
    if spec.n == 1:
        return [request]
    if spec.n > limits.max_choices:
        text = f"'n' is {spec.n}; this server takes at most {limits.max_choices} answers at a time."
        raise RequestError(text, "n", "invalid_value")
    seed = request.params.seed if request.params.seed is not None else secrets.randbits(63)
    return [replace(request, params=replace(request.params, seed=choice_seed(seed, i))) for i in range(spec.n)]

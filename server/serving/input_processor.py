"""From an Ask to the engine's GenerationRequests: the one place where a request meets the model's defaults and
limits."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from axpress.core.errors import ContextOverflow, RequestError
from axpress.core.request import GenerationRequest, SamplingParams, choice_seed

from ..http.errors import HttpError
from ..schema.fields import MAX_CHOICES
from .generation_spec import GenerationSpec
from .output_parser import OutputParser
from .prepared_request import PreparedRequest
from .prompts import check_size, plain_prompts

if TYPE_CHECKING:
    from axpress.core.engine.engine import Engine
    from axpress.core.model_files.model_package import SamplingDefaults
    from axpress.core.structured_output.constraint import Constraint
    from axpress.core.structured_output.grammar_compiler import GrammarCompiler, OutputSpec, Thinking, ToolFormat

    from .chat_format import ChatFormat


SHRINKS = 4  # times, at most, that a tokenizer makes a text shorter before it takes it apart (Unicode's normal forms)


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """What of the served model a request is checked against. `max_choices`: answers of one prompt; `max_together`:
    answers that the engine takes at one time, all prompts of a request together; `max_characters`: a prompt of more is
    too long, whatever is in it."""

    names: frozenset[str]
    vocab_size: int
    context_length: int
    defaults: SamplingParams
    max_choices: int = MAX_CHOICES
    max_together: int = MAX_CHOICES
    max_characters: int = 1 << 62


@dataclass(frozen=True, slots=True)
class Served:
    """The loaded model as requests see it. `fingerprint` changes when anything that can change an answer does."""

    engine: Engine
    limits: ModelLimits
    name: str
    fingerprint: str
    chat_format: ChatFormat
    grammars: GrammarCompiler


def prepare_request(spec: GenerationSpec, served: Served, cache_salt: bytes) -> PreparedRequest:
    """Checks, renders, tokenises; cached prompts are shared among requests of one salt.

    Takes milliseconds: not on the event loop. Raises RequestError, HttpError.
    """
    check_model(spec.model, served.limits)
    check_size(spec, served.limits.max_characters)
    text, thinking = served.engine.text, None
    if spec.messages is not None:
        prompt, thinking = _conversation(spec, served.chat_format)
        prompts = [prompt]
    else:
        prompts = plain_prompts(spec, text, served.limits.vocab_size)
    prediction = tuple(text.encode(spec.prediction)) if spec.prediction is not None else ()
    shape = served.chat_format.shape(spec, thinking)
    # before a grammar is compiled in vain
    single = [generation_request(spec, served.limits, ids, prediction, cache_salt) for ids in prompts]
    rules: dict[str, Any] = {"constraint": make_constraint(spec, shape, served.grammars)}
    if thinking is not None:
        rules |= {"stop_after": thinking.end, "stop_after_begin": "" if thinking.open else thinking.begin}
    made = [choices(spec, served.limits, replace(one, **rules)) for one in single]
    check_together(sum(map(len, made)), served.limits)
    requests = [one for group in made for one in group]
    plain = thinking is None and not shape.tools
    parsers = [] if plain else [OutputParser(thinking, shape.tool_format) for _ in requests]
    return PreparedRequest(spec, requests, served.engine, served.name, served.fingerprint, parsers)


def make_constraint(
    spec: GenerationSpec, shape: OutputSpec, grammars: GrammarCompiler
) -> Callable[[], Constraint] | None:
    """What holds the answer to its shape; None where any text will do. Raises RequestError for what no grammar can be
    made of."""
    check_stop(spec.stop, shape.tool_format)
    budget = spec.thinking_budget if shape.thinking is not None else None
    if shape.body is None and not shape.tools and budget is None:
        return None
    if spec.ignore_eos:
        text = (
            "'ignore_eos' does not go with tools, a form of the answer or a bound on reasoning, which say where the"
            " answer may end."
        )
        raise RequestError(text, "ignore_eos", "unsupported_parameter")
    return grammars.compile(shape, thinking_budget=budget)


def check_stop(stop: tuple[str, ...], calls: ToolFormat | None) -> None:
    """Raises RequestError for a stop string that would cut every call."""
    if calls is None:
        return
    for one in stop:
        if any(one in part for part in (calls.begin, calls.before_arguments, calls.end, calls.between)):
            text = (
                f"'stop': {one[:64]!r} is part of how this model writes calls, so that it could call nothing. Leave it"
                " or the tools out."
            )
            raise RequestError(text, "stop", "invalid_value")


def _conversation(spec: GenerationSpec, chat_format: ChatFormat) -> tuple[list[int], Thinking | None]:
    """See `ChatFormat.prompt`; what is wrong with the messages is told of the field that the dialect has them in."""
    try:
        return chat_format.prompt(spec)
    except RequestError as exc:
        if exc.param != "messages" or spec.prompt_field == "messages":
            raise
        raise RequestError(
            str(exc).replace("'messages'", f"'{spec.prompt_field}'"), spec.prompt_field, exc.code
        ) from None


def sampling_defaults(config: SamplingDefaults | None) -> SamplingParams:
    """A package's post_config.json as SamplingParams, used where a request is silent; what the file does not say stays
    neutral."""
    said = asdict(config) if config is not None else {}
    return SamplingParams(**{name: value for name, value in said.items() if value is not None})


def check_model(name: str | None, limits: ModelLimits) -> None:
    """Raise HttpError 404 unless the request names the served model, "default", or none."""
    if name is None or name == "default" or name in limits.names:
        return
    shown = name if len(name) <= 128 else name[:128] + "..."
    served = ", ".join(sorted(limits.names))
    text = f"The model '{shown}' does not exist here; this server has: {served}, which also answers as 'default'."
    raise HttpError(404, text, param="model", code="model_not_found")


def sampling(spec: GenerationSpec, limits: ModelLimits) -> SamplingParams:
    """The sampling parameters, the model's own defaults where the request is silent."""
    given = dict(spec.sampling)
    if "top_k" in given:
        given["top_k"] = max(0, given["top_k"])
    if spec.logit_bias:
        given["logit_bias"] = _bias(spec.logit_bias, limits.vocab_size)
    return replace(limits.defaults, **given)


def _bias(bias: Mapping[str, float], vocab_size: int) -> dict[int, float]:
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
    spec: GenerationSpec,
    limits: ModelLimits,
    prompt_ids: list[int],
    prediction: tuple[int, ...] = (),
    cache_salt: bytes = b"",
) -> GenerationRequest:
    """The engine's request. max_tokens absent fills the context; a prompt, answer or prediction that cannot fit raises
    ContextOverflow."""
    context, used = min(limits.context_length, spec.context or limits.context_length), len(prompt_ids)
    room, what = context - used, spec.prompt_field
    which = "this model's context" if context == limits.context_length else f"'{spec.context_field}'"
    takes, them = ("take", "them") if what == "messages" else ("takes", "it")
    if room < 1:
        raise ContextOverflow(f"'{what}' {takes} {used} tokens; {which} is {context} tokens. Shorten {them}.", what)
    asked = spec.max_tokens if spec.max_tokens is None or not spec.clip else min(spec.max_tokens, room)
    if asked is not None and asked > room:
        raise ContextOverflow(
            f"'{spec.max_tokens_field}' is {asked} and '{what}' {takes} {used} tokens; {which} is {context} tokens. "
            f"Ask for at most {room}, or shorten the prompt.",
            spec.max_tokens_field,
        )
    if len(prediction) > context:
        raise ContextOverflow(
            f"'prediction' has {len(prediction)} tokens; {which} is {context} tokens, so no answer can be as long.",
            "prediction",
        )
    return GenerationRequest(
        prompt_ids=prompt_ids,
        params=sampling(spec, limits),
        max_tokens=room if asked is None else asked,
        stop=spec.stop,
        ignore_eos=spec.ignore_eos,
        prediction=prediction,
        cache_salt=cache_salt,
        low_priority=spec.low_priority,
    )


def choices(spec: GenerationSpec, limits: ModelLimits, generation: GenerationRequest) -> list[GenerationRequest]:
    """One engine request for each of the `n` choices, which differ in the seed only. Raises RequestError where `n` can
    never fit."""
    if spec.n == 1:
        return [generation]
    if spec.n > limits.max_choices:
        raise RequestError(
            f"'n' is {spec.n}; this server takes at most {limits.max_choices} answers at a time.", "n", "invalid_value"
        )
    seed = generation.params.seed if generation.params.seed is not None else secrets.randbits(63)
    return [replace(generation, params=replace(generation.params, seed=choice_seed(seed, i))) for i in range(spec.n)]


def check_together(count: int, limits: ModelLimits) -> None:
    """Raises RequestError where several prompts ask for more answers than the engine ever takes at one time."""
    if count > limits.max_together:
        text = (
            f"The prompts ask for {count} answers together; this server takes at most {limits.max_together} at a time."
        )
        raise RequestError(text, "prompt", "invalid_value")


def model_limits(engine: Engine, names: frozenset[str], max_together: int) -> ModelLimits:
    """Limits of the model that `engine` has open, served under `names`; it takes `max_together` requests at a time."""
    info, defaults = engine.info, sampling_defaults(engine.package.post_config)
    longest = max(map(len, engine.text.pieces.data))
    return ModelLimits(
        names, info.vocab_size, info.context_length, defaults, min(MAX_CHOICES, max_together), max_together,
        max_characters=SHRINKS * longest * info.context_length,
    )  # fmt: skip


def fingerprint(*settings: object) -> str:
    """OpenAI's system_fingerprint: a short name for everything given."""
    return "fp_" + hashlib.sha256(repr(settings).encode()).hexdigest()[:12]

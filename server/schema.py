"""The chat completions request: the one place where its fields are listed.

Each field of OpenAI's API is in exactly one of three groups: *obeyed* (a plain field below), *harmless* (accepted because
it changes nothing about an answer here; marked so), or *refused by name* (REFUSED). A field in none of them is unknown and
refused by name too. null means "not given" for every field, as OpenAI's clients send it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, ValidationError

from axpress.core.errors import RequestError

MAX_MESSAGES = 4096
MAX_LOGIT_BIAS = 1024
MAX_CHOICES = 8
"""Answers that one request may ask for with `n`: each holds a place in the queue, and cache rows, of its own."""
INT64 = 2**63

REFUSED: dict[str, str] = {
    "audio": "audio output",
    "function_call": "function calling",
    "functions": "function calling",
    "prompt_cache_retention": "prompt cache retention",
    "reasoning_effort": "reasoning effort",
    "tools": "tool calling",
    "verbosity": "verbosity",
    "web_search_options": "web search",
    "chat_template": "a chat template sent by the client",
    "chat_template_kwargs": "template arguments sent by the client",
    "guided_json": "guided decoding",
    "guided_regex": "guided decoding",
    "guided_grammar": "guided decoding",
    "best_of": "best_of",
    "echo": "echo",
    "suffix": "suffix",
    "stop_token_ids": "stop token ids",
    "min_tokens": "min_tokens",
}
"""Known fields that would change an answer and are not supported: name -> what to call it in the error."""


class _Model(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True)


def _encodable(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("a lone surrogate is not text") from None
    return value


Text = Annotated[str, AfterValidator(_encodable)]


def _kind(value: Any) -> str:
    return "<list>" if isinstance(value, list) else "<text>"


class TextPart(_Model):
    """One part of a message's content; only text parts exist here."""

    type: Literal["text"]
    text: Text


Parts = Annotated[list[TextPart], Field(fail_fast=True, min_length=1, max_length=MAX_MESSAGES)]
Content = Annotated[Annotated[Text, Tag("<text>")] | Annotated[Parts, Tag("<list>")], Discriminator(_kind)]


def joined(content: str | list[TextPart]) -> str:
    """Content as one string; parts are joined without a separator."""
    return content if isinstance(content, str) else "".join(part.text for part in content)


class Message(_Model):
    """A message. The fields after `content` are what a client echoes from an answer: accepted only when empty."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Content
    refusal: None = None
    audio: None = None
    function_call: None = None
    tool_calls: Annotated[list[Any], Field(max_length=0)] | None = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None
    reasoning_content: None = None
    """Ours is null as long as no model here thinks apart."""

    @property
    def text(self) -> str:
        """The content as one string."""
        return joined(self.content)


class Prediction(_Model):
    """Text that the answer is expected to repeat in large part. Where it does, the answer comes faster; it is never changed by it."""

    type: Literal["content"]
    content: Content

    @property
    def text(self) -> str:
        """The content as one string."""
        return joined(self.content)


def _only_false(value: bool) -> bool:
    if value:
        raise ValueError("true is not supported here")
    return value


OnlyFalse = Annotated[bool, AfterValidator(_only_false)]


class StreamOptions(_Model):
    """include_obfuscation true is refused: nothing is padded here."""

    include_usage: bool | None = None
    include_obfuscation: OnlyFalse | None = None


class ResponseFormat(_Model):
    """Only plain text."""

    type: Literal["text"]


StopString = Annotated[Text, Field(min_length=1, max_length=256)]
StopList = Annotated[list[StopString], Field(fail_fast=True, max_length=4)]
Stop = Annotated[Annotated[StopString, Tag("<text>")] | Annotated[StopList, Tag("<list>")], Discriminator(_kind)]
Penalty = Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Tokens = Annotated[int, Field(ge=1, lt=2**31)]
Bias = Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]


def _bias_size(value: Any) -> Any:
    if isinstance(value, dict) and len(value) > MAX_LOGIT_BIAS:
        raise ValueError(f"at most {MAX_LOGIT_BIAS} tokens can be biased")
    return value


class ChatRequest(_Model):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(fail_fast=True, min_length=1, max_length=MAX_MESSAGES)]
    model: Text | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Fraction | None = None
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    stop: Stop | None = None
    seed: Annotated[int, Field(ge=-INT64, lt=INT64)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: Annotated[dict[str, Bias], BeforeValidator(_bias_size)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    """The choices share the prompt's cache rows. With a `seed`, choice i is the answer that `choice_seed(seed, i)` gives alone."""
    prediction: Prediction | None = None
    """Not with `n` above 1. usage counts which of its tokens came true (accepted) and which were tried in vain (rejected); these are
    not part of completion_tokens."""
    prompt_cache_key: Text | None = None
    """Separates tenants: a cached prompt is found again only by requests with the same key (no key is one of them)."""
    service_tier: Literal["auto", "default", "flex"] | None = None
    """flex: in the background, after all other requests and without pushing their prompts out of the cache. Echoed in the answer."""
    # What local servers share beyond OpenAI.
    top_k: Annotated[int, Field(ge=-1, le=1_000_000)] | None = None
    """0 and -1: off."""
    min_p: Fraction | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)] | None = None
    ignore_eos: bool | None = None
    # Harmless: each of these values asks for what happens anyway.
    response_format: ResponseFormat | None = None
    modalities: Annotated[list[Literal["text"]], Field(min_length=1, max_length=1)] | None = None
    store: OnlyFalse | None = None
    tool_choice: Literal["none", "auto"] | None = None
    parallel_tool_calls: bool | None = None
    # Harmless: labels of the caller's own. Never stored, never logged.
    user: Text | None = None
    safety_identifier: Text | None = None
    metadata: Annotated[dict[str, Text], Field(max_length=16)] | None = None


def parse(document: Any) -> ChatRequest:
    """The checked request of a JSON document.

    Raises RequestError that names the first wrong field; `param` is spelled like `messages[2].content`.
    """
    if not isinstance(document, dict):
        raise RequestError("The request body must be a JSON object.", None, "invalid_type")
    fields = {name: value for name, value in document.items() if not (value is None and name in _NULLABLE)}
    for name in fields:
        if name not in ChatRequest.model_fields:
            raise _refusal(name)
    try:
        request = ChatRequest.model_validate(fields)
    except ValidationError as exc:
        raise _first_error(exc) from None
    _check_together(request)
    return request


_NULLABLE = (set(ChatRequest.model_fields) - {"messages"}) | set(REFUSED)


def _refusal(name: str) -> RequestError:
    shown = name if len(name) <= 64 else name[:64] + "..."
    if name in REFUSED:
        return RequestError(f"'{shown}' is not supported: this server has no {REFUSED[name]}.", shown, "unsupported_parameter")
    return RequestError(f"Unknown field '{shown}'.", shown, "unknown_parameter")


def _check_together(request: ChatRequest) -> None:
    if request.top_logprobs is not None and not request.logprobs:
        raise RequestError("'top_logprobs' needs 'logprobs': true.", "top_logprobs", "invalid_value")
    if request.stream_options is not None and not request.stream:
        raise RequestError("'stream_options' needs 'stream': true.", "stream_options", "invalid_value")
    if request.prediction is not None and (request.n or 1) > 1:
        raise RequestError("'prediction' needs 'n' to be 1: a prediction is of one answer.", "prediction", "unsupported_parameter")
    both = (request.max_tokens, request.max_completion_tokens)
    if None not in both and both[0] != both[1]:
        text = "'max_tokens' and 'max_completion_tokens' differ; send one of them."
        raise RequestError(text, "max_tokens", "invalid_value")


_CODES = {
    "missing": "missing_required_parameter",
    "extra_forbidden": "unknown_parameter",
    "literal_error": "unsupported_value",
    "none_required": "unsupported_value",
}


def _first_error(exc: ValidationError) -> RequestError:
    error = exc.errors(include_url=False, include_context=False, include_input=False)[0]
    param = _spell(error["loc"])
    kind = error["type"]
    code = _CODES.get(kind) or ("invalid_type" if kind.endswith("_type") else "invalid_value")
    text = "This field is missing" if kind == "missing" else error["msg"].removeprefix("Value error, ")
    if kind == "extra_forbidden":
        text = "Unknown or unsupported field"
    return RequestError(f"'{param}': {text}.", param, code)


def _spell(location: tuple[int | str, ...]) -> str:
    """('messages', 0, 'content', '<list>', 1) as 'messages[0].content[1]'; names in <> are our own union tags."""
    out = ""
    for step in location:
        if isinstance(step, int):
            out += f"[{step}]"
        elif not step.startswith("<"):
            name = step if len(step) <= 64 else step[:64] + "..."
            out += f".{name}" if out else name
    return out

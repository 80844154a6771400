"""POST /api/chat and /api/generate: Ollama's answers. What it shows of its models is in models."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Any, ClassVar, Self

from axpress.core.structured_output.output_spec import Body, JsonObject, JsonSchema

from ..schema.fields import stop_strings
from ..schema.images import image_source, parts_or_text
from ..schema.reasoning import EFFORT_BUDGETS
from ..schema.tools import chat_tools
from ..serving.dialect import Answer, Dialect, NothingToGenerate, StreamWriter, Totals
from ..serving.generation_spec import FieldNames, GenerationSpec, Tools, without_none
from ..serving.model_names import ModelNames
from ..serving.prepared_request import PreparedRequest
from .requests import Call, OllamaChatRequest, OllamaGenerateRequest, OllamaMessage, OllamaRequest, Options
from .stream import OllamaStream, Part, ReplyFormat, whole


class OllamaDialect(Dialect):
    """What both have in common. A request without a prompt only wants the model to be there, or gone: it is answered at
    once where the model is loaded, and stays it."""

    waiting = b""
    request_class: ClassVar[type[OllamaRequest]]

    def __init__(self, spec: GenerationSpec, reply_format: ReplyFormat) -> None:
        self.spec, self.reply_format = spec, reply_format

    @classmethod
    def read(cls, document: Any, names: ModelNames) -> Self:
        request = cls.request_class.read(document)
        names.check(request.model)
        reply_format = ReplyFormat(request.model, chat=cls.request_class is OllamaChatRequest)
        spec = cls._spec(request)
        if spec is None:
            keep = request.keep_seconds
            reason = "unload" if keep == 0 else "load"
            raise NothingToGenerate(reply_format.write(Part(), {"done_reason": reason}), keep)
        return cls(spec, reply_format)

    @classmethod
    @abstractmethod
    def _spec(cls, request: Any) -> GenerationSpec | None:
        """The request in neutral form; None where it has no prompt."""

    def stream(self, prepared: PreparedRequest) -> StreamWriter:
        return OllamaStream(self.reply_format, prepared)

    def whole(self, prepared: PreparedRequest, answers: list[Answer], totals: Totals) -> bytes:
        return whole(self.reply_format, prepared, answers[0], totals)


class OllamaChat(OllamaDialect):
    """/api/chat."""

    request_class = OllamaChatRequest

    @classmethod
    def _spec(cls, request: OllamaChatRequest) -> GenerationSpec | None:
        if not request.messages:
            return None
        messages = [_message(message, f"messages[{index}]") for index, message in enumerate(request.messages)]
        return GenerationSpec(messages=messages, tools=_tools(request), **_common(request, "messages"))


class OllamaGenerate(OllamaDialect):
    """/api/generate: the prompt is one message, but for raw ones."""

    request_class = OllamaGenerateRequest

    @classmethod
    def _spec(cls, request: OllamaGenerateRequest) -> GenerationSpec | None:
        if not request.prompt:
            return None
        if request.raw:
            return GenerationSpec(prompts=(request.prompt,), control_tokens=True, **_common(request, "prompt"))
        messages = [{"role": "user", "content": _content(request.prompt, request.images, "images")}]
        if request.system:
            messages.insert(0, {"role": "system", "content": request.system})
        return GenerationSpec(messages=messages, **_common(request, "prompt"))


def _tools(request: OllamaChatRequest) -> Tools | None:
    """Clients in Go send null for what a schema of parameters does not say."""
    tools = chat_tools(request.tools, None, None)
    if tools is None:
        return None
    functions = []
    for function in tools.functions:
        parameters = {k: v for k, v in (function.parameters or {}).items() if v is not None}
        functions.append(replace(function, parameters=parameters or None))
    return replace(tools, functions=tuple(functions))


def _common(request: OllamaRequest, prompt_field: str) -> dict[str, Any]:
    """The fields of GenerationSpec that do not depend on the kind of request."""
    options = request.options or Options()
    limit = options.num_predict
    logprobs = (request.top_logprobs or 0) if request.logprobs else None
    return {
        "stream": request.stream is not False,
        "body": _body(request.format),
        "thinking": None if request.think is None else request.think is not False,
        "thinking_budget": EFFORT_BUDGETS[request.think] if isinstance(request.think, str) else None,
        "max_tokens": limit if limit is not None and limit > 0 else None,
        "clip": True,
        "context": options.num_ctx,
        "keep_alive": request.keep_seconds,
        "sampling": {**_sampling(options), **without_none(logprobs=logprobs)},
        "stop": stop_strings(options.stop),
        "names": FieldNames(prompt_field, "options.num_predict", "options.num_ctx", "think"),
    }


def _sampling(options: Options) -> dict[str, Any]:
    """Names and values of SamplingParams. Its windows count otherwise than Ollama's: 0 is all tokens there, -1 here,
    and 0 is none."""
    penalty, window = options.repeat_penalty, options.repeat_last_n
    if window == 0:
        penalty, window = 1.0, None
    return without_none(
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        min_p=options.min_p,
        repetition_penalty=penalty,
        penalty_window=None if window is None else max(0, window),
        presence_penalty=options.presence_penalty,
        frequency_penalty=options.frequency_penalty,
        seed=None if options.seed == -1 else options.seed,
    )


def _body(wanted: str | dict[str, Any] | None) -> Body | None:
    if isinstance(wanted, dict):
        return JsonSchema(wanted, "format")
    return JsonObject() if wanted else None


def _content(text: str, images: list[str] | None, field: str) -> str | list[dict[str, Any]]:
    """Pictures and then the text, as Ollama has it. Some clients write them as data: URLs."""
    parts = []
    for index, image in enumerate(images or ()):
        url, encoded = (image, "") if image.startswith("data:") else (None, image)
        parts.append(image_source(f"{field}[{index}]", url, encoded).part)
    return parts_or_text([*parts, {"type": "text", "text": text}])


def _message(message: OllamaMessage, field: str) -> dict[str, Any]:
    """As chat templates know it."""
    return {
        "role": message.role,
        "content": _content(message.content or "", message.images, f"{field}.images"),
        **without_none(
            reasoning_content=message.thinking or None,
            tool_calls=[_call(call) for call in message.tool_calls or ()] or None,
            name=message.tool_name,
            tool_call_id=message.tool_call_id,
        ),
    }


def _call(call: Call) -> dict[str, Any]:
    function = {"name": call.function.name, "arguments": call.function.arguments}
    return {**without_none(id=call.id), "type": "function", "function": function}

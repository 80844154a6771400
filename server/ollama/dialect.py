"""POST /api/chat and /api/generate: Ollama's answers. What it shows of its models is in ollama_models."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Any, Literal, Self

from sanic import Blueprint
from sanic.request import Request
from sanic.response import HTTPResponse

from axpress.core.errors import AxpressError
from axpress.core.structured_output.output_spec import Body, JsonObject, JsonSchema

from ..http.errors import HttpError, sentence_response
from ..schema.fields import stop_strings
from ..schema.reasoning import EFFORT_BUDGETS
from ..schema.tools import chat_tools
from ..serving.dialect import Answer, Dialect, StreamWriter, Totals
from ..serving.generation_spec import GenerationSpec, Tools, said
from ..serving.handler import answer
from ..serving.prepared_request import PreparedRequest
from .requests import Call, OllamaChatRequest, OllamaGenerateRequest, OllamaMessage, OllamaRequest, Options
from .stream import OllamaStream, Part, ReplyFormat, whole

ollama = Blueprint("ollama")


@ollama.post("/api/chat", stream=True)
async def ollama_chat(request: Request) -> HTTPResponse | None:
    """Answer a conversation, streamed or whole."""
    return await answer(request, OllamaChat, served=request.app.ctx.service.served_name)


@ollama.post("/api/generate", stream=True)
async def ollama_generate(request: Request) -> HTTPResponse | None:
    """Answer a prompt, streamed or whole."""
    return await answer(request, OllamaGenerate, served=request.app.ctx.service.served_name)


class NothingAsked(AxpressError):
    """A request without a prompt, which only wants the model to be there, or gone. `reply`: the answer to it."""

    def __init__(self, reply: bytes) -> None:
        super().__init__("nothing was asked")
        self.reply = reply


class OllamaDialect(Dialect):
    """What both have in common. A request without a prompt is answered at once: the model is loaded, and stays it."""

    any_content_type = True

    def __init__(self, spec: GenerationSpec, shape: ReplyFormat) -> None:
        self.spec, self.shape = spec, shape

    @classmethod
    @abstractmethod
    def read(cls, document: Any, served: str = "") -> Self:
        """As in Dialect. `served`: the model's name. Raises NothingAsked for a request without a prompt."""

    @classmethod
    def error(cls, error: BaseException) -> HTTPResponse:
        if isinstance(error, NothingAsked):
            return HTTPResponse(error.reply, content_type="application/json")
        return sentence_response(error)

    def stream(self, prepared: PreparedRequest) -> StreamWriter:
        return OllamaStream(self.shape, prepared)

    def whole(self, prepared: PreparedRequest, answers: list[Answer], totals: Totals) -> bytes:
        return whole(self.shape, prepared, answers[0], totals)


class OllamaChat(OllamaDialect):
    """/api/chat."""

    @classmethod
    def read(cls, document: Any, served: str = "") -> Self:
        request = OllamaChatRequest.read(document)
        check_served(request.model, served)
        shape = ReplyFormat(request.model, chat=True)
        if not request.messages:
            raise NothingAsked(_nothing(shape, request))
        return cls(chat_ask(request, request.messages), shape)


class OllamaGenerate(OllamaDialect):
    """/api/generate."""

    @classmethod
    def read(cls, document: Any, served: str = "") -> Self:
        request = OllamaGenerateRequest.read(document)
        check_served(request.model, served)
        shape = ReplyFormat(request.model, chat=False)
        if not request.prompt:
            raise NothingAsked(_nothing(shape, request))
        return cls(generate_ask(request, request.prompt), shape)


def _nothing(shape: ReplyFormat, request: OllamaRequest) -> bytes:
    reason: Literal["load", "unload"] = "unload" if request.unloads else "load"
    return shape.write(Part(), {"done_reason": reason})


def check_served(name: str, served: str) -> None:
    """Raise 404 unless `name` is the served model's, with or without Ollama's tag for the latest, or "default"."""
    if name == "default" or name.removesuffix(":latest") == served.removesuffix(":latest"):
        return
    shown = name if len(name) <= 128 else name[:128] + "..."
    raise HttpError(
        404,
        f"model '{shown}' not found: this server has '{served}', which also answers as 'default'.",
        code="model_not_found",
    )


def chat_ask(request: OllamaChatRequest, messages: list[OllamaMessage]) -> GenerationSpec:
    """A chat in neutral form."""
    return GenerationSpec(messages=[_message(one) for one in messages], tools=_tools(request), **_common(request))


def _tools(request: OllamaChatRequest) -> Tools | None:
    """Clients in Go send null for what a schema of parameters does not say."""
    tools = chat_tools(request.tools, None, None)
    if tools is None:
        return None
    given = [(one, one.parameters or {}) for one in tools.functions]
    cleared = [
        replace(one, parameters={k: v for k, v in schema.items() if v is not None} or None) for one, schema in given
    ]
    return replace(tools, functions=tuple(cleared))


def generate_ask(request: OllamaGenerateRequest, prompt: str) -> GenerationSpec:
    """A prompt in neutral form: one message, but for raw ones."""
    if request.raw:
        return GenerationSpec(prompts=(prompt,), control_tokens=True, prompt_field="prompt", **_common(request))
    messages = [{"role": "user", "content": prompt}]
    if request.system:
        messages.insert(0, {"role": "system", "content": request.system})
    return GenerationSpec(messages=messages, prompt_field="prompt", **_common(request))


def _common(request: OllamaRequest) -> dict[str, Any]:
    """The fields of Ask that do not depend on the kind of request."""
    options = request.options or Options()
    limit = options.num_predict
    return {
        "stream": request.stream is not False,
        "body": _body(request.format),
        "thinking": None if request.think is None else request.think is not False,
        "thinking_budget": EFFORT_BUDGETS[request.think] if isinstance(request.think, str) else None,
        "thinking_field": "think",
        "max_tokens": limit if limit is not None and limit > 0 else None,
        "max_tokens_field": "options.num_predict",
        "clip": True,
        "context": options.num_ctx,
        "context_field": "options.num_ctx",
        "sampling": {**_sampling(options), **said(logprobs=(request.top_logprobs or 0) if request.logprobs else None)},
        "stop": stop_strings(options.stop),
    }


def _sampling(options: Options) -> dict[str, Any]:
    """Names and values of SamplingParams. Its windows count otherwise than Ollama's: 0 is all tokens there, -1 here,
    and 0 is none."""
    penalty, window = options.repeat_penalty, options.repeat_last_n
    if window == 0:
        penalty, window = 1.0, None
    return said(
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


def _message(message: OllamaMessage) -> dict[str, Any]:
    """As chat templates know it."""
    return {
        "role": message.role,
        "content": message.content or "",
        **said(
            reasoning_content=message.thinking or None,
            tool_calls=[_call(one) for one in message.tool_calls or ()] or None,
            name=message.tool_name,
            tool_call_id=message.tool_call_id,
        ),
    }


def _call(call: Call) -> dict[str, Any]:
    function = {"name": call.function.name, "arguments": call.function.arguments}
    return {**said(id=call.id), "type": "function", "function": function}

"""What the dialects' schemas share: strictness, kinds of fields, and errors that name the field."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, ValidationError

from axpress.core.errors import RequestError

from ..serving.model_limits import MAX_CHOICES

MAX_MESSAGES = 4096
MAX_LOGIT_BIAS = 1024
INT64 = 2**63


def _describe_fates(schema: dict[str, Any], kind: type[BaseModel]) -> None:
    """Into the JSON schema of a class: which of its fields change nothing, and which it knows and refuses."""
    harmless: dict[str, str] = getattr(kind, "harmless", {})
    for name, reason in harmless.items():
        field = schema["properties"][name]
        field["description"] = " ".join(
            [f"Accepted, changes nothing here: {reason}.", field.get("description", "")]
        ).strip()
    for key, fates in (("x-accepted", harmless), ("x-refused", getattr(kind, "refused", {}))):
        if fates:
            schema[key] = dict(fates)


class Strict(BaseModel):
    """An object of a request: no field unknown, no value converted."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
        json_schema_extra=_describe_fates,
    )


class RequestFields(Strict):
    """The body of one kind of request. Fields are obeyed, but for those in `harmless`: name -> why nothing follows from
    it.

    `refused`: known fields that would change an answer and are not supported: name -> what to call it in the error.
    """

    harmless: ClassVar[dict[str, str]] = {}
    refused: ClassVar[dict[str, str]] = {}

    @classmethod
    def read(cls, document: Any) -> Self:
        """The checked request of a JSON document.

        Raises RequestError that names the first wrong field; `param` is spelled like `messages[2].content`.
        """
        if not isinstance(document, dict):
            raise RequestError("The request body must be a JSON object.", None, "invalid_type")
        required = {name for name, field in cls.model_fields.items() if field.is_required()}
        fields = {
            name: value
            for name, value in document.items()
            if value is not None or name in required or not cls.knows(name)
        }
        for name in fields:
            if name not in cls.model_fields:
                raise cls._refusal(name)
        try:
            request = cls.model_validate(fields)
        except ValidationError as exc:
            raise first_error(exc) from None
        request.check()
        return request

    @classmethod
    def knows(cls, name: str) -> bool:
        """Whether it is a field of this request, refused ones included."""
        return name in cls.model_fields or name in cls.refused

    def check(self) -> None:
        """Raises RequestError where fields, each good by itself, do not go together."""

    @classmethod
    def _refusal(cls, name: str) -> RequestError:
        param = _short(name)
        if name in cls.refused:
            text = f"'{param}' is not supported: this server has no {cls.refused[name]}."
            return RequestError(text, param, "unsupported_parameter")
        return RequestError(f"Unknown field '{param}'.", param, "unknown_parameter")


def encodable(value: str) -> str:
    """The text, if it is text."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("a lone surrogate is not text") from None
    return value


Text = Annotated[str, AfterValidator(encodable)]


def kind(value: Any) -> str:
    """Discriminator of fields that are a text or a list."""
    return "<list>" if isinstance(value, list) else "<text>"


def type_of(value: Any, field: str = "type") -> Any:
    """For discriminators: the field that tells kinds of objects apart. They meet JSON when a request is read, and what
    was read when it is dumped."""
    return value.get(field) if isinstance(value, dict) else getattr(value, field, None)


def _text_only(value: Any) -> Any:
    if isinstance(value, str) and value != "text":
        raise ValueError(f"parts of type {value[:32]!r} are not supported here: only text")
    return value


class TextPart(Strict):
    """One part of a message's content."""

    type: Annotated[Literal["text"], BeforeValidator(_text_only)]
    text: Text


Parts = Annotated[list[TextPart], Field(fail_fast=True, min_length=1, max_length=MAX_MESSAGES)]
Content = Annotated[Annotated[Text, Tag("<text>")] | Annotated[Parts, Tag("<list>")], Discriminator(kind)]


def joined(content: str | list[TextPart]) -> str:
    """Content as one string; parts are joined without a separator."""
    return content if isinstance(content, str) else "".join(part.text for part in content)


def _only_false(value: bool) -> bool:
    if value:
        raise ValueError("true is not supported here")
    return value


OnlyFalse = Annotated[bool, AfterValidator(_only_false), Field(json_schema_extra={"const": False})]


def _limit(value: int) -> int:
    if value == 0:
        raise ValueError("Input should be greater than 0, or -1 for no limit but the context's")
    return value


def _bias_size(value: Any) -> Any:
    if isinstance(value, dict) and len(value) > MAX_LOGIT_BIAS:
        raise ValueError(f"at most {MAX_LOGIT_BIAS} tokens can be biased")
    return value


StopString = Annotated[Text, Field(min_length=1, max_length=256)]
StopList = Annotated[list[StopString], Field(fail_fast=True, max_length=4)]
Stop = Annotated[Annotated[StopString, Tag("<text>")] | Annotated[StopList, Tag("<list>")], Discriminator(kind)]
Temperature = Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)]
Penalty = Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
MaxTokens = Annotated[int, Field(ge=-1, lt=2**31), AfterValidator(_limit)]
"""-1: no limit but the context's."""
Seed = Annotated[int, Field(ge=-INT64, lt=INT64)]
LogitBias = Annotated[
    dict[str, Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]],
    BeforeValidator(_bias_size),
    Field(json_schema_extra={"maxProperties": MAX_LOGIT_BIAS, "propertyNames": {"pattern": "^[0-9]{1,11}$"}}),
]
Choices = Annotated[int, Field(ge=1, le=MAX_CHOICES)]
TopLogprobs = Annotated[int, Field(ge=0, le=20)]
TopK = Annotated[int, Field(ge=-1, le=1_000_000)]
RepetitionPenalty = Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)]
Metadata = Annotated[dict[str, Text], Field(max_length=16)]


class StreamOptions(Strict):
    """include_obfuscation true is refused: nothing is padded here."""

    include_usage: bool | None = None
    include_obfuscation: OnlyFalse | None = None


def stop_strings(stop: str | list[str] | None) -> tuple[str, ...]:
    """A `stop` field as a tuple."""
    return (stop,) if isinstance(stop, str) else tuple(stop or ())


_CODES = {
    "missing": "missing_required_parameter",
    "extra_forbidden": "unknown_parameter",
    "literal_error": "unsupported_value",
    "none_required": "unsupported_value",
}
_TEXTS = {
    "missing": "This field is missing",
    "extra_forbidden": "Unknown or unsupported field",
    "model_type": "Input should be an object",
    "dict_type": "Input should be an object",
}


def first_error(exc: ValidationError) -> RequestError:
    """The first thing wrong, as an error that names its field."""
    error = exc.errors(include_url=False, include_context=False, include_input=False)[0]
    param = _spell(error["loc"])
    kind = error["type"]
    code = _CODES.get(kind) or ("invalid_type" if kind.endswith("_type") else "invalid_value")
    text = _TEXTS.get(kind) or error["msg"].removeprefix("Value error, ").replace(" after validation", "")
    return RequestError(f"'{param}': {text}.", param, code)


def _spell(location: tuple[int | str, ...]) -> str:
    """('messages', 0, 'content', '<list>', 1) as 'messages[0].content[1]'; names in <> are our own union tags."""
    out = ""
    for step in location:
        if isinstance(step, int):
            out += f"[{step}]"
        elif not step.startswith("<"):
            out += f".{_short(step)}" if out else _short(step)
    return out


def _short(name: str) -> str:
    return name if len(name) <= 64 else name[:64] + "..."

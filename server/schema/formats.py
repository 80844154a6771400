"""Forms of answers in the words of other local servers: guided decoding, beside OpenAI's response_format."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from axpress.core.errors import RequestError
from axpress.core.structured_output.output_spec import Body, JsonObject, JsonSchema, Lark, OneOf, Regex

from .fields import RequestFields, Strict, Text
from .tools import MAX_SCHEMA_SIZE, SchemaOrText

Pattern = Annotated[Text, Field(min_length=1, max_length=8192)]
Grammar = Annotated[Text, Field(min_length=1, max_length=MAX_SCHEMA_SIZE)]
ChoiceStrings = Annotated[
    list[Annotated[Text, Field(min_length=1, max_length=4096)]], Field(fail_fast=True, min_length=1, max_length=1024)
]


class StructuredOutputs(Strict):
    """Exactly one of these forms."""

    json_: SchemaOrText | None = Field(default=None, alias="json")
    """A JSON schema."""
    regex: Pattern | None = None
    choice: ChoiceStrings | None = None
    grammar: Grammar | None = None
    json_object: bool | None = None


class GuidedFields(RequestFields):
    """The form of an answer: each is guaranteed at any temperature. At most one of them."""

    guided_json: SchemaOrText | None = None
    """A JSON schema, or its JSON as a string."""
    guided_regex: Pattern | None = None
    """The whole answer matches: Rust's syntax, without lookaround and lazy quantifiers."""
    guided_choice: ChoiceStrings | None = None
    """The answer is one of these strings."""
    guided_grammar: Grammar | None = None
    """A context-free grammar in llguidance's variant of Lark; its first rule is `start`."""
    structured_outputs: StructuredOutputs | None = None
    """The same as one object."""

    def guided(self, *others: tuple[str, Body | None]) -> tuple[str, Body | None]:
        """The form asked for and its field; `others`: forms by fields of the request's own. Raises RequestError for two
        of them."""
        forms = [(name, body) for name, body in others if body is not None]
        forms += _bodies("guided_", "", self.guided_json, self.guided_regex, self.guided_choice, self.guided_grammar)
        outputs = self.structured_outputs
        if outputs is not None:
            inside = _bodies("", "structured_outputs.", outputs.json_, outputs.regex, outputs.choice, outputs.grammar)
            inside += [("structured_outputs.json_object", JsonObject())] if outputs.json_object else []
            if len(inside) != 1:
                text = (
                    "'structured_outputs' needs exactly one of 'json', 'regex', 'choice', 'grammar' and 'json_object'."
                )
                raise RequestError(text, "structured_outputs", "invalid_value")
            forms += inside
        if len(forms) > 1:
            names = " and ".join(f"'{name}'" for name, _ in forms)
            raise RequestError(f"{names}: an answer can have one form only.", forms[-1][0], "invalid_value")
        return forms[0] if forms else ("", None)


def _bodies(
    prefix: str,
    where: str,
    schema: dict[str, object] | None,
    regex: str | None,
    choice: list[str] | None,
    grammar: str | None,
) -> list[tuple[str, Body]]:
    """The forms that are given, by field."""
    names = [f"{where}{prefix}{name}" for name in ("json", "regex", "choice", "grammar")]
    bodies = (
        None if schema is None else JsonSchema(schema, names[0]),
        None if regex is None else Regex(regex, names[1]),
        None if choice is None else OneOf(tuple(choice), names[2]),
        None if grammar is None else Lark(grammar, names[3]),
    )
    return [(name, body) for name, body in zip(names, bodies, strict=True) if body is not None]

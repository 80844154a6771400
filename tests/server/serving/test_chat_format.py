"""What a chat template tells of a model: whether it thinks, how it writes calls; and how messages are laid out for
it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import chat_templates
import pytest

from axpress.core.errors import RequestError
from axpress.core.structured_output.output_spec import Thinking, ToolFormat
from axpress.server.serving.chat_format import GENERIC, ChatFormat, chat_format_of, in_call_order
from axpress.server.serving.generation_spec import FieldNames, Function, GenerationSpec, Tools

HI: list[dict[str, Any]] = [{"role": "user", "content": "hi"}]
WEATHER = Function("weather", "Tells the weather.", {"type": "object", "properties": {"city": {"type": "string"}}})
QWEN_FORMAT = ToolFormat('<tool_call>\n{"name": "', '", "arguments": ', "}\n</tool_call>", "\n")


def call(name: str, arguments: Any, key: str = "a") -> dict[str, Any]:
    return {"id": key, "type": "function", "function": {"name": name, "arguments": arguments}}


TALK = [
    *HI,
    {
        "role": "assistant",
        "content": "I look.",
        "tool_calls": [call("weather", '{"city":"Oslo"}'), call("weather", "{}", "b")],
    },
    {"role": "tool", "tool_call_id": "b", "content": "sun"},
    {"role": "tool", "tool_call_id": "a", "content": "rain"},
]


@pytest.fixture(scope="module")
def styles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ChatFormat]:
    root = tmp_path_factory.mktemp("styles")
    names = ("QWEN", "DENSE", "XML", "ALWAYS", "PLAIN", "STERN")
    return {
        name: chat_format_of(chat_templates.text_with(getattr(chat_templates, name), root / name)) for name in names
    }


def shown(chat_format: ChatFormat, messages: list[dict[str, Any]], **fields: Any) -> str:
    return chat_format.text.decode(
        chat_format.prompt(GenerationSpec(messages=messages, **fields))[0], skip_special_tokens=False
    )


def test_styles_are_found_by_rendering(styles: dict[str, ChatFormat]) -> None:
    told = {
        name: (one.thinking, one.thinks, one.native, one.arguments_as_text, one.system) for name, one in styles.items()
    }
    assert told == {
        "QWEN": ("switch", True, True, True, True),
        "DENSE": ("never", False, True, False, True),
        "XML": ("switch", False, False, False, True),
        "ALWAYS": ("always", True, False, False, True),
        "PLAIN": ("never", False, False, False, True),
        "STERN": ("never", False, False, False, False),
    }
    assert styles["QWEN"].tool_format == QWEN_FORMAT == styles["XML"].tool_format == GENERIC
    assert styles["DENSE"].tool_format == ToolFormat('<tool_call>{"name": "', '", "arguments": ', "}</tool_call>", "\n")


def test_a_tokenizer_without_template_has_a_style(styles: dict[str, ChatFormat], tmp_path: Path) -> None:
    text = chat_templates.text_with("x", tmp_path / "none")
    text._template = None  # what Text.open makes of files without a template and without ChatML's tokens
    assert chat_format_of(text) == ChatFormat(text)


def test_native_tools_are_given_to_the_template(styles: dict[str, ChatFormat]) -> None:
    prompt = shown(styles["QWEN"], TALK, tools=Tools((WEATHER, Function("now"))))
    assert (
        prompt
        == '<|im_start|>system\nFunctions:\n{"type": "function", "function": {"name": "weather", "description": "Tells'
        ' the weather.", '
        '"parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}\n'
        '{"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties":'
        " {}}}}<|im_end|>\n"
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nI look.\n"
        '<tool_call>\n{"name": "weather", "arguments": {"city":"Oslo"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "weather", "arguments": {}}\n</tool_call><|im_end|>\n'
        "<|im_start|>user\n<tool_response>\nrain\n</tool_response><|im_end|>\n"
        "<|im_start|>user\n<tool_response>\nsun\n</tool_response><|im_end|>\n<|im_start|>assistant\n"
    )
    assert "Functions" not in shown(styles["QWEN"], HI, tools=Tools((WEATHER,), "none"))
    assert '{"name": "weather", "arguments": {"city": "Oslo"}}</tool_call>' in shown(styles["DENSE"], TALK)


def test_other_templates_are_given_text(styles: dict[str, ChatFormat]) -> None:
    for name in ("XML", "ALWAYS", "PLAIN"):
        prompt = shown(styles[name], [{"role": "system", "content": "Be brief."}, *TALK], tools=Tools((WEATHER,)))
        assert prompt.startswith("<|im_start|>system\nBe brief.\n\nYou can call functions.")
        assert '\n{"name": "weather", "description": "Tells the weather.", "parameters": {"type": "object"' in prompt
        assert (
            "<|im_start|>assistant\nI look.\n"
            '<tool_call>\n{"name": "weather", "arguments": {"city":"Oslo"}}\n</tool_call>\n'
            '<tool_call>\n{"name": "weather", "arguments": {}}\n</tool_call><|im_end|>\n'
            "<|im_start|>user\n<tool_response>\nrain\n</tool_response>\n<tool_response>\nsun\n</tool_response><|im_end|>\n"
            in prompt
        )
        assert shown(styles[name], HI, tools=Tools((WEATHER,))).startswith(
            "<|im_start|>system\nYou can call functions."
        )
        assert "You can call" not in shown(styles[name], TALK) and '{"city":"Oslo"}' in shown(styles[name], TALK)
    stern = shown(styles["STERN"], HI, tools=Tools((WEATHER,)))
    assert stern.startswith("<|im_start|>user\nYou can call functions.") and "\n\nhi<|im_end|>" in stern


def test_tags_of_messages_are_text_and_those_of_the_template_tokens(styles: dict[str, ChatFormat]) -> None:
    tag = styles["PLAIN"].text.encode_control("<tool_call>")
    calls = [{"role": "assistant", "content": "<tool_call>", "tool_calls": [call("f", "{}")]}]
    assert styles["QWEN"].prompt(GenerationSpec(messages=[*HI, *calls]))[0].count(tag) == 1
    assert styles["PLAIN"].prompt(GenerationSpec(messages=[*HI, *calls]))[0].count(tag) == 0


def test_arguments_that_are_no_object(styles: dict[str, ChatFormat]) -> None:
    for arguments in ("[1]", '{"a": ', "null", ""):
        messages = [*HI, {"role": "assistant", "content": "", "tool_calls": [call("f", arguments)]}]
        with pytest.raises(RequestError, match="'f' are not a JSON object"):
            styles["DENSE"].prompt(GenerationSpec(messages=messages))
        assert f'"arguments": {arguments}}}' in shown(styles["QWEN"], messages)
    objects = [*HI, {"role": "assistant", "content": "", "tool_calls": [call("f", {"a": "é"})]}]
    for name in ("QWEN", "DENSE", "PLAIN"):
        assert '"arguments": {"a": "é"}}' in shown(styles[name], objects)


def test_results_stand_in_the_order_of_their_calls() -> None:
    one = {
        "role": "assistant",
        "content": "",
        "tool_calls": [call("f", "{}", "a"), call("f", "{}", "b"), call("f", "{}", "c")],
    }
    results = {key: {"role": "tool", "tool_call_id": key, "content": key} for key in "abcx"}
    talk = [*HI, one, results["c"], results["x"], results["a"], results["b"], *HI, one, results["b"], results["a"]]
    assert [m["content"] for m in in_call_order(talk)] == ["hi", "", "a", "b", "c", "x", "hi", "", "a", "b"]
    assert in_call_order(HI) == HI and in_call_order([]) == []


@pytest.mark.parametrize(
    ("name", "asked", "thinking", "end"),
    [
        ("QWEN", None, Thinking(), "assistant\n"),
        ("QWEN", True, Thinking(), "assistant\n"),
        ("QWEN", False, None, "<think>\n\n</think>\n\n"),
        ("XML", None, None, "<think>\n\n</think>\n\n"),
        ("XML", True, Thinking(open=True), "assistant\n<think>\n"),
        ("XML", False, None, "<think>\n\n</think>\n\n"),
        ("ALWAYS", None, Thinking(open=True), "assistant\n<think>\n"),
        ("ALWAYS", True, Thinking(open=True), "assistant\n<think>\n"),
        ("ALWAYS", False, None, "assistant\n<think>\n</think>\n\n"),
        ("PLAIN", None, None, "assistant\n"),
        ("PLAIN", False, None, "assistant\n"),
    ],
)
def test_thinking_on_and_off(
    styles: dict[str, ChatFormat], name: str, asked: bool | None, thinking: Thinking | None, end: str
) -> None:
    ids, found = styles[name].prompt(GenerationSpec(messages=HI, thinking=asked))
    assert found == thinking and styles[name].text.decode(ids, skip_special_tokens=False).endswith(end)
    if thinking is None and name != "PLAIN":
        assert styles[name].text.encode_control("</think>") in ids
    if asked is None and name != "PLAIN":  # the package's config decides
        for default in (True, False):
            told = replace(styles[name], default=default).prompt(GenerationSpec(messages=HI))
            assert told == styles[name].prompt(GenerationSpec(messages=HI, thinking=default))


def test_a_model_that_does_not_reason_says_so(styles: dict[str, ChatFormat]) -> None:
    with pytest.raises(RequestError, match="does not reason") as error:
        styles["PLAIN"].prompt(GenerationSpec(messages=HI, thinking=True, names=FieldNames(thinking="think")))
    assert error.value.param == "think"


def test_shapes(styles: dict[str, ChatFormat]) -> None:
    chat_format, tools = styles["QWEN"], (WEATHER, Function("now"))
    one = chat_format.output_spec(
        GenerationSpec(messages=HI, tools=Tools(tools, "required", ("now",), False)), Thinking()
    )
    assert [rule.name for rule in one.tools] == ["now"] and one.tool_choice == "required" and not one.parallel
    assert one.tool_format == QWEN_FORMAT and one.thinking == Thinking()
    for none in (None, Tools(tools, "none")):
        plain = chat_format.output_spec(GenerationSpec(messages=HI, tools=none), None)
        assert not plain.tools and plain.tool_format is None and plain.tool_choice == "auto"
    assert [
        rule.schema for rule in chat_format.output_spec(GenerationSpec(messages=HI, tools=Tools(tools)), None).tools
    ] == [WEATHER.parameters, None]

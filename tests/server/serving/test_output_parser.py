"""An answer read in any pieces is the answer read at once; tags never leak, and nothing else is lost."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from axpress.core.request import Delta
from axpress.core.structured_output.output_spec import Thinking, ToolFormat
from axpress.server.serving.output_parser import OutputParser, Piece

QWEN = ToolFormat('<tool_call>\n{"name": "', '", "arguments": ', "}\n</tool_call>")
DENSE = ToolFormat('<tool_call>{"name": "', '", "arguments": ', "}</tool_call>", "")
THINKING = Thinking()
OPEN = Thinking(open=True)


def call(name: str, arguments: str) -> str:
    return QWEN.begin + name + QWEN.before_arguments + arguments + QWEN.end


def joined(pieces: list[Piece]) -> list[Piece]:
    """Neighbours of one kind as one piece."""
    out: list[Piece] = []
    for one in pieces:
        if out and out[-1].kind == one.kind != "call" and out[-1].call == one.call:
            out[-1] = Piece(one.kind, out[-1].text + one.text, one.call)
        else:
            out.append(one)
    return out


def read(
    parts: list[str], thinking: Thinking | None = None, tools: ToolFormat | None = None, reason: str = "stop"
) -> list[Piece]:
    """The pieces of an answer that came as `parts`, a token each."""
    parser = OutputParser(thinking, tools)
    deltas = [Delta(text, 1) for text in parts] + [Delta("", 0, reason)]  # type: ignore[arg-type]
    return joined([piece for delta in deltas for piece in parser.read([delta])])


def tell(*pieces: tuple[str, str] | tuple[str, str, int]) -> list[Piece]:
    return [Piece(*one) for one in pieces]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "thinking", "tools", "expected"),
    [
        ("plain <think>text</think>", None, None, [("content", "plain <think>text</think>")]),
        ("<think>\nhm\n</think>\n\nYes.", THINKING, None, [("reasoning", "hm"), ("content", "Yes.")]),
        ("hm\n</think>\n\nYes.\n", OPEN, None, [("reasoning", "hm"), ("content", "Yes.\n")]),
        ("\n <think>hm</think>Yes", THINKING, None, [("reasoning", "hm"), ("content", "Yes")]),
        ("<think>\n\n</think>\n\nYes", THINKING, None, [("content", "Yes")]),
        ("No. <think>hm</think>", THINKING, None, [("content", "No. <think>hm</think>")]),
        ("hm <think> so </think> a </think>", OPEN, None,
        [("reasoning", "hm <think> so "), ("content", " a </think>")]),
        ("<think>cut\n</thi", THINKING, None, [("reasoning", "cut\n</thi")]),
        ("<thi", THINKING, None, [("content", "<thi")]),
        ("", OPEN, QWEN, []),
        ("a < b <tool_call", None, QWEN, [("content", "a < b <tool_call")]),
        ("a <tool_call> b", None, QWEN, [("content", "a <tool_call> b")]),
        (call("f", "{}"), None, QWEN, [("call", "f", 0), ("arguments", "{}", 0)]),
        (
            "I look.\n\n" + call("f", '{"a": [1, {"b": "}]</tool_call>\\""}]}') + "\n" + call("g-1", "{}"), None, QWEN,
            [("content", "I look."), ("call", "f", 0), ("arguments", '{"a": [1, {"b": "}]</tool_call>\\""}]}', 0),
             ("call", "g-1", 1), ("arguments", "{}", 1)],
        ),
        (
            '<tool_call>{"name": "f", "arguments": {"a": "}</tool_call>"}}</tool_call>', None, DENSE,
            [("call", "f", 0), ("arguments", '{"a": "}</tool_call>"}', 0)],
        ),
        (
            "<think>\nhm</think>\n\n" + call("f", "{}") + "\n", THINKING, QWEN,
            [("reasoning", "hm"), ("call", "f", 0), ("arguments", "{}", 0)],
        ),
        (call("f", "{}") + "\n done", None, QWEN, [("call", "f", 0), ("arguments", "{}", 0), ("content", "done")]),
        ("Well.\n<tool_call>\n{\"na", None, QWEN, [("content", "Well.")]),
        ("<tool_call>\n{\"name\": \"get_wea", None, QWEN, []),
        (QWEN.begin + "f" + QWEN.before_arguments, None, QWEN, [("call", "f", 0)]),
        (QWEN.begin + "f" + QWEN.before_arguments + '{"a": "x\\', None, QWEN,
        [("call", "f", 0), ("arguments", '{"a": "x\\', 0)]),
        (QWEN.begin + "f" + QWEN.before_arguments + "{}}\n</tool", None, QWEN,
        [("call", "f", 0), ("arguments", "{}", 0)]),
    ],
)  # fmt: skip
def test_pieces_in_every_split(
    text: str, thinking: Thinking | None, tools: ToolFormat | None, expected: list[tuple[str, str]]
) -> None:
    assert read([text], thinking, tools) == tell(*expected)
    assert read(list(text), thinking, tools) == tell(*expected)
    for cut in range(len(text) + 1):
        assert read([text[:cut], text[cut:]], thinking, tools) == tell(*expected)


FRAGMENTS = st.sampled_from(
    ["<think>", "</think>", "\n", "\n\n", " ", "a", "<", "<tool_call>", QWEN.begin, QWEN.end,
    call("f", '{"a": "<b>"}'), "</tool_call>",
     QWEN.begin + "g" + QWEN.before_arguments, '{"', '\\"', "}", "word ", "é"]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    st.lists(FRAGMENTS, max_size=8).map("".join),
    st.data(),
    st.sampled_from([None, THINKING, OPEN]),
    st.sampled_from([None, QWEN]),
)
@example("<think>a</think>\n\n" + call("f", "{}"), None, THINKING, QWEN)
def test_reading_in_pieces_is_reading_at_once(
    text: str, data: st.DataObject | None, thinking: Thinking | None, tools: ToolFormat | None
) -> None:
    cuts = (
        sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
        if data is not None
        else list(range(len(text)))
    )
    parts = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    at_once = read([text], thinking, tools)
    assert read(parts, thinking, tools) == at_once
    if tools is None and thinking is None:
        assert "".join(piece.text for piece in at_once) == text
    kept = "".join(piece.text for piece in at_once)
    assert set(kept) <= set(text) and len(kept) <= len(text)
    assert not any(QWEN.begin in piece.text for piece in at_once if tools is not None and piece.kind == "content")
    if thinking is not None:
        assert not any("</think>" in piece.text for piece in at_once if piece.kind == "reasoning")


@settings(max_examples=100, deadline=None)
@given(st.text("ab<tool_cal>\n {", max_size=40))
def test_text_that_is_no_call_is_given_back_whole(text: str) -> None:
    pieces = read(list(text), None, QWEN)
    if "<tool_call>" not in text:
        assert "".join(piece.text for piece in pieces) == text
    assert all(piece.kind == "content" for piece in pieces)


def test_arguments_come_token_by_token_and_text_is_held_only_as_long_as_needed() -> None:
    parser = OutputParser(None, QWEN)
    said = [
        "So",
        " <",
        "b",
        "<tool_call>",
        '\n{"name": "',
        "get",
        '", "arguments": ',
        '{"x"',
        ": 1",
        "}}",
        "\n</tool_call>",
    ]
    heard = [(one, [(p.kind, p.text) for p in parser.read([Delta(one, 1)])]) for one in said]
    assert heard == [
        ("So", [("content", "So")]), (" <", []), ("b", [("content", " <b")]), ("<tool_call>", []),
        ('\n{"name": "', []), ("get", []),
        ('", "arguments": ', [("call", "get")]), ('{"x"', [("arguments", '{"x"')]), (": 1", [("arguments", ": 1")]),
        ("}}", [("arguments", "}")]), ("\n</tool_call>", []),
    ]  # fmt: skip
    assert parser.num_calls == 1 and not parser.call_open


def test_reasoning_tokens_are_those_up_to_its_end() -> None:
    def count(thinking: Thinking | None, *deltas: tuple[str, int]) -> int:
        parser = OutputParser(thinking, None)
        for text, num in deltas:
            parser.read([Delta(text, num)])
        parser.read([Delta("", 0, "stop")])
        return parser.reasoning_tokens

    assert count(THINKING, ("<think>", 1), ("\n", 1), ("a", 1), ("</think>", 1), ("\n\n", 1), ("b", 1)) == 4
    assert count(OPEN, ("a", 1), ("", 1), ("</", 1), ("think>", 1), ("b", 1)) == 4
    assert count(OPEN, ("a", 1), ("</think>\n\nbcd", 4), ("e", 1)) == 1 + round(8 / 13 * 4)
    assert count(THINKING, ("<th", 1), ("at", 1)) == 0
    assert count(THINKING, ("<think>never done", 5)) == 5
    assert count(None, ("<think>", 1)) == 0


def test_an_open_call_is_told() -> None:
    for text, expected in (
        (QWEN.begin + "f", True),
        (call("f", "{}"), False),
        ("text", False),
        ("<tool_call>\n", True),
    ):
        parser = OutputParser(None, QWEN)
        parser.read([Delta(text, 1, "length")])
        assert parser.call_open is expected


@pytest.mark.parametrize("cut", range(1, len(QWEN.begin)))
def test_a_required_call_that_is_cut_in_its_tag_is_nothing(cut: int) -> None:
    """As text it would be taken for the answer."""
    parser = OutputParser(None, QWEN, only_calls=True)
    assert parser.read([Delta(QWEN.begin[:cut], 1), Delta("", 0, "length")]) == []

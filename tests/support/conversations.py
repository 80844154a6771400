"""Conversations by which two chat templates of one model are compared."""

from __future__ import annotations

from typing import Any

Messages = list[dict[str, Any]]

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather in a \"city\" <now>, 'ümläut' & 天气",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
TIME = {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}}


def _call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"id": f"call_{name}", "type": "function", "function": {"name": name, "arguments": arguments}}


def _turns(*turns: tuple[str, str]) -> Messages:
    return [{"role": role, "content": content} for role, content in turns]


PLAIN: dict[str, Messages] = {
    "one question": _turns(("user", "Hi")),
    "system": _turns(("system", "Be brief.\n"), ("user", "  What is 1+1? ")),
    "several turns": _turns(
        ("system", "You are a pirate."),
        ("user", "你好 👋"),
        ("assistant", " Ahoy!\n"),
        ("user", "def f():\n\treturn 1\n"),
        ("assistant", "Fine."),
        ("user", ""),
    ),
    "ends with an answer": _turns(("user", "a"), ("assistant", "b")),
}
SEVERAL_SYSTEM = {"later system message": [*PLAIN["several turns"], {"role": "system", "content": "Now in verse."}]}
THOUGHTS: dict[str, Messages] = {
    "thoughts in the text": _turns(
        ("user", "a"), ("assistant", "<think>\nhm\n</think>\n\nb"), ("user", "c"), ("assistant", "<think>x</think>d")
    ),
    "thoughts apart": [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b", "reasoning_content": "\nwell\n"},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "\nd", "reasoning_content": "so"},
    ],
}
CALLS: dict[str, Messages] = {
    "a call and its result": [
        {"role": "system", "content": "Use tools."},
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "", "tool_calls": [_call("get_weather", city='Paris & "Köln" <x>')]},
        {"role": "tool", "content": "18 °C", "tool_call_id": "call_get_weather"},
    ],
    "two calls, words before them": [
        {"role": "user", "content": "Weather and time?"},
        {
            "role": "assistant",
            "content": "Let me see.",
            "tool_calls": [_call("get_weather", city="北京"), _call("now")],
        },
        {"role": "tool", "content": "rain"},
        {"role": "tool", "content": '{"t": 12}'},
        {"role": "assistant", "content": "Rain, noon."},
        {"role": "user", "content": "Thanks"},
    ],
    "thoughts before a call": [
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": "",
            "reasoning_content": "I need the city.",
            "tool_calls": [_call("get_weather", city="Rome", days=[1, 2], deep={"a": None, "b": True})],
        },
        {"role": "tool", "content": "sun"},
    ],
    "a user who quotes a result": _turns(
        ("user", "q"),
        ("assistant", "<think>t</think>a"),
        ("user", "<tool_response>\nx\n</tool_response>"),
        ("assistant", "<think>u</think>b"),
    ),
}

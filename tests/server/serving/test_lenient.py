"""`--lenient`: what other servers take is taken, what would change the answer is still refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from server_process import RunningServer, post

HI = [{"role": "user", "content": "hi", "id": "msg-1"}, {"role": "assistant", "content": "a", "id": "msg-2"}]
MESSAGES = [*HI, {"role": "user", "content": "hi", "audio_id": None}]
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with RunningServer("--emu-profile", "none", "--lenient") as running:
        yield running


def test_unknown_fields_are_left_out_at_any_depth_and_told_once(server: RunningServer) -> None:
    fields: dict[str, Any] = {"messages": MESSAGES, "max_tokens": 3, "chat_id": "x", "store": True, "verbosity": "low"}
    for _ in range(2):
        status, answer = post(server, CHAT, **fields, cache_prompt=True)
        assert status == 200, answer
        assert answer["usage"]["completion_tokens"] <= 3
    for name in ("chat_id", "cache_prompt", "messages[].id", "messages[].audio_id", "store", "verbosity"):
        assert server.log.count(f"field {name!r} of a request is ignored") == 1


def test_the_answer_is_the_one_without_them(server: RunningServer) -> None:
    plain = [{"role": "user", "content": "What is 7 + 5?"}]
    with_id = [{**plain[0], "id": "1"}]
    answers = [
        post(server, CHAT, messages=messages, temperature=0, max_tokens=12)[1]["choices"][0]["message"]["content"]
        for messages in (plain, with_id)
    ]
    assert answers[0] == answers[1]


def test_too_many_tokens_are_cut_to_the_context(server: RunningServer) -> None:
    status, answer = post(server, CHAT, messages=MESSAGES, max_tokens=500_000, temperature=0, stop=["."])
    assert status == 200, answer


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": 7}, "temperature"),
        ({"audio": {}}, "audio"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"stop_token_ids": [1]}, "stop_token_ids"),
        ({f"f{number}": 1 for number in range(40)}, "f32"),
    ],
)
def test_what_would_change_the_answer_is_refused(server: RunningServer, fields: dict, param: str) -> None:
    status, answer = post(server, CHAT, **{"messages": MESSAGES, **fields})
    assert (status, answer["error"]["param"]) == (400, param)


def test_a_name_that_cannot_be_found_again_is_refused(server: RunningServer) -> None:
    """Dots and brackets in a name would lead elsewhere; nothing else may be deleted for it."""
    for name in ("messages[0].content", "messages", "a.b", "x" * 100):
        status, answer = post(server, CHAT, **{"messages": [{"role": "user", "content": "hi", name: 1}]})
        assert status in (200, 400), answer
        assert status == 200 or answer["error"]["code"] == "unknown_parameter"

"""Stored responses: OpenAI's client against a server that was started with --store-responses."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.responses import Response, ResponseItem
from pydantic import TypeAdapter
from server_process import RunningServer, openai_client, post

from axpress.server.http.api_keys import Keyring
from axpress.server.openai.response_items import listed_items
from axpress.server.openai.response_store import ResponseStore, StoreError
from axpress.server.openai.responses_request import ResponsesRequest

KEYS = {"AXPRESS_API_KEYS": "alice:alices-secret-key,bobs-secret-key"}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store") / "responses.db"


@pytest.fixture(scope="module")
def server(file: Path) -> Iterator[RunningServer]:
    with RunningServer("--emu-profile", "none", "--store-responses", file, "--store-limit", "6") as running:
        yield running


def test_a_response_is_gone_on_from(client: openai.OpenAI) -> None:
    create = client.responses.create
    first = create(model="default", input="What is 2 + 3?", instructions="Be brief.")
    second = create(model="default", input="And 4 + 4?", previous_response_id=first.id, instructions="Be kind.")
    assert first.store and second.store and second.previous_response_id == first.id
    spelled: list[Any] = [
        {"role": "user", "content": "What is 2 + 3?"},
        {"role": "assistant", "content": first.output_text},
        {"role": "user", "content": "And 4 + 4?"},
    ]
    whole = create(model="default", input=spelled, instructions="Be kind.", store=False)
    assert second.output_text == whole.output_text
    assert second.usage is not None and whole.usage is not None
    assert second.usage.input_tokens == whole.usage.input_tokens, "the instructions of before do not come along"
    stream = list(create(model="default", input="Thanks", previous_response_id=second.id, stream=True))
    last = stream[-1]
    assert last.type == "response.completed" and last.response.store
    third = client.responses.retrieve(last.response.id)
    assert third.output_text == last.response.output_text and third.previous_response_id == second.id
    items = list(client.responses.input_items.list(third.id, order="asc", limit=2))  # three pages of it
    said = [part.text for item in items for part in item.content]
    assert said == [
        "What is 2 + 3?", first.output_text, "And 4 + 4?", second.output_text, "Thanks"
    ]  # fmt: skip
    newest = client.responses.input_items.list(third.id, limit=1)
    assert newest.data == items[-1:] and newest.has_more
    for item in items:
        TypeAdapter(ResponseItem).validate_python(item.to_dict(), strict=True)


def test_calls_and_their_results_go_on(client: openai.OpenAI) -> None:
    weather: Any = {"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}}
    asked: Any = {"model": "default", "tools": [weather], "tool_choice": "required", "parallel_tool_calls": False}
    first = client.responses.create(**asked, input="Weather?")
    call = first.output[0]
    assert call.type == "function_call"
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "Rain."}
    answer = client.responses.create(model="default", input=[result], previous_response_id=first.id)
    assert answer.output_text
    kinds = [item.type for item in client.responses.input_items.list(answer.id, order="asc")]
    assert kinds == ["message", "function_call", "function_call_output"]
    with pytest.raises(openai.BadRequestError, match=r"input\[0\]\.call_id"):
        client.responses.create(model="default", input=[{**result, "call_id": "x"}], previous_response_id=first.id)


def test_store_false_and_deleted_ones_are_not_there(server: RunningServer, client: openai.OpenAI) -> None:
    unkept = client.responses.create(model="default", input="Hello", store=False)
    kept = client.responses.create(model="default", input="Hello", metadata={"a": "b"})
    assert client.responses.retrieve(kept.id) == kept and kept.metadata == {"a": "b"} and not unkept.store
    after = client.responses.create(model="default", input="More", previous_response_id=kept.id)
    client.responses.delete(kept.id)
    for name in (unkept.id, kept.id):
        for ask in (client.responses.retrieve, client.responses.delete, client.responses.input_items.list):
            with pytest.raises(openai.NotFoundError, match="was deleted"):
                ask(name)
        status, answer = post(server, "/v1/responses", input="More", previous_response_id=name)
        assert status == 400 and answer["error"]["code"] == "previous_response_not_found"
        assert answer["error"]["param"] == "previous_response_id"
    assert len(client.responses.input_items.list(after.id).data) == 3, "what went on from it stays whole"


@pytest.mark.parametrize("query", ["?limit=0", "?limit=101", "?limit=x", "?order=up", "?after=x"])
def test_wrong_pages_are_refused_by_name(server: RunningServer, client: openai.OpenAI, query: str) -> None:
    made = client.responses.create(model="default", input="Hello", max_output_tokens=1)
    status, _, raw = server.request("GET", f"/v1/responses/{made.id}/input_items{query}")
    assert status == 400 and f'"param":"{query[1:].split("=")[0]}"'.encode() in raw
    assert server.request("GET", f"/v1/responses/{made.id}?stream=true")[0] == 400


@pytest.mark.parametrize("name", ["%00", "%FF", "%ED%A0%80", "'; DROP TABLE responses; --", "a" * 2000])
def test_odd_names_are_not_found(server: RunningServer, name: str) -> None:
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/input_items")):
        status = server.request(method, f"/v1/responses/{name.replace(' ', '%20')}{path}")[0]
        assert status in (400, 404)


def test_each_key_has_its_own_and_the_file_none_of_them(tmp_path: Path) -> None:
    file = tmp_path / "responses.db"
    arguments = ("--emu-profile", "none", "--store-responses", file)
    made: dict[str, Response] = {}
    with RunningServer(*arguments, environment=KEYS) as server:
        for key in ("alices-secret-key", "bobs-secret-key"):
            with openai_client(server, key) as client:
                made[key] = client.responses.create(model="default", input="Hello", max_output_tokens=2)
                assert client.responses.retrieve(made[key].id) == made[key]
        with openai_client(server, "alices-secret-key") as alice:
            for ask in (alice.responses.retrieve, alice.responses.delete, alice.responses.input_items.list):
                with pytest.raises(openai.NotFoundError):
                    ask(made["bobs-secret-key"].id)
            with pytest.raises(openai.BadRequestError, match="previous_response_id"):
                alice.responses.create(model="default", input="x", previous_response_id=made["bobs-secret-key"].id)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and b"secret-key" not in file.read_bytes()
    keys = [Keyring(None, KEYS["AXPRESS_API_KEYS"]).identify(key) for key in made]
    store = ResponseStore(file, 10, 1 << 20)  # as after a restart
    for identity, response in zip(keys, made.values(), strict=True):
        assert identity is not None
        stored = store.get(identity.lasting, response.id)
        assert stored is not None and stored.response == response.to_dict()
    store.close()


def test_the_oldest_go(tmp_path: Path) -> None:
    for number in range(5):  # opened anew each time
        store = ResponseStore(tmp_path / "a.db", 3, 1 << 20)
        store.put("", {"id": f"{number}"}, [])
        store.close()
    store = ResponseStore(tmp_path / "a.db", 3, 1 << 20)
    assert [number for number in range(5) if store.get("", f"{number}")] == [2, 3, 4]
    store.close()


def test_bytes_are_bounded_too(tmp_path: Path) -> None:
    store = ResponseStore(tmp_path / "a.db", 1000, 3000)
    for number in range(5):
        store.put("", {"id": f"{number}", "output": "x" * 1000}, [])
    assert [number for number in range(5) if store.get("", f"{number}")] == [3, 4]
    store.put("", {"id": "huge", "output": "x" * 4000}, [])
    assert store.get("", "huge") is None
    assert [number for number in range(5) if store.get("", f"{number}")] == [3, 4], "it costs nobody theirs"
    store.close()


def test_numbers_that_no_answer_could_repeat_are_refused_or_let_go(server: RunningServer) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer", "default": 10**20}}}
    for stream in (False, True):
        tools = [{"type": "function", "name": "f", "parameters": schema}]
        # without a choice the grammar would refuse it, too
        status, answer = post(server, "/v1/responses", input="x", tools=tools, tool_choice="none", stream=stream)
        assert status == 400 and "an integer in it has more than 64 bits" in answer["error"]["message"]
    schema["properties"]["a"] = {"type": "integer", "default": 2**64 - 1}  # the largest of others' unsigned types
    tools = [{"type": "function", "name": "f", "parameters": schema}]
    assert post(server, "/v1/responses", input="x", tools=tools, max_output_tokens=2)[0] == 200
    part = {"type": "output_text", "text": "yes", "logprobs": [10**30, "\ud800"]}
    said = [{"role": "assistant", "content": [part]}, {"role": "user", "content": "go on"}]
    status, answer = post(server, "/v1/responses", input=said, max_output_tokens=2)
    assert status == 200 and answer["status"] in ("completed", "incomplete"), answer


def test_a_file_that_is_none_is_refused_in_words(tmp_path: Path) -> None:
    text, other, taken = tmp_path / "text", tmp_path / "other.db", tmp_path / "taken.db"
    text.write_text("no database " * 100)
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE mine (a)")
    connection.close()
    store = ResponseStore(taken, 1, 1)
    for file in (text, other, taken, tmp_path / "no" / "such"):
        with pytest.raises(StoreError, match=f"--store-responses {file}: "):
            ResponseStore(file, 1, 1)
    store.close()


def test_items_that_are_sent_twice_get_ids_of_their_own() -> None:
    message = {"type": "message", "id": "msg_1", "role": "user", "content": "a"}
    request = ResponsesRequest.read({"input": [message, message, {"role": "assistant", "content": "b"}]})
    items = listed_items(request.input, "n", [{**message, "id": "msg_0"}])
    assert len({item["id"] for item in items}) == 4 and items[1]["id"] == "msg_1"
    assert items[3]["content"] == [{"type": "output_text", "text": "b"}]

"""A small evaluation of a real language model, greedy, through the server: what breaks quality must break these.

The model is SmolLM2-135M-Instruct on the emulated card. What is expected was seen with bf16 and with int8 weights; it
is what the model says, not what a better one would."""

from __future__ import annotations

import calendar
import json
import os
import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import real_model
from server_process import RunningServer, openai_client


@pytest.fixture(scope="module", params=["bf16", "int8"] if "AXPRESS_REAL_PROMPTS" in os.environ else ["bf16"])
def server(request: pytest.FixtureRequest) -> Iterator[RunningServer]:
    """`axpress serve` of the real model, with weights of either type."""
    with RunningServer(real_model.package(request.param), "--device", "emu", "--emu-profile", "none") as running:
        yield running


def ask(server: RunningServer, question: str, **fields: Any) -> Any:
    """The first choice of a greedy answer."""
    fields = {"temperature": 0, "max_tokens": 80, **fields}
    reply = openai_client(server).chat.completions.create(
        model="default", messages=[{"role": "user", "content": question}], **fields
    )
    return reply.choices[0]


FACTS = {
    "What is the capital of France?": "Paris",
    "What is the capital of Italy?": "Rome",
    "What is the capital of Japan?": "Tokyo",
    "How many days are in a week?": "7|seven",
    "What is the chemical symbol for water?": "H2O",
    "At what temperature in Celsius does water boil?": r"\b100\b",
    "Which animal says meow?": "cat",
    "In which country are the pyramids of Giza?": "Egypt",
    "Who wrote Romeo and Juliet?": "Shakespeare",
}


@pytest.mark.parametrize("question", FACTS)
def test_a_fact(server: RunningServer, question: str) -> None:
    assert re.search(FACTS[question], ask(server, question).message.content)


LISTS = {
    "List the seven days of the week.": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday",
    "List the four seasons.": "Spring Summer Autumn Winter",
    "List the months of the year.": " ".join(calendar.month_name[1:]),
    "Count from one to ten.": " ".join(f"{number}" for number in range(1, 11)),
}


@pytest.mark.parametrize("question", LISTS)
def test_a_list_in_its_order(server: RunningServer, question: str) -> None:
    answer = ask(server, question).message.content
    assert re.search(r"\b.*\b".join(LISTS[question].split()), answer, re.DOTALL), answer


PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}, "city": {"type": "string"}},
    "required": ["name", "age", "city"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        (
            "Anna is 34 years old and lives in Lisbon. Give me her data as JSON.",
            {"name": "Anna", "age": 34, "city": "Lisbon"},
        ),
        (
            "My name is Maria. I am 29 years old. I live in Madrid. Write this as JSON.",
            {"name": "Maria", "age": 29, "city": "Madrid"},
        ),
    ],
)
def test_json_by_schema_says_what_the_question_says(server: RunningServer, question: str, expected: dict) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON, "strict": True}}
    answer = json.loads(ask(server, question, response_format=form).message.content)
    jsonschema.validate(answer, PERSON)
    assert answer == expected


WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


@pytest.mark.parametrize("city", ["Paris", "Berlin", "Tokyo"])
def test_a_tool_is_called_with_what_was_asked(server: RunningServer, city: str) -> None:
    choice = {"type": "function", "function": {"name": "get_weather"}}
    answer = ask(server, f"What is the weather in {city}?", tools=[WEATHER], tool_choice=choice)
    (call, *_) = answer.message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": city})


def test_a_stop_word_ends_the_answer_before_it(server: RunningServer) -> None:
    answer = ask(server, "List the days of the week.", stop=["Thursday"])
    assert answer.finish_reason == "stop"
    assert "Wednesday" in answer.message.content and "Thursday" not in answer.message.content


@pytest.mark.parametrize("place", [7, 35, 63])
def test_a_word_in_a_long_text_is_found_again(server: RunningServer, place: int) -> None:
    """About 1,100 tokens: chunks over history, wherever the word stands."""
    sights = ("ships", "horses", "clouds", "kings", "flowers")
    rooms = [f"The museum has room {n} with {n * 7 % 31 + 3} paintings of {sights[n % 5]}." for n in range(70)]
    text = " ".join([*rooms[:place], "The secret word is pineapple.", *rooms[place:]])
    answer = ask(server, f"{text}\n\nWhat is the secret word in the text above?", max_tokens=30)
    assert "pineapple" in answer.message.content.lower()

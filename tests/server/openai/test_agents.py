"""An agent framework from PyPI, pointed at the server: openai-agents, over Responses and over chat completions."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from typing import Any, Literal

import agents
import pytest
from pydantic import BaseModel
from server_process import RunningServer, async_openai_client

KINDS = {"responses": agents.OpenAIResponsesModel, "chat": agents.OpenAIChatCompletionsModel}


@pytest.fixture(autouse=True)
def no_way_out(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The framework reports to its makers by default: not here, and nothing but this machine is connected to."""
    agents.set_tracing_disabled(True)
    connect, left = socket.socket.connect, []

    def inside(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1"):
            left.append(address)
            raise OSError("not in tests")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", inside)
    yield
    assert not left


class Forecast(BaseModel):
    """An answer of a fixed form."""

    city: Literal["Paris", "Oslo"]
    degrees: Literal[-3, 14]


class Asked:
    """A tool that remembers what it was called with."""

    def __init__(self) -> None:
        self.cities: list[str] = []

        @agents.function_tool
        def get_weather(city: Literal["Paris", "Oslo"]) -> str:
            """The weather in a city.

            Args:
                city: The city.
            """
            self.cities.append(city)
            return f"{city}: 3 degrees, snow"

        self.tool = get_weather


def run(server: RunningServer, kind: str, *, stream: bool = False, **fields: Any) -> Any:
    """One run of an agent."""

    async def work() -> Any:
        async with async_openai_client(server) as client:
            agent: Any = agents.Agent(
                name="Weatherman", instructions="Be brief.", model=KINDS[kind]("default", client), **fields
            )
            if not stream:
                return await agents.Runner.run(agent, "What is the weather in Oslo?", max_turns=3)
            streamed = agents.Runner.run_streamed(agent, "What is the weather in Oslo?", max_turns=3)
            events = [event async for event in streamed.stream_events()]
            return streamed, events

    return asyncio.run(work())


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer(server: RunningServer, kind: str) -> None:
    result = run(server, kind)
    assert isinstance(result.final_output, str) and result.final_output
    usage = result.context_wrapper.usage
    assert (
        usage.requests == 1
        and usage.input_tokens > 5
        and usage.total_tokens == usage.input_tokens + usage.output_tokens
    )


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_tool_is_called_and_its_result_is_read(server: RunningServer, kind: str, stream: bool) -> None:
    """The framework lifts "required" after the first call, so the second turn is an answer in words."""
    asked = Asked()
    settings = agents.ModelSettings(tool_choice="required", parallel_tool_calls=False, max_tokens=60)
    found = run(server, kind, stream=stream, tools=[asked.tool], model_settings=settings)
    result, events = found if stream else (found, [])
    assert asked.cities and set(asked.cities) <= {"Paris", "Oslo"}
    outputs = [item.output for item in result.new_items if item.type == "tool_call_output_item"]
    assert outputs == [f"{city}: 3 degrees, snow" for city in asked.cities]
    assert isinstance(result.final_output, str) and result.context_wrapper.usage.requests == len(asked.cities) + 1
    if stream:
        deltas = [
            e.data
            for e in events
            if e.type == "raw_response_event" and e.data.type == "response.function_call_arguments.delta"
        ]
        assert "".join(d.delta for d in deltas) and {e.type for e in events} >= {
            "raw_response_event",
            "run_item_stream_event",
        }


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_of_a_form(server: RunningServer, kind: str, stream: bool) -> None:
    found = run(server, kind, stream=stream, output_type=Forecast, model_settings=agents.ModelSettings(temperature=1.5))
    result = found[0] if stream else found
    assert isinstance(result.final_output, Forecast)


@pytest.mark.parametrize("kind", KINDS)
def test_a_tool_and_a_form(server: RunningServer, kind: str) -> None:
    asked = Asked()
    settings = agents.ModelSettings(tool_choice="get_weather", max_tokens=200)
    result = run(server, kind, tools=[asked.tool], output_type=Forecast, model_settings=settings)
    assert asked.cities and isinstance(result.final_output, Forecast)

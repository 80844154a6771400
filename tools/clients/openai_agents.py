"""an agent calls a function, by chat completions and by responses; text streamed in pieces"""
# /// script
# dependencies = ["openai-agents"]
# ///

import asyncio
import os
from typing import Literal

from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI

set_tracing_disabled(True)


@function_tool
def weather(city: Literal["Oslo", "Paris"]) -> str:
    """The weather in a city."""
    return f"sun in {city}"


async def main() -> None:
    client = AsyncOpenAI(base_url=os.environ["AXPRESS_URL"] + "/v1", api_key="none", max_retries=0)
    for kind in (OpenAIChatCompletionsModel, OpenAIResponsesModel):
        model = kind(model="default", openai_client=client)
        asked = {"model": model, "tools": [weather], "tool_use_behavior": "stop_on_first_tool"}
        agent = Agent("Forecaster", model_settings=ModelSettings(tool_choice="required", max_tokens=100), **asked)
        answer = await Runner.run(agent, "The weather in Oslo?")
        assert answer.final_output in ("sun in Oslo", "sun in Paris"), answer
        stream = Runner.run_streamed(Agent("Teller", model=model), "Tell me a short story.")
        pieces = [event async for event in stream.stream_events() if event.type == "raw_response_event"]
        assert len(pieces) > 5 and stream.final_output, pieces


asyncio.run(main())

"""ChatOpenAI: streamed in pieces, with usage; a bound function called; a structured answer"""
# /// script
# dependencies = ["langchain-openai"]
# ///

import os
from typing import Literal

from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

model = ChatOpenAI(
    base_url=os.environ["AXPRESS_URL"] + "/v1", api_key="none", model="default", max_tokens=60, stream_usage=True
)


class Weather(BaseModel):
    """The weather somewhere."""

    city: Literal["Oslo", "Paris"]


@tool
def weather(city: Literal["Oslo", "Paris"]) -> str:
    """The weather in a city."""
    return city


chunks = list(model.stream("Tell me a short story."))
assert sum(bool(chunk.content) for chunk in chunks) > 3, chunks
assert any(chunk.usage_metadata and chunk.usage_metadata["output_tokens"] > 3 for chunk in chunks), chunks[-2:]
call = model.bind_tools([weather], tool_choice="required").invoke("The weather in Oslo?").tool_calls[0]
assert call["name"] == "weather" and call["args"]["city"] in ("Oslo", "Paris"), call
answer = model.with_structured_output(Weather, method="json_schema").invoke("The weather in Oslo?")
assert isinstance(answer, Weather), answer

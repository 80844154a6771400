"""Agent: text streamed in pieces, with usage; a typed answer"""
# /// script
# dependencies = ["pydantic-ai-slim[openai]"]
# ///

import asyncio
import os
from typing import Literal

from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

provider = OpenAIProvider(base_url=os.environ["AXPRESS_URL"] + "/v1", api_key="none")
model = OpenAIChatModel("default", provider=provider)


class Weather(BaseModel):
    """The weather somewhere."""

    city: Literal["Oslo", "Paris"]


async def main() -> None:
    async with Agent(model).run_stream("Tell me a short story.") as said:
        pieces = [piece async for piece in said.stream_text(delta=True, debounce_by=None)]
    assert len(pieces) > 3 and said.usage.output_tokens > 3, pieces
    answer = await Agent(model, output_type=Weather).run("The weather in Oslo?")
    assert isinstance(answer.output, Weather), answer


asyncio.run(main())

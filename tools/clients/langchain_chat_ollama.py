"""ChatOllama: streamed in pieces, with usage; a structured answer"""
# /// script
# dependencies = ["langchain-ollama"]
# ///

import os
from typing import Literal

from langchain_ollama import ChatOllama
from pydantic import BaseModel

model = ChatOllama(base_url=os.environ["AXPRESS_URL"], model="default", num_predict=60)


class Weather(BaseModel):
    """The weather somewhere."""

    city: Literal["Oslo", "Paris"]


chunks = list(model.stream("Tell me a short story."))
assert sum(bool(chunk.content) for chunk in chunks) > 3, chunks
assert any(chunk.usage_metadata and chunk.usage_metadata["output_tokens"] > 3 for chunk in chunks), chunks[-2:]
answer = model.with_structured_output(Weather, method="json_schema").invoke("The weather in Oslo?")
assert isinstance(answer, Weather), answer

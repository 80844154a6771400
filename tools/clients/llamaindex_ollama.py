"""Ollama: chat streamed in pieces; a structured answer"""
# /// script
# dependencies = ["llama-index-llms-ollama"]
# ///

import os
from typing import Literal

from llama_index.core.llms import ChatMessage
from llama_index.llms.ollama import Ollama
from pydantic import BaseModel


class Weather(BaseModel):
    """The weather somewhere."""

    city: Literal["Oslo", "Paris"]


model = Ollama(model="default", base_url=os.environ["AXPRESS_URL"], request_timeout=120, context_window=2047)
question = [ChatMessage(role="user", content="Tell me a short story.")]
parts = list(model.stream_chat(question))
assert sum(bool(part.delta) for part in parts) > 3, parts
answer = model.as_structured_llm(Weather).chat(question)
assert isinstance(answer.raw, Weather), answer

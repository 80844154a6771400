"""OpenAILike: chat streamed in pieces; a function called"""
# /// script
# dependencies = ["llama-index-llms-openai-like"]
# ///

import os
from typing import Literal

from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike

model = OpenAILike(
    model="default", api_base=os.environ["AXPRESS_URL"] + "/v1", api_key="none", is_chat_model=True, max_tokens=60,
    is_function_calling_model=True, context_window=2047,
)  # fmt: skip


def weather(city: Literal["Oslo", "Paris"]) -> str:
    """The weather in a city."""
    return f"sun in {city}"


parts = list(model.stream_chat([ChatMessage(role="user", content="Tell me a short story.")]))
assert sum(bool(part.delta) for part in parts) > 3, parts
said = model.predict_and_call([FunctionTool.from_defaults(weather)], "The weather in Oslo?", tool_choice="required")
assert said.response in ("sun in Oslo", "sun in Paris"), said

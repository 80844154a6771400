"""OpenAIServerModel: streamed in pieces; a tool call parsed, as its tool-calling agents use it"""
# /// script
# dependencies = ["smolagents[openai]"]
# ///

import os

from smolagents import ChatMessage, FinalAnswerTool, OpenAIServerModel

model = OpenAIServerModel("default", api_base=os.environ["AXPRESS_URL"] + "/v1", api_key="none", max_tokens=100)
story = [ChatMessage(role="user", content=[{"type": "text", "text": "Tell me a short story."}])]
deltas = list(model.generate_stream(story))
assert sum(bool(delta.content) for delta in deltas) > 3, deltas
called = model.generate(story, tools_to_call_from=[FinalAnswerTool()])
assert called.tool_calls[0].function.name == "final_answer", called

"""AzureOpenAI: a deployment of any name, streamed and whole; a function called"""
# /// script
# dependencies = ["openai"]
# ///

import json
import os

from openai import AzureOpenAI

client = AzureOpenAI(azure_endpoint=os.environ["AXPRESS_URL"], api_key="none", api_version="2024-10-21")
story = [{"role": "user", "content": "Tell me a short story."}]

chunks = client.chat.completions.create(model="gpt-4o", messages=story, max_tokens=30, stream=True)
pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
assert len(pieces) > 3, pieces
whole = client.chat.completions.create(model="gpt-4o", messages=story, max_tokens=30)
assert whole.choices[0].message.content and whole.usage.prompt_tokens > 5, whole

parameters = {"type": "object", "properties": {"city": {"enum": ["Oslo", "Paris"]}}, "required": ["city"]}
tool = {"type": "function", "function": {"name": "weather", "parameters": parameters}}
called = client.chat.completions.create(model="gpt-4o", messages=story, tools=[tool], tool_choice="required")
assert json.loads(called.choices[0].message.tool_calls[0].function.arguments)["city"] in ("Oslo", "Paris"), called

"""completion: streamed in pieces; usage; a function called; the same by its ollama_chat provider"""
# /// script
# dependencies = ["litellm"]
# ///

import json
import os

from litellm import completion

url, story = os.environ["AXPRESS_URL"], [{"role": "user", "content": "Tell me a short story."}]
openai = {"model": "openai/default", "api_base": url + "/v1", "api_key": "none", "messages": story, "max_tokens": 60}

pieces = [chunk.choices[0].delta.content for chunk in completion(**openai, stream=True)]
assert sum(map(bool, pieces)) > 3, pieces
parameters = {"type": "object", "properties": {"city": {"enum": ["Oslo", "Paris"]}}, "required": ["city"]}
tool = {"type": "function", "function": {"name": "weather", "parameters": parameters}}
called = completion(**openai, tools=[tool], tool_choice="required")
arguments = called.choices[0].message.tool_calls[0].function.arguments
assert json.loads(arguments)["city"] in ("Oslo", "Paris") and called.usage.prompt_tokens > 5, called
assert completion(model="ollama_chat/default", api_base=url, messages=story).choices[0].message.content

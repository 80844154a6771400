"""chat streamed in pieces, with usage; a function called; a parsed form; responses; completions; models"""
# /// script
# dependencies = ["openai", "pydantic"]
# ///

import json
import os

from openai import OpenAI
from pydantic import BaseModel

client = OpenAI(base_url=os.environ["AXPRESS_URL"] + "/v1", api_key="none", max_retries=0)
story = [{"role": "user", "content": "Tell me a short story."}]


class City(BaseModel):
    name: str
    people: int


chunks = list(
    client.chat.completions.create(
        model="default", messages=story, max_tokens=40, stream=True, stream_options={"include_usage": True}
    )
)
pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
assert len(pieces) > 3, pieces
assert 3 < chunks[-1].usage.completion_tokens <= 40, chunks[-1]

parameters = {"type": "object", "properties": {"city": {"enum": ["Oslo", "Paris"]}}, "required": ["city"]}
tool = {"type": "function", "function": {"name": "weather", "parameters": parameters}}
called = client.chat.completions.create(model="default", messages=story, tools=[tool], tool_choice="required")
call = called.choices[0].message.tool_calls[0]
assert call.function.name == "weather" and json.loads(call.function.arguments)["city"] in ("Oslo", "Paris"), call

parsed = client.chat.completions.parse(model="default", messages=story, response_format=City)
assert isinstance(parsed.choices[0].message.parsed, City), parsed

kinds = [event.type for event in client.responses.create(model="default", input="Hi", stream=True)]
assert kinds[-1] == "response.completed" and kinds.count("response.output_text.delta") > 1, kinds
assert client.completions.create(model="default", prompt="The", max_tokens=3).usage.completion_tokens == 3
assert client.models.list().data[0].object == "model"

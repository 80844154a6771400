"""messages streamed in pieces, with usage; a tool called; tokens counted"""
# /// script
# dependencies = ["anthropic"]
# ///

import os

from anthropic import Anthropic

client = Anthropic(base_url=os.environ["AXPRESS_URL"], api_key="none", max_retries=0)
story = [{"role": "user", "content": "Tell me a short story."}]

with client.messages.stream(model="default", max_tokens=40, messages=story) as stream:
    pieces = list(stream.text_stream)
    assert len(pieces) > 3 and stream.get_final_message().usage.output_tokens > 3, pieces

schema = {"type": "object", "properties": {"city": {"enum": ["Oslo", "Paris"]}}, "required": ["city"]}
asked = {"tools": [{"name": "weather", "input_schema": schema}], "tool_choice": {"type": "any"}}
called = client.messages.create(model="default", max_tokens=100, messages=story, **asked)
assert called.content[-1].type == "tool_use" and called.content[-1].input["city"] in ("Oslo", "Paris"), called
assert client.messages.count_tokens(model="default", messages=story).input_tokens > 5

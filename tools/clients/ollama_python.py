"""chat streamed in pieces, with counts; generate; an answer by a schema; list, show, ps"""
# /// script
# dependencies = ["ollama"]
# ///

import json
import os

from ollama import Client

client = Client(host=os.environ["AXPRESS_URL"])
story = [{"role": "user", "content": "Tell me a short story."}]

parts = list(client.chat("default", messages=story, stream=True, options={"num_predict": 40}))
assert sum(bool(part.message.content) for part in parts) > 3, parts
assert parts[-1].done and parts[-1].eval_count > 3, parts[-1]

assert client.generate("default", "Tell me a short story.", options={"num_predict": 5}).response

schema = {"type": "object", "properties": {"city": {"enum": ["Oslo", "Paris"]}}, "required": ["city"]}
answer = client.chat("default", messages=story, format=schema)
assert json.loads(answer.message.content)["city"] in ("Oslo", "Paris"), answer

name = client.list().models[0].model
assert client.show(name).details and client.ps().models[0].model == name

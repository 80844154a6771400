"""Chat completions with OpenAI's client, streamed, with what the answer cost.

python examples/openai_stream.py "What is 7 + 5?"
"""

import os
import sys

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1"),
    api_key=os.environ.get("OPENAI_API_KEY", "none"),
)

stream = client.chat.completions.create(
    model="default",  # whatever is served
    messages=[{"role": "user", "content": " ".join(sys.argv[1:]) or "Hello!"}],
    stream=True,
    stream_options={"include_usage": True},
    extra_body={"timings": True},
)
for chunk in stream:
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)
    if chunk.usage:
        timings = chunk.model_extra["timings"]
        print(f"\n\n{chunk.usage.prompt_tokens} tokens read, {chunk.usage.completion_tokens} written", end=" ")
        emulated = " (emulated)" if timings.get("emulated") else ""  # there is no card: not the speed of one
        print(f"at {timings['predicted_per_second'] or 0:.1f} tokens/s{emulated} ({chunk.model})")

"""An answer of a fixed form, as an object: the form is guaranteed by grammar, at any temperature.

python examples/structured.py "A hot day in Lagos"
"""

import os
import sys
from typing import Literal

from openai import OpenAI
from pydantic import BaseModel


class Weather(BaseModel):
    """What the answer is to hold."""

    city: Literal["Lagos", "Oslo", "Paris"]
    celsius: Literal[-3, 14, 31]
    umbrella: bool


client = OpenAI(
    base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1"),
    api_key=os.environ.get("OPENAI_API_KEY", "none"),
)
question = " ".join(sys.argv[1:]) or "A cold day in Oslo"

answer = client.chat.completions.parse(
    model="default", messages=[{"role": "user", "content": question}], response_format=Weather
)
print("chat completions:", answer.choices[0].message.parsed)

response = client.responses.parse(model="default", input=question, text_format=Weather)
print("responses:       ", response.output_parsed)

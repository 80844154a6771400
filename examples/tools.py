"""A model that calls a function: the loop of question, call, result and answer.

python examples/tools.py "What is the weather in Oslo?"

Arguments always match the function's schema, so they are read without a safety net.
"""

import json
import os
import sys

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1"),
    api_key=os.environ.get("OPENAI_API_KEY", "none"),
)

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather in a city right now.",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"enum": ["Lagos", "Oslo", "Paris"]},
                    "unit": {"enum": ["celsius", "fahrenheit"]},
                },
                "required": ["city", "unit"],
                "additionalProperties": False,
            },
        },
    }
]


def get_weather(city: str, unit: str) -> str:
    """What a real program would look up."""
    celsius = {"Lagos": 31, "Oslo": -3, "Paris": 14}[city]
    return f"{celsius} °C" if unit == "celsius" else f"{celsius * 9 / 5 + 32:.0f} °F"


def main() -> None:
    """Ask; do what the model calls for, until it answers in words."""
    messages = [{"role": "user", "content": " ".join(sys.argv[1:]) or "What is the weather in Oslo?"}]
    choice = "required"  # a toy model would not think of it by itself; "auto" leaves it to a model that does
    for _ in range(4):
        answer = client.chat.completions.create(
            model="default", messages=messages, tools=TOOLS, tool_choice=choice, max_tokens=200
        )
        message = answer.choices[0].message
        if not message.tool_calls:
            print(message.content)
            return
        messages.append(message)
        for call in message.tool_calls:
            arguments = json.loads(call.function.arguments)
            result = get_weather(**arguments)
            print(f"{call.function.name}({arguments}) -> {result}")
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
        choice = "none"


if __name__ == "__main__":
    main()

"""A program written for Azure: the endpoint is all that it takes to have it answered by axpress.

    AZURE_OPENAI_ENDPOINT=http://127.0.0.1:8000 python examples/azure_chat.py "What is 7 + 5?"

The deployment keeps the name that it has at Azure, and the key is whatever the server was given (anything, where it has
none)."""

import os
import sys

from openai import AzureOpenAI

ENDPOINT = os.environ.get("AZURE_OPENAI_ENDPOINT", "http://127.0.0.1:8000")
API_KEY = os.environ.get("AZURE_OPENAI_API_KEY", "none")
API_VERSION = "2024-06-01"
DEPLOYMENT = "gpt-4o"


def main() -> None:
    """Ask, and print the answer as it comes."""
    client = AzureOpenAI(azure_endpoint=ENDPOINT, api_key=API_KEY, api_version=API_VERSION)
    messages = [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": " ".join(sys.argv[1:]) or "Hello!"},
    ]
    answer = client.chat.completions.create(
        model=DEPLOYMENT, messages=messages, temperature=0, max_tokens=200, stream=True
    )
    for chunk in answer:
        if chunk.choices and chunk.choices[0].delta.content:
            print(chunk.choices[0].delta.content, end="", flush=True)
    print()


if __name__ == "__main__":
    main()

"""A program of Azure's client, unchanged but for its endpoint."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from server_process import RunningServer, openai_client

MESSAGES: list[Any] = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[openai.AzureOpenAI]:
    with openai.AzureOpenAI(
        azure_endpoint=server.url, api_key="secret", api_version="2024-06-01", max_retries=0
    ) as client:
        yield client


def test_embeddings_are_refused_by_name(server: RunningServer, client: openai.AzureOpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="makes no embeddings"):
        client.embeddings.create(model="anything", input="x")
    with openai_client(server) as plain, pytest.raises(openai.BadRequestError, match="no embeddings"):
        plain.embeddings.create(model="default", input="x")


def said(server: RunningServer) -> str:
    """What the demo model says to Hello."""
    text: str = server.post({"messages": MESSAGES})[2]["choices"][0]["message"]["content"]
    return text


@pytest.mark.parametrize("deployment", ["gpt-4o", "my deployment/2", "axpress-toy", "ünï"])
def test_any_deployment_is_the_model(server: RunningServer, client: openai.AzureOpenAI, deployment: str) -> None:
    answer = client.chat.completions.create(model=deployment, messages=MESSAGES)
    assert answer.choices[0].message.content == said(server) and answer.model == "axpress-toy"


def test_streams(server: RunningServer, client: openai.AzureOpenAI) -> None:
    chunks = client.chat.completions.create(model="gpt-4o", messages=MESSAGES, stream=True)
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == said(server)

    async def later() -> str:
        async with openai.AsyncAzureOpenAI(azure_endpoint=server.url, api_key="k", api_version="2024-10-21") as api:
            parts = await api.chat.completions.create(model="gpt-4o", messages=MESSAGES, stream=True)
            return "".join([c.choices[0].delta.content or "" async for c in parts])

    assert asyncio.run(later()) == said(server)


def test_a_deployment_named_by_the_client(server: RunningServer) -> None:
    fields: Any = {
        "azure_endpoint": server.url + "/",
        "azure_deployment": "chat",
        "api_key": "k",
        "api_version": "2025-01-01-preview",
    }
    with openai.AzureOpenAI(**fields, max_retries=0) as client:
        assert client.chat.completions.create(model="other", messages=MESSAGES).choices[0].message.content == said(
            server
        )
        assert client.completions.create(model="other", prompt="Once").choices[0].text
        assert client.responses.create(model="other", input="Hello").output_text == said(server)
        assert [one.id for one in client.models.list()] == ["axpress-toy"]
        with pytest.raises(openai.NotFoundError, match="nothing is stored"):
            client.responses.retrieve("resp_1")


def test_the_v1_paths(server: RunningServer) -> None:
    with openai.OpenAI(base_url=server.url + "/openai/v1/", api_key="k", max_retries=0) as client:
        assert client.chat.completions.create(model="gpt-4o", messages=MESSAGES).choices[0].message.content == said(
            server
        )
        assert client.responses.create(model="gpt-4o", input="Hello").output_text == said(server)
        assert client.completions.create(model="gpt-4o", prompt="Once").choices[0].text
        assert len(client.models.list().data) == 1


@pytest.mark.parametrize("query", ["", "?api-version=", "?api-version=2099-01-01"])
def test_any_version_or_none(server: RunningServer, query: str) -> None:
    body = json.dumps({"messages": MESSAGES}).encode()
    path = "/openai/deployments/x/chat/completions" + query
    status, _, raw = server.request("POST", path, body, {"content-type": "application/json", "api-key": "k"})
    assert status == 200 and json.loads(raw)["choices"][0]["message"]["content"] == said(server)


def test_errors_are_the_clients_own(client: openai.AzureOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(model="gpt-4o", messages=MESSAGES, temperature=3)
    assert raised.value.param == "temperature"
    with pytest.raises(openai.NotFoundError):
        client.images.generate(model="dall-e-3", prompt="a")


def test_a_model_that_is_no_name_is_still_refused(server: RunningServer) -> None:
    body = json.dumps({"messages": MESSAGES, "model": 5}).encode()
    path = "/openai/deployments/x/chat/completions"
    status, _, raw = server.request("POST", path, body, {"content-type": "application/json"})
    assert status == 400 and json.loads(raw)["error"]["param"] == "model"

"""OpenAI's API under Azure's paths, so that a program of AzureOpenAI works here when its endpoint is changed.

There the path (below /openai/v1 the body) names a deployment, by a name of the program's own making. Here is one model:
whatever the deployment is called, that model answers, and answers carry its name. api-version is read by nobody."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Self

from sanic import Blueprint
from sanic.request import Request
from sanic.response import HTTPResponse

from ..docs.routes import reads
from ..monitor.health import model_list
from ..serving.handler import answer
from .chat import ChatDialect
from .completions import CompletionDialect
from .responses import ResponsesDialect, not_stored

azure = Blueprint("azure")


class AzureChat(ChatDialect):
    """Chat completions; the deployment answers, whatever the body calls the model."""

    @classmethod
    def read(cls, document: Any) -> Self:
        return _of_deployment(super().read(document))


class AzureCompletion(CompletionDialect):
    """Plain completions; the deployment answers, whatever the body calls the model."""

    @classmethod
    def read(cls, document: Any) -> Self:
        return _of_deployment(super().read(document))


class AzureResponses(ResponsesDialect):
    """Responses; the deployment answers, whatever the body calls the model."""

    @classmethod
    def read(cls, document: Any) -> Self:
        return _of_deployment(super().read(document))


def _of_deployment(dialect: Any) -> Any:
    dialect.spec = replace(dialect.spec, model=None)
    return dialect


@azure.post("/openai/deployments/<deployment:str>/chat/completions", stream=True, name="deployment_chat")
@azure.post("/openai/v1/chat/completions", stream=True, name="chat")
async def azure_chat(request: Request, deployment: str = "") -> HTTPResponse | None:
    """Answer a conversation."""
    return await answer(request, AzureChat)


@azure.post("/openai/deployments/<deployment:str>/completions", stream=True, name="deployment_completions")
@azure.post("/openai/v1/completions", stream=True, name="completions")
async def azure_completions(request: Request, deployment: str = "") -> HTTPResponse | None:
    """Go on from prompts."""
    return await answer(request, AzureCompletion)


@azure.post("/openai/responses", stream=True, name="responses")
@azure.post("/openai/v1/responses", stream=True, name="v1_responses")
async def azure_responses(request: Request) -> HTTPResponse | None:
    """Answer a conversation."""
    return await answer(request, AzureResponses)


@azure.route("/openai/responses/<name:str>", methods=["GET", "HEAD", "DELETE"], name="response")
@azure.route("/openai/v1/responses/<name:str>", methods=["GET", "HEAD", "DELETE"], name="v1_response")
async def azure_stored(request: Request, name: str) -> HTTPResponse:
    """No response is ever found: none is stored."""
    raise not_stored(name)


@reads(azure, "/openai/models", name="models")
@reads(azure, "/openai/v1/models", name="v1_models")
async def azure_models(request: Request) -> HTTPResponse:
    """The one model that is served."""
    return model_list(request)

"""OpenAI's API under Azure's paths, so that a program of AzureOpenAI works here when its endpoint is changed.

There the path (below /openai/v1 the body) names a deployment, by a name of the program's own making. Here is one model:
whatever the deployment is called, that model answers, and answers carry its name. api-version is read by nobody."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..http.routing import Handler, Route
from ..serving.dialect import Dialect
from ..serving.handler import Reader
from ..serving.model_names import ModelNames


def azure(route: Route, handler: Handler, *paths: str) -> list[Route]:
    """One of OpenAI's routes under Azure's paths."""
    query = ("api-version", *route.query)
    not_found = route.not_found if "{" in route.path else None
    return [
        replace(route, path=path, handler=handler, group="Azure", not_found=not_found, query=query) for path in paths
    ]


def of_deployment(dialect: type[Dialect]) -> Reader:
    """Reads requests in this dialect, whatever the body calls the model."""

    def read(document: Any, names: ModelNames, **more: Any) -> Dialect:
        request = dialect.read(document, names, **more)
        request.spec = replace(request.spec, model=None)
        return request

    return read

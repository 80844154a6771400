"""What schemathesis needs to know of this server (SCHEMATHESIS_HOOKS=fuzz_hooks): answers must end soon, streams are judged event by
event, and who got which status is counted in the file that AXPRESS_FUZZ_COUNTS names.
"""

from __future__ import annotations

import atexit
import json
import os
from collections import Counter
from typing import Any

import schemathesis
from api_document import JSON, ApiDocument

MOST_TOKENS = 6
LIMITS = {  # path: where a request says how long its answer may get
    "/v1/chat/completions": ("max_tokens", "max_completion_tokens"),
    "/v1/completions": ("max_tokens",),
    "/v1/responses": ("max_output_tokens",),
    "/openai/deployments/{name}/chat/completions": ("max_tokens", "max_completion_tokens"),
    "/openai/deployments/{name}/completions": ("max_tokens",),
    "/api/chat": ("num_predict",),
    "/api/generate": ("num_predict",),
}
counts: Counter[tuple[str, str, int]] = Counter()
documents: dict[int, ApiDocument] = {}


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Cases are sent as they were made, but for these: answers end after a few tokens, and the model is the one that is served."""
    body, names = case.body, LIMITS.get(case.operation.path)
    if not isinstance(body, dict):
        return
    if names is not None:
        holder = body
        if names == ("num_predict",):
            if body.get("options") is None:
                body["options"] = {}
            holder = body["options"]
        if isinstance(holder, dict):
            _bound(holder, names)
    if is_positive(case) and isinstance(body.get("model"), str):
        body["model"] = "default"


def _bound(holder: dict[str, Any], names: tuple[str, ...]) -> None:
    if all(holder.get(name) is None for name in names):
        holder[names[0]] = MOST_TOKENS
    for name in names:
        value = holder.get(name)
        if type(value) is int and (MOST_TOKENS < value < 2**31 or (value in (-1, -2) and name == "num_predict")):
            holder[name] = MOST_TOKENS


def is_positive(case: Any) -> bool:
    """Whether a case was made to be good."""
    meta = getattr(case, "meta", None)
    return meta is not None and str(meta.generation.mode).lower().endswith("positive")


@schemathesis.hook
def after_call(context: Any, case: Any, response: Any) -> None:
    """Counts."""
    counts[case.operation.method.upper(), case.operation.path, response.status_code] += 1


@schemathesis.check
def streams_conform(context: Any, response: Any, case: Any) -> None:
    """Every event or line of a stream is one that the document has, and the stream is whole."""
    kind = response.headers.get("content-type", [""])[0].partition(";")[0]
    if kind in (JSON, "") or response.status_code != 200:
        return
    raw = case.operation.schema.raw_schema
    document = documents.setdefault(id(raw), ApiDocument(raw))
    headers = {name.lower(): values[0] for name, values in response.headers.items()}
    document.check(case.operation.method, case.operation.path, response.status_code, headers, response.content)


@atexit.register
def _write() -> None:
    if path := os.environ.get("AXPRESS_FUZZ_COUNTS"):
        with open(path, "w") as file:
            json.dump([[*key, count] for key, count in sorted(counts.items())], file)

"""What schemathesis needs to know of this server (SCHEMATHESIS_HOOKS=fuzz_hooks): answers must end soon, streams are
judged event by event, and who got which status is counted in the file that AXPRESS_FUZZ_COUNTS names."""

from __future__ import annotations

import atexit
import json
import os
import zlib
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
    "/v1/messages": ("max_tokens",),
    "/api/chat": ("num_predict",),
    "/api/generate": ("num_predict",),
}
DELICATE = (
    "guided_json", "guided_regex", "guided_choice", "guided_grammar", "structured_outputs", "response_format", "text",
    "format",
    "output_config", "thinking", "suffix", "previous_response_id",
    "logit_bias", "best_of", "echo", "stream_options", "top_logprobs", "prediction", "tools", "tool_choice",
    "functions", "function_call",
    "think", "raw", "reasoning", "reasoning_effort", "thinking_budget", "chat_template_kwargs", "max_completion_tokens",
)  # fmt: skip
"""Fields that go with some others only, or must be more than a schema can say: few of them at a time."""
counts: Counter[tuple[str, str, int]] = Counter()
documents: dict[int, ApiDocument] = {}


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Cases are sent as they were made, but that answers end after a few tokens, and that good ones are good for this
    server."""
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
    if is_positive(case):
        _befriend(body, case.operation.path)


def _bound(holder: dict[str, Any], names: tuple[str, ...]) -> None:
    if all(holder.get(name) is None for name in names):
        holder[names[0]] = MOST_TOKENS
    for name in names:
        value = holder.get(name)
        if type(value) is int and (MOST_TOKENS < value < 2**31 or (value in (-1, -2) and name == "num_predict")):
            holder[name] = MOST_TOKENS


def _befriend(body: dict[str, Any], path: str) -> None:
    """What no schema can say: the served model, ids that it has, and not too many fields that exclude each other."""
    if isinstance(body.get("model"), str):
        body["model"] = "default"
    for name in ("prompt", "tokens"):
        if name in body:
            body[name] = _known(body[name])
    if path == "/tokenize":  # takes one of them
        for name in [one for one in ("prompt", "content", "messages") if body.get(one) is not None][1:]:
            del body[name]
    seed = json.dumps(body, sort_keys=True, default=str)
    for name in DELICATE:
        if name in body and zlib.crc32(f"{name} {seed}".encode("utf-8", "replace")) % 4:
            del body[name]


def _known(value: Any) -> Any:
    if isinstance(value, list):
        return [_known(one) for one in value]
    return abs(value) % 256 if type(value) is int else value


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

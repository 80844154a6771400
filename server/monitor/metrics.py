"""GET /metrics: counters and gauges for Prometheus, under vLLM's names where it has one, else axpress_*.

Nothing is counted for it token by token: it reads what engine and requests count for themselves."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any, Literal

from sanic.request import Request
from sanic.response import HTTPResponse

from .. import version
from ..serving.answer_metrics import AnswerMetrics, Histogram, ModelAnswers
from ..serving.engine_service import Service
from ..serving.watched_card import WatchedCard
from .exposition import CONTENT_TYPE, Labels, Sample, family, histograms

STATES = ("loading", "ready", "recovering", "hot", "stalled", "draining", "failed", "closed")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_VLLM_COUNTERS = (
    ("vllm:prompt_tokens_total", "prompt_tokens", "Tokens of prompts of answers that ended"),
    ("vllm:generation_tokens_total", "generated_tokens", "Tokens of answers that ended"),
    ("vllm:prefix_cache_queries_total", "prompt_tokens", "Tokens looked for in the cache"),
    ("vllm:prefix_cache_hits_total", "cached_tokens", "Tokens found in the cache"),
    ("vllm:num_preemptions_total", "preemptions", "Answers that gave their rows back for others and went on later"),
    ("vllm:spec_decode_num_draft_tokens_total", "drafted_tokens", "Tokens guessed"),
    ("vllm:spec_decode_num_accepted_tokens_total", "accepted_draft_tokens", "Tokens guessed that came true"),
)
_COUNTERS = (
    ("axpress_chunk_tokens_total", "chunk_queries", "Tokens carried by chunk passes"),
    ("axpress_heads_total", "heads", "Rows of logits computed"),
    ("axpress_evicted_rows_total", "evicted_rows", "Rows of cached prefixes given up for others"),
    ("axpress_moved_rows_total", "moved_rows", "Rows copied on the card to make passes cheaper"),
    ("axpress_encoded_images_total", "encoded_images", "Pictures that the vision encoder looked at"),
)
_GAUGES = (
    ("axpress_rows", "rows", "Rows of the caches"),
    ("axpress_rows_used", "rows_used", "Rows that hold something, cached prefixes included"),
    ("axpress_seconds_since_pass", "seconds_since_progress", "Seconds since the last pass over the card ended"),
)
_HISTOGRAMS: dict[str, tuple[str, Callable[[ModelAnswers], Histogram]]] = {
    "vllm:time_to_first_token_seconds": ("Until the first token, waiting included", lambda one: one.first_token),
    "vllm:inter_token_latency_seconds": ("Between tokens: an answer's mean, once a gap", lambda one: one.token_gap),
    "vllm:e2e_request_latency_seconds": ("Until the last token, waiting included", lambda one: one.whole),
    "vllm:request_queue_time_seconds": ("Until the first pass", lambda one: one.queue),
    "vllm:request_prompt_tokens": ("Tokens of prompts", lambda one: one.prompt_tokens),
    "vllm:request_generation_tokens": ("Tokens of answers", lambda one: one.generated_tokens),
}
_OF_MODELS = (
    ("axpress_model_loads_total", "num_loads", "Times that a model came onto the card"),
    ("axpress_model_load_seconds", "load_seconds", "Seconds that it took the last time"),
    ("axpress_model_card_bytes", "card_bytes", "Of the card's memory that a model takes"),
    ("axpress_model_waiting_for_load", "waiting_for_load", "Requests that wait until a model is loaded"),
)
_OF_CARDS = (("axpress_card_ready", "status", "1: one of several cards that serves"),)
CARD_METRICS = (
    ("axpress_card_temperature_celsius", "temperature_c", "At the chip"),
    ("axpress_card_cmm_bytes", "total_cmm", "The card's memory for models"),
    ("axpress_card_cmm_free_bytes", "free_cmm", "Of it free"),
    ("axpress_card_npu_load", "npu_load", "As the card reports it"),
    ("axpress_card_cpu_load", "cpu_load", "Of the card's processors, as it reports it"),
    ("axpress_card_link_gts", "link_gts", "Speed of its PCI Express link, GT/s"),
    ("axpress_card_link_lanes", "link_width", "Lanes of that link"),
    ("axpress_host_undervoltage", "undervoltage", "1: the Raspberry Pi has too little voltage now"),
    ("axpress_host_throttled", "throttled", "1: the Raspberry Pi runs slower, for its voltage or its heat"),
)


def metrics(service: Service) -> str:
    """All of them, as text."""
    health = service.health()[1]
    stats, model = health.get("stats"), {"model_name": health["model"]}
    if service.pool is None and health["model"]:
        service.answers.of(health["model"])  # it is there from the start
    parts = [*_server(health, service.answers), *_process(), *_answers(service.answers)]
    if stats is not None:
        parts += _engines(health, [(model, {}, stats)])
    elif service.pool is not None:
        loaded = [one for one in health["models"] if "stats" in one]
        labels = [{"model_name": one["name"]} for one in loaded]
        parts += _engines(health, [(name, name, one["stats"]) for name, one in zip(labels, loaded, strict=True)])
        parts += _models(health["models"])
    if "cards" in health:
        parts += _cards_health(health["cards"])
    parts += _cards(service.cards)
    return "".join(parts)


def _gauge(name: str, text: str, value: float, labels: Labels | None = None) -> str:
    return family("gauge", name, text, [(labels or {}, value)])


def _server(health: dict[str, Any], answers: AnswerMetrics) -> Iterator[str]:
    told = {name: str(health.get(name, "")) for name in ("model", "device", "runtime", "emulated", "profile")}
    yield _gauge("axpress_build_info", "What runs here", 1, {"version": version(), **told})
    states = [({"state": name}, int(name == health["status"])) for name in dict.fromkeys((*STATES, health["status"]))]
    yield family("gauge", "axpress_state", "1 for the state it is in, as /health says it", states)
    yield _gauge("axpress_state_seconds", "Seconds since that state began", health["since_seconds"])
    yield _gauge("axpress_uptime_seconds", "Seconds since the server started", health["uptime_seconds"])
    yield _gauge("axpress_requests_open", "Requests on their way", health["num_answers"])
    responses = [({"route": r, "status": str(status)}, n) for (r, status), n in answers.responses.items()]
    yield family("counter", "axpress_responses_total", "Responses sent", responses)


def _process() -> Iterator[str]:
    times = os.times()
    cpu = round(times.user + times.system, 2)
    yield family("counter", "process_cpu_seconds_total", "Seconds of processors used", [({}, cpu)])
    try:
        with open("/proc/self/statm", "rb") as statm:
            memory = int(statm.read().split()[1]) * _PAGE
        yield _gauge("process_resident_memory_bytes", "Resident memory", memory)
        yield _gauge("process_open_fds", "Open descriptors", len(os.listdir("/proc/self/fd")))
    except OSError:
        pass  # no /proc here


def _answers(answers: AnswerMetrics) -> Iterator[str]:
    models = [({"model_name": name}, one) for name, one in answers.models.items()]
    reasons = [({**model, "finished_reason": why}, n) for model, one in models for why, n in one.reasons.items()]
    yield family("counter", "vllm:request_success_total", "Answers that ended, by how", reasons)
    failures = [({"kind": kind}, count) for kind, count in answers.failures.items()]
    yield family("counter", "axpress_failures_total", "Answers that failed, by kind", failures)
    for name, (text, values_of) in _HISTOGRAMS.items():
        values = [(model, values_of(one)) for model, one in models]
        yield histograms(name, text, [(model, one.buckets(), one.total) for model, one in values])


Engines = list[tuple[Labels, Labels, dict[str, Any]]]
"""Of each engine: its labels for vLLM's metrics, for ours (none where it is the only one), and its counts."""


def _engines(health: dict[str, Any], engines: Engines) -> Iterator[str]:
    def used(stats: dict[str, Any]) -> float:
        return float(stats["rows_used"] / max(1, stats["rows"]))

    def of(key: str) -> list[Sample]:
        return [(model, stats[key]) for model, _, stats in engines]

    def ours(key: str) -> list[Sample]:
        return [(own, stats[key]) for _, own, stats in engines]

    text = "Rows used, of 1; idle cached prefixes count too"
    yield family("gauge", "vllm:num_requests_running", "Answers that have rows", of("num_running"))
    yield family("gauge", "vllm:num_requests_waiting", "Answers that wait for rows", of("num_waiting"))
    yield family("gauge", "vllm:kv_cache_usage_perc", text, [(model, used(stats)) for model, _, stats in engines])
    yield _gauge("axpress_max_running", "Answers that may have rows", health["max_running"])
    yield _gauge("axpress_max_queue", "Answers that may wait", health["max_queue"])
    for name, key, text in _VLLM_COUNTERS:
        yield family("counter", name, text, of(key))
    for name, key, text in _COUNTERS:
        yield family("counter", name, text, ours(key))
    cards = [({"card": card["name"]}, card) for card in health.get("cards", ()) if "stats" in card]
    for name, key, text in _GAUGES:
        by_card = [(label, card["stats"][key]) for label, card in cards]
        yield family("gauge", name, text, by_card or ours(key))
    passes = [({**own, "kind": kind}, st[f"{kind}_passes"]) for _, own, st in engines for kind in ("decode", "chunk")]
    yield family("counter", "axpress_passes_total", "Passes over the card, by kind", passes)
    seconds = [
        ({**own, "kind": kind}, round(value, 6))
        for _, own, stats in engines
        for kind, value in stats["seconds"].items()
    ]
    yield family("counter", "axpress_pass_seconds_total", "Seconds of passes and of what lies between them", seconds)
    for name, key, label, text in (
        ("axpress_recoveries_total", "rungs", "rung", "Times that the card was brought back, by what helped"),
        ("axpress_card_faults_total", "faults", "kind", "Failures of the card, by kind"),
    ):
        told = cards or [({}, health)]
        yield family("counter", name, text, [
            ({**card, label: of}, n) for card, one in told for of, n in one.get("recoveries", {}).get(key, {}).items()
        ])  # fmt: skip
    widths = [
        ({**own, "of": of}, value)
        for _, own, stats in engines
        for of, value in zip(("tokens", "answers"), _means(stats["widths"]), strict=True)
    ]
    yield family("gauge", "axpress_pass_width", "Of the latest passes, the mean of what one carried", widths)


def _models(models: list[dict[str, Any]]) -> Iterator[str]:
    """Where models come and go; of those that are on the card, or waited for."""
    for name, key, text in _OF_MODELS:
        kind: Literal["counter", "gauge"] = "counter" if name.endswith("_total") else "gauge"
        yield family(kind, name, text, [({"model_name": one["name"]}, one[key]) for one in models])


def _cards_health(cards: list[dict[str, Any]]) -> Iterator[str]:
    """Where there are several."""
    for name, key, text in _OF_CARDS:
        yield family("gauge", name, text, [({"card": card["name"]}, int(card[key] == "ready")) for card in cards])


def _cards(cards: list[WatchedCard]) -> Iterator[str]:
    """What they say of themselves; of several with their names."""
    labels = [({"card": card.name} if card.name else {}, card) for card in cards]
    told = [(label, report) for label, card in labels if (report := card.report) is not None]
    for name, key, text in CARD_METRICS:
        known = [(label, report[key]) for label, report in told if report[key] is not None]
        if known:
            yield family("gauge", name, text, [(o, int(v) if isinstance(v, bool) else v) for o, v in known])
    if told:
        text = "Share of time in which it may work, for its heat"
        yield family("gauge", "axpress_card_duty", text, [(label, card.duty) for label, card in labels])


def _means(widths: list[tuple[int, int]]) -> tuple[float, float]:
    count = max(1, len(widths))
    return sum(tokens for tokens, _ in widths) / count, sum(answers for _, answers in widths) / count


async def get_metrics(request: Request) -> HTTPResponse:
    """Counters and gauges, as Prometheus reads them."""
    body = metrics(request.app.ctx.service).encode()
    return HTTPResponse(body, headers={"cache-control": "no-store"}, content_type=CONTENT_TYPE)

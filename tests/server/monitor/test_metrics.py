"""/metrics, /livez, /readyz: what Prometheus and orchestrators read."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from server_process import RunningServer, chat, note_exits

from axpress.core.request import Delta, Spent
from axpress.server.monitor.exposition import family
from axpress.server.monitor.metrics import metrics
from axpress.server.serving.answer_metrics import ModelAnswers
from axpress.server.serving.canary import Canary
from axpress.server.serving.engine_service import Service
from axpress.server.settings import Settings

VLLM = """num_requests_running num_requests_waiting kv_cache_usage_perc prompt_tokens_total generation_tokens_total
request_success_total prefix_cache_queries_total prefix_cache_hits_total time_to_first_token_seconds_bucket
inter_token_latency_seconds_bucket e2e_request_latency_seconds_bucket request_queue_time_seconds_bucket
request_prompt_tokens_bucket request_generation_tokens_bucket"""


def read(text: str) -> dict[str, dict[tuple[str, ...], float]]:
    """By name: values by labels."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for metric in text_string_to_metric_families(text):
        for sample in metric.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


def test_what_prometheus_reads(server: RunningServer) -> None:
    before = read(server.request("GET", "/metrics")[2].decode())
    for number in range(3):
        assert server.post(chat(f"number {number}", max_tokens=5, ignore_eos=True))[0] == 200
    assert server.post(chat(max_tokens=-5))[0] == 400
    server.wait(server.idle, 30, "idle")
    status, head, raw = server.request("GET", "/metrics")
    now = read(raw.decode())
    assert status == 200 and head["content-type"].startswith("text/plain; version=0.0.4")
    assert not [name for name in VLLM.split() if f"vllm:{name}" not in now]

    def grown(name: str, *labels: str) -> float:
        return now[name][labels] - before[name].get(labels, 0.0)

    model = server.health()[1]["model"]
    assert grown("vllm:generation_tokens_total", model) == 15
    assert grown("vllm:request_generation_tokens_sum", model) == 15
    assert grown("vllm:request_generation_tokens_count", model) == 3
    assert grown("vllm:inter_token_latency_seconds_count", model) == 12
    assert grown("vllm:request_success_total", model, "length") == 3
    assert grown("vllm:time_to_first_token_seconds_bucket", model, "+Inf") == 3
    assert grown("axpress_responses_total", "/v1/chat/completions", "200") == 3
    assert grown("axpress_responses_total", "/v1/chat/completions", "400") == 1
    stats = server.stats()
    assert now["axpress_passes_total"]["decode",] == stats["decode_passes"]
    assert now["axpress_state"]["ready",] == 1 and sum(now["axpress_state"].values()) == 1
    assert "True" in next(iter(now["axpress_build_info"]))  # emulated, and it says so


def test_labels_stay_few_whatever_clients_send(server: RunningServer) -> None:
    def lines() -> int:
        return server.request("GET", "/metrics")[2].count(b"\n")

    server.request("GET", "/nowhere/at/all")
    server.post(chat(model="nope", max_tokens=1))
    before = lines()
    for number in range(20):
        server.request("GET", f"/nowhere/{number}")
        server.request("GET", f"/v1/models/{number}")
        server.post(chat(model=f"model {number}", max_tokens=1))
    assert lines() <= before + 1


def test_what_an_answer_is_counted_as() -> None:
    answers = ModelAnswers()
    spent = Spent(10, 5, queue_s=0.2, first_token_s=1.0, total_s=3.0)
    answers.add(Delta("", 1, "stop", spent=spent))
    answers.add(None)
    answers.add(Delta("", 0, "cancelled"))
    assert answers.reasons == {"stop": 1, "abort": 2, "length": 0, "error": 0}
    assert dict(answers.token_gap.buckets())["0.5"] == 4 and answers.token_gap.total == pytest.approx(2.0)
    assert answers.first_token.buckets()[-1] == ("+Inf", 1)


def test_label_values_are_escaped() -> None:
    text = family("gauge", "x", "help", [({"model_name": 'a"b\\c\nd'}, 1)])
    assert next(iter(read(text)["x"])) == ('a"b\\c\nd',)


def test_probes_say_a_word_each(server: RunningServer) -> None:
    for path, word in (("/livez", b"alive"), ("/readyz", b"ready")):
        status, _, raw = server.request("GET", path)
        assert status == 200 and raw == b'{"status":"%b"}\n' % word
    body = server.health()[1]
    assert body["status"] == "ready" and 0 <= body["since_seconds"] <= body["uptime_seconds"]


def test_an_idle_card_is_asked_for_a_token_and_one_that_fails_is_told() -> None:
    async def main() -> None:
        service = Service(Settings(profile="none"))
        canary = Canary(service)
        assert not await canary.alive()
        await service.start()
        engine = service.ready().engine
        assert await canary.alive()
        before = engine.stats()["steps"]
        engine.scheduler.counters.last_progress = time.monotonic() - 1000
        assert await asyncio.gather(canary.alive(), canary.alive()) == [True, True]
        assert engine.stats()["steps"] == before + 1
        while engine.stats()["num_running"]:
            await asyncio.sleep(0.001)
        engine.scheduler.counters.last_progress = time.monotonic() - 1000

        def fails() -> None:
            raise RuntimeError("a card that is gone")

        engine.scheduler.run_pass = fails  # type: ignore[method-assign]
        assert not await canary.alive()
        assert service.condition()[0] == "failed" and 'state="failed"} 1' in metrics(service)
        await service.stop()

    asyncio.run(asyncio.wait_for(main(), 60))


def test_a_dead_engine_is_alive_but_not_ready(tmp_path: Path) -> None:
    faults = {"AXPRESS_EMU_FAULTS": "device=dead@30"}
    note_exits(tmp_path, 3)  # so that this one stays
    options = ("--emu-profile", "none", "--state-dir", tmp_path)
    with RunningServer(*options, environment=faults, ready=False, check=False) as server:
        server.wait(lambda: server.health()[1]["status"] == "failed", 30, "failed")
        assert server.request("GET", "/livez")[0] == 200
        status, _, raw = server.request("GET", "/readyz")
        assert (status, raw) == (503, b'{"status":"failed"}\n')
        server.wait(lambda: "failed after" in server.log, 10, "told in the log")

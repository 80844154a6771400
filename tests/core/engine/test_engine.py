"""The engine on the emulated card: what a request gets, and that nothing a client does disturbs another."""

from __future__ import annotations

import time

import pytest
from collecting import GREEDY, Collector, Held, ask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_models import Tiny, convert_tiny

from axpress.core.device.backend import Costs
from axpress.core.engine.engine import Engine
from axpress.core.errors import ContextOverflow, RequestError
from axpress.core.request import GenerationRequest, SamplingParams

ROWS = 255


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    folder = tmp_path_factory.mktemp("engine")
    return convert_tiny(folder, Tiny("qwen3", layers=2), rows=ROWS, chunk=64, history=[0, 64, 128])


@pytest.fixture(scope="module")
def engine(package):
    engine = Engine.open(package, "emu", "none", max_queue=4)
    yield engine
    engine.close()


def test_an_answer_has_its_tokens_and_its_end(engine: Engine) -> None:
    answer = ask(engine)
    assert (answer.reason, answer.num_tokens) == ("length", 20)
    assert all(d.finish_reason is None for d in answer.deltas[:-1])
    assert engine.stats()["num_running"] == 0


def test_the_same_seed_gives_the_same_answer_and_another_another(engine: Engine) -> None:
    texts = [ask(engine, params=SamplingParams(temperature=1.5, seed=seed)).text for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_stop_strings_end_and_are_not_part_of_the_answer(engine: Engine) -> None:
    whole = ask(engine, max_tokens=30)
    stop = whole.text[7:11]
    answer = ask(engine, max_tokens=30, stop=("\0never\0", stop))
    assert answer.reason == "stop"
    assert answer.text == whole.text[: whole.text.index(stop)]
    assert answer.num_tokens < 30


def test_end_tokens_end_unless_ignored(engine: Engine) -> None:
    (eos, *_) = sorted(engine.text.eos_ids)
    bias = {eos: 100.0}
    answer = ask(engine, params=SamplingParams(temperature=0, logit_bias=bias), ignore_eos=False)
    assert (answer.reason, answer.num_tokens, answer.text) == ("stop", 1, "")
    assert ask(engine, params=SamplingParams(temperature=0, logit_bias=bias), max_tokens=3).reason == "length"


def test_log_probabilities_come_with_each_token(engine: Engine) -> None:
    answer = ask(engine, params=SamplingParams(temperature=0, logprobs=3), max_tokens=5)
    pairs = [p for d in answer.deltas for p in d.logprobs]
    assert len(pairs) == 5
    assert all(len(p.top) == 3 and p.top[0] == (p.token, p.logprob) and p.logprob <= 0 for p in pairs)


def test_the_last_pass_of_a_prediction_is_counted_too(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    costs = engine.scheduler.costs
    measured = Costs(tuple(costs.seconds), costs.head, costs.copy)
    monkeypatch.setattr(costs, "observe", lambda *_: None)
    costs.set(Costs((1.0,) * len(costs.groups), costs.head, costs.copy))  # so that guesses always pay
    fields = {"prompt_ids": [7, 8, 9], "params": SamplingParams(temperature=0, logprobs=0), "ignore_eos": True}
    for size in (3, 8, 30):  # one pass, or several
        plain, guided = Collector(), Collector()
        engine.submit(GenerationRequest(**fields, max_tokens=size), plain)
        told = [p.token for d in plain.wait().deltas for p in d.logprobs]
        before = engine.stats()
        engine.submit(GenerationRequest(**fields, max_tokens=size, prediction=tuple(told)), guided)
        spent = guided.wait().deltas[-1].spent
        while engine.stats()["num_running"]:  # counted before its place is given up
            time.sleep(0.001)
        drafted, accepted = (
            engine.stats()[name] - before[name] for name in ("drafted_tokens", "accepted_draft_tokens")
        )
        assert [p.token for d in guided.deltas for p in d.logprobs] == told
        assert spent.rejected_prediction_tokens == 0
        assert spent.accepted_prediction_tokens == drafted == accepted > 0
    monkeypatch.undo()
    costs.set(measured)


def test_the_context_can_be_filled_to_the_last_row(engine: Engine) -> None:
    assert ask(engine, prompt=[5] * (ROWS - 3), max_tokens=3).num_tokens == 3
    assert ask(engine, prompt=[5], max_tokens=ROWS - 1).num_tokens == ROWS - 1


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"prompt_ids": []}, RequestError, "empty"),
        ({"prompt_ids": [5] * ROWS}, ContextOverflow, f"{ROWS} tokens"),
        ({"prompt_ids": [5], "max_tokens": ROWS}, ContextOverflow, f"at most {ROWS - 1}"),
        ({"prompt_ids": [5], "max_tokens": 0}, RequestError, "max_tokens"),
        ({"prompt_ids": [-1]}, RequestError, "token ids"),
        ({"prompt_ids": [10**9]}, RequestError, "token ids"),
        ({"prompt_ids": [5], "params": SamplingParams(temperature=float("nan"))}, RequestError, "temperature"),
        ({"prompt_ids": [5], "params": SamplingParams(logit_bias={10**6: 1.0})}, RequestError, "logit_bias"),
    ],
)
def test_impossible_requests_are_refused_at_submit(engine: Engine, fields, error, words) -> None:
    with pytest.raises(error, match=words):
        engine.submit(GenerationRequest(**{"max_tokens": 1, **fields}), Collector())
    assert ask(engine, max_tokens=2).num_tokens == 2


def test_cancelling_a_running_answer_frees_the_card_within_one_pass(engine: Engine) -> None:
    collector = Held(3)
    before = engine.stats()["steps"]
    generation = engine.submit(GenerationRequest([7] * 5, GREEDY, 200, ignore_eos=True), collector)
    collector.wait_held()
    generation.cancel()
    generation.cancel()
    steps = engine.stats()["steps"]
    collector.go.set()
    collector.wait()
    assert collector.reason == "cancelled"
    assert engine.stats()["steps"] == steps < before + 12
    assert ask(engine, max_tokens=2).num_tokens == 2


ONE_REQUEST = st.tuples(
    st.lists(st.integers(0, 250), min_size=1, max_size=100), st.integers(1, 12), st.sampled_from([0.0, 0.8, 1.5])
)
REQUESTS = st.lists(ONE_REQUEST, min_size=1, max_size=4)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(REQUESTS)
def test_an_answer_does_not_depend_on_who_else_asks(engine: Engine, requests) -> None:
    built = [
        GenerationRequest(p, SamplingParams(temperature=t, seed=i, logprobs=2), n, ignore_eos=True)
        for i, (p, n, t) in enumerate(requests)
    ]
    alone = []
    for request in built:
        collector = Collector()
        engine.submit(request, collector)
        alone.append(collector.wait())
    crowd = [Collector() for _ in built]
    for request, collector in zip(built, crowd, strict=True):
        engine.submit(request, collector)
    for one, other in zip(alone, crowd, strict=True):
        other.wait()
        assert (one.text, one.reason) == (other.text, other.reason)
        assert [d.logprobs for d in one.deltas] == [d.logprobs for d in other.deltas]

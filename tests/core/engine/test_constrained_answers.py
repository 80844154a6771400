"""Answers under a constraint on the engine: certain tokens, ends, guesses, log-probabilities; whoever breaks, breaks
alone."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from collecting import GREEDY, Collector
from tiny_models import Tiny, convert_tiny

from axpress.core.device.backend import Costs
from axpress.core.engine.engine import Engine
from axpress.core.errors import EngineClosed
from axpress.core.request import GenerationRequest, SamplingParams
from axpress.core.structured_output.grammar_compiler import (
    GrammarCompiler,
    GrammarError,
    JsonSchema,
    OneOf,
    OutputSpec,
    Regex,
    Thinking,
    ToolFormat,
    ToolRule,
)

ROWS = 511
QWEN = ToolFormat('<tool_call>\n{"name": "', '", "arguments": ', "}\n</tool_call>")
COUNT = {"type": "integer", "minimum": 1, "maximum": 99}
ORDER = {
    "type": "object",
    "properties": {"customer name": {"type": "string", "maxLength": 6}, "number of items": COUNT},
    "required": ["customer name", "number of items"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("constrained")
    package = convert_tiny(folder, Tiny("qwen3", layers=2), rows=ROWS, chunk=64, history=[0, 64, 256])
    engine = Engine.open(package, "emu", "none", max_queue=100, threaded=False)
    costs = engine.scheduler.costs
    costs.observe = lambda *measured: None
    costs.set(Costs((1.0,) * len(costs.groups), 0.01, costs.copy))  # as on a card: a chunk costs as much as a token
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def grammars(engine) -> GrammarCompiler:
    return GrammarCompiler(engine.text, engine.info.vocab_size)


def run(engine: Engine, *requests: GenerationRequest) -> list[Collector]:
    """The requests together, to their ends."""
    collectors = [Collector() for _ in requests]
    for request, collector in zip(requests, collectors, strict=True):
        engine.submit(request, collector)
    while engine.step():
        engine.scheduler.check_integrity()
    assert all(c.reason for c in collectors)
    return collectors


def passes(engine: Engine) -> int:
    return engine.stats()["steps"]


def asking(constraint, **fields) -> GenerationRequest:
    return GenerationRequest(
        **{"prompt_ids": [7, 8, 9], "params": GREEDY, "max_tokens": 120, "constraint": constraint, **fields}
    )


@dataclass
class Script:
    """A constraint that forces runs of tokens, each after a number of free ones: {tokens so far: what must come
    next}."""

    forces: dict[int, list[int]]
    ends_at: int = 10**6
    words: np.ndarray | None = None
    accepted: list[int] = field(default_factory=list)
    masks: int = 0
    breaks: Callable[[int], None] = lambda count: None

    def mask(self):
        self.masks += 1
        self.breaks(len(self.accepted))
        return self.words

    def accept(self, token: int) -> None:
        self.accepted.append(token)

    def forced(self) -> list[int]:
        return self.forces.get(len(self.accepted), [])

    def check(self, tokens: tuple[int, ...]) -> int:
        return len(tokens)

    @property
    def done(self) -> bool:
        return len(self.accepted) >= self.ends_at


# ---- certain tokens ----


def test_certain_tokens_join_the_pass_of_what_comes_before_them(engine) -> None:
    text = engine.text
    begin, middle = text.encode("Once upon a time"), text.encode(" and so on and on")
    script = Script({0: begin, len(begin) + 3: middle})
    before = passes(engine)
    (answer,) = run(engine, asking(lambda: script, max_tokens=len(begin) + 3 + len(middle) + 2, ignore_eos=True))
    assert answer.text.startswith("Once upon a time") and " and so on and on" in answer.text
    assert answer.num_tokens == len(script.accepted) == len(begin) + len(middle) + 5
    assert script.masks == passes(engine) - before == 5  # one pass and one mask for each token that was not certain
    assert all(d.num_tokens == 1 for d in answer.deltas)


@pytest.mark.parametrize(("max_tokens", "reason"), [(1, "length"), (2, "length"), (3, "stop"), (9, "stop")])
def test_an_answer_of_certain_tokens_alone_needs_no_pass(engine, max_tokens, reason) -> None:
    before = engine.stats()
    (answer,) = run(engine, asking(lambda: Script({0: [40, 41, 42]}, ends_at=3), max_tokens=max_tokens))
    after = engine.stats()
    assert (answer.reason, answer.num_tokens) == (reason, min(3, max_tokens))
    assert answer.text == engine.text.decode([40, 41, 42][:max_tokens])
    assert after["steps"] == before["steps"] and after["finished"] == before["finished"] + 1
    assert after["generated_tokens"] == before["generated_tokens"] + min(3, max_tokens)
    spent = answer.deltas[-1].spent
    assert spent.completion_tokens == min(3, max_tokens) and 0 <= spent.queue_s <= spent.first_token_s <= spent.total_s


def test_certain_tokens_are_not_taken_for_the_time_that_the_prompt_takes(engine) -> None:
    """What an answer begins with is told at once; its first token of the model's comes after the prompt was read."""
    collector = Collector()
    request = asking(
        lambda: Script({0: [40, 41]}), prompt_ids=[7 + i % 50 for i in range(300)], max_tokens=4, ignore_eos=True
    )
    generation = engine.submit(request, collector)
    assert engine.step() and collector.num_tokens == 2 and generation.first_token is None
    while engine.step():
        pass
    spent = collector.deltas[-1].spent
    assert generation.first_token is not None and spent.completion_tokens == 4
    assert spent.queue_s < spent.first_token_s <= spent.total_s


def test_a_threaded_engine_ends_such_an_answer_too(engine, grammars) -> None:
    constraint = grammars.compile(OutputSpec(OneOf(("always this",))))
    threaded = Engine(engine.model, max_running=2)
    collector = Collector()
    threaded.submit(asking(constraint), collector)
    assert collector.wait().text == "always this" and collector.reason == "stop"
    with threaded._change:
        threaded.state = "closed"
        threaded._change.notify_all()
    assert threaded._thread is not None
    threaded._thread.join()


def test_certain_tokens_make_fewer_passes_and_the_same_answer_as_they_do_with_guesses(engine, grammars) -> None:
    constraint = grammars.compile(OutputSpec(JsonSchema(ORDER)))
    before = passes(engine)
    (plain,) = run(engine, asking(constraint, params=SamplingParams(temperature=1, seed=3)))
    assert plain.reason == "stop" and json.loads(plain.text).keys() == ORDER["properties"].keys()
    assert passes(engine) - before < plain.num_tokens / 2
    prediction = tuple(engine.text.encode(plain.text))
    (guessed,) = run(engine, asking(constraint, params=SamplingParams(temperature=1, seed=3), prediction=prediction))
    assert guessed.text == plain.text
    (wrong,) = run(
        engine, asking(constraint, params=SamplingParams(temperature=1, seed=3), prediction=tuple(range(40, 90)))
    )
    assert wrong.text == plain.text


def test_each_token_is_accepted_once_also_where_it_was_guessed(engine) -> None:
    (free,) = run(engine, asking(None, max_tokens=30, ignore_eos=True))
    tokens = engine.text.encode(free.text)
    scripts: list[Script] = []

    def make() -> Script:
        scripts.append(Script({10: [60, 61]}))
        return scripts[-1]

    answers = [run(engine, asking(make, max_tokens=30, ignore_eos=True, prediction=p))[0] for p in ((), tuple(tokens))]
    assert len(scripts) == 2 and scripts[0].accepted == scripts[1].accepted and len(scripts[0].accepted) == 30
    assert answers[0].text == answers[1].text == engine.text.decode(scripts[0].accepted)
    assert answers[1].deltas[-1].spent.accepted_prediction_tokens > 0


def test_log_probabilities_of_certain_tokens_are_the_models_own(engine, grammars) -> None:
    constraint = grammars.compile(OutputSpec(JsonSchema(ORDER)))
    params = SamplingParams(temperature=0.8, seed=5)
    (plain,) = run(engine, asking(constraint, params=params))
    before = passes(engine)
    (told,) = run(engine, asking(constraint, params=replace(params, logprobs=2)))
    assert passes(engine) - before < plain.num_tokens / 2  # they ride along as guesses that cannot fail
    pairs = [p for d in told.deltas for p in d.logprobs]
    assert told.text == plain.text and len(pairs) == told.num_tokens == plain.num_tokens
    assert engine.text.decode([p.token for p in pairs]) == plain.text
    for i in range(0, len(pairs), 5):
        prompt = [7, 8, 9, *(p.token for p in pairs[:i])]
        one = SamplingParams(temperature=0, logprobs=2, logit_bias={pairs[i].token: 1000.0})
        (asked,) = run(engine, GenerationRequest(prompt, one, 1, ignore_eos=True))
        (own,) = asked.deltas[-1].logprobs
        assert own == pairs[i] and own.logprob < -0.01


# ---- ends ----


def test_a_complete_answer_stops_without_a_pass_for_the_end(engine, grammars) -> None:
    before = passes(engine)
    (answer,) = run(engine, asking(grammars.compile(OutputSpec(Regex("[ab]{3}"))), ignore_eos=True))
    assert re.fullmatch("[ab]{3}", answer.text) and answer.reason == "stop"
    assert passes(engine) - before == answer.num_tokens <= 3


def test_the_models_end_token_ends_where_the_grammar_may_end_and_not_before(engine, grammars) -> None:
    for eos in sorted(engine.text.eos_ids):
        params = SamplingParams(temperature=0, logit_bias={eos: 1000.0})
        for ignore_eos in (False, True):
            constraint = grammars.compile(OutputSpec(Regex("a{4}(;[0-9]+)*")))
            (answer,) = run(engine, asking(constraint, params=params, ignore_eos=ignore_eos))
            assert (answer.text, answer.reason) == ("aaaa", "stop")


def test_max_tokens_cuts_and_says_so(engine, grammars) -> None:
    constraint = grammars.compile(OutputSpec(JsonSchema(ORDER)))
    (whole,) = run(engine, asking(constraint))
    for limit in range(1, whole.num_tokens):
        (cut,) = run(engine, asking(constraint, max_tokens=limit))
        assert (cut.reason, cut.num_tokens) == ("length", limit) and whole.text.startswith(cut.text)
    (exact,) = run(engine, asking(constraint, max_tokens=whole.num_tokens))
    assert (exact.reason, exact.text) == ("stop", whole.text)


def test_stop_strings_count_after_the_text_that_they_wait_for(engine, grammars) -> None:
    constraint = grammars.compile(OutputSpec(Regex("one,two;one,two;one,[a-c]{3}")))
    request = asking(constraint, stop=(",", "zzz"))
    texts = [run(engine, replace(request, stop_after=after))[0].text for after in ("", "two", ";one,two", "never")]
    assert texts[:3] == ["one", "one,two;one", "one,two;one,two;one"] and re.fullmatch(
        "one,two;one,two;one,...", texts[3]
    )


# ---- several, and those who fail ----


def test_choices_follow_the_same_grammar_each_on_its_own(engine, grammars) -> None:
    constraint = grammars.compile(OutputSpec(JsonSchema(ORDER)))
    requests = [asking(constraint, params=SamplingParams(temperature=2, seed=seed)) for seed in range(10)]
    together = [a.text for a in run(engine, *requests)]
    assert len(set(together)) == 10 and all(json.loads(t).keys() == ORDER["properties"].keys() for t in together)
    assert together == [run(engine, request)[0].text for request in requests]


def test_an_answer_that_cannot_go_on_ends_with_an_error_and_the_others_do_not(engine, grammars) -> None:
    def break_at_three(count: int) -> None:
        if count == 3:
            raise GrammarError("the answer cannot go on: a test says so")

    dead_end = Script({}, words=np.zeros((engine.info.vocab_size + 31) // 32, np.uint32))
    broken = Script({}, breaks=break_at_three)

    def none_at_all():
        raise GrammarError("no constraint can be made")

    good = asking(grammars.compile(OutputSpec(OneOf(("fine", "good")))))
    answers = run(engine, asking(lambda: dead_end), asking(lambda: broken), good, asking(none_at_all))
    assert [a.reason for a in answers] == ["error", "error", "stop", "error"]
    assert "no token can be chosen" in answers[0].deltas[-1].error and "a test says so" in answers[1].deltas[-1].error
    assert (
        answers[1].num_tokens == 3
        and answers[2].text in ("fine", "good")
        and "can be made" in answers[3].deltas[-1].error
    )
    assert run(engine, good)[0].text in ("fine", "good")


def test_a_fault_in_a_constraint_is_that_answers_own(engine, caplog) -> None:
    def faulty(count: int) -> None:
        if count == 2:
            raise ZeroDivisionError("a test's")

    class Panic(BaseException):
        """As a library of another language raises it."""

    def made_badly():
        raise Panic("a test's")

    class Unsure(Script):
        def check(self, tokens: tuple[int, ...]) -> int:
            raise IndexError("a test's")

    free = {"params": GREEDY, "max_tokens": 12, "ignore_eos": True}
    guesses = {**free, "prompt_ids": [7, 8, 9] * 6, "prediction": (7, 8, 9) * 6}
    good = asking(None, **free)
    alone = run(engine, good)[0].text
    asked = (
        asking(lambda: Script({}, breaks=faulty), **free),
        asking(made_badly, **free),
        asking(lambda: Unsure({}), **guesses),
        good,
    )
    answers = run(engine, *asked)
    assert [a.reason for a in answers] == ["error", "error", "length", "length"] and answers[3].text == alone
    assert (
        answers[0].deltas[-1].error == "internal error: ZeroDivisionError" and answers[0].deltas[-1].error_code is None
    )
    assert answers[2].text == run(engine, asking(lambda: Script({}), **guesses))[0].text
    assert "an answer failed" in caplog.text and "drafts could not be checked" in caplog.text


def test_whatever_ends_the_engines_thread_is_told_to_all(engine) -> None:
    """A library that panics raises no Exception."""

    class Panic(BaseException):
        pass

    class Panicking(Script):
        def mask(self):
            raise Panic("a test's")

    threaded = Engine(engine.model, max_running=2)
    running, doomed = Collector(), Collector()
    threaded.submit(asking(None, max_tokens=400, ignore_eos=True), running)
    assert running.began.wait(30)
    threaded.submit(asking(lambda: Panicking({})), doomed)
    assert running.wait().reason == doomed.wait().reason == "error"
    assert threaded.state == "failed" and "Panic" in (threaded.reason or "")
    with pytest.raises(EngineClosed, match="Panic"):
        threaded.submit(asking(None), Collector())
    assert threaded._thread is not None
    threaded._thread.join()


def test_a_cancelled_answer_leaves_nothing_behind(engine, grammars) -> None:
    collector = Collector()
    generation = engine.submit(asking(grammars.compile(OutputSpec(JsonSchema(ORDER)))), collector)
    assert engine.step() and engine.step()
    generation.cancel()
    while engine.step():
        pass
    engine.scheduler.check_integrity()
    assert (
        collector.reason == "cancelled"
        and collector.text.startswith('{"customer name": "')
        and engine.stats()["num_running"] == 0
    )


# ---- tools and thinking ----


def test_a_call_begins_where_the_model_wants_it_and_then_obeys_its_schema(engine, grammars) -> None:
    call = engine.text.encode_control("<tool_call>")
    shape = OutputSpec(
        tools=(ToolRule("place_order", ORDER), ToolRule("place", ORDER)), tool_format=QWEN, parallel=False
    )
    called: list[str] = []
    for seed in range(5):
        params = SamplingParams(temperature=1.5, seed=seed, logit_bias={call: 6.0})
        (answer,) = run(engine, asking(grammars.compile(shape), params=params, max_tokens=300))
        assert answer.reason == "stop"
        _, begin, rest = answer.text.partition("<tool_call>")
        if begin:
            called.append(json.loads(rest.removesuffix("</tool_call>"))["name"])
        (forced,) = run(engine, asking(grammars.compile(replace(shape, tool_choice="required")), params=params))
        value = json.loads(forced.text.removeprefix("<tool_call>\n").removesuffix("\n</tool_call>"))
        assert value["arguments"].keys() == ORDER["properties"].keys() and forced.reason == "stop"
    assert called and set(called) <= {"place_order", "place"}


def test_thinking_is_cut_at_its_budget_and_the_body_follows(engine, grammars) -> None:
    shape = OutputSpec(JsonSchema(ORDER), thinking=Thinking(open=True))
    params = SamplingParams(temperature=1, seed=1)
    (answer,) = run(
        engine, asking(grammars.compile(shape, thinking_budget=12), params=params, stop=('"',), stop_after="</think>")
    )
    thought, body = answer.text.split("\n</think>\n\n")
    assert answer.reason == "stop" and body == "{" and thought
    (answer,) = run(engine, asking(grammars.compile(shape, thinking_budget=12), params=params))
    assert (
        answer.text.startswith(thought)
        and json.loads(answer.text.split("</think>\n\n")[1]).keys() == ORDER["properties"].keys()
    )
    (free,) = run(
        engine, asking(grammars.compile(replace(shape, body=None), thinking_budget=12), params=params, ignore_eos=True)
    )
    assert "\n</think>\n\n" in free.text and free.reason in ("length", "stop")

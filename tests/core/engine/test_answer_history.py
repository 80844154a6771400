"""Earlier answers: what is found in them, for whom, how much is kept."""

from __future__ import annotations

import random
import tracemalloc
from pathlib import Path

from collecting import Collector
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import Tiny, convert_tiny

from axpress.core.device.backend import Costs
from axpress.core.engine.answer_history import GRAM, AnswerHistory
from axpress.core.engine.draft_chances import DraftChances, Source
from axpress.core.engine.engine import Engine
from axpress.core.request import GenerationRequest, SamplingParams


def propose(history: AnswerHistory, tail: list[int], salt: bytes = b"", limit: int = 24) -> tuple[int, ...]:
    tenant = history.tenant(salt)
    return history.propose(tenant, tail, limit).tokens if tenant is not None else ()


def filled(*answers: list[int], salt: bytes = b"", capacity: int = 256) -> AnswerHistory:
    history = AnswerHistory(capacity)
    for answer in answers:
        history.add(salt, answer, DraftChances())
    return history


def test_an_earlier_answer_is_gone_on_with() -> None:
    history = filled([1, 2, 3, 4, 5, 6, 7], [9, 9, 3, 4, 5, 8])
    assert propose(history, [1, 2, 3]) == (4, 5, 6, 7)
    assert propose(history, [0, 9, 9, 3, 4, 5]) == (8,)  # the longer agreement, not the first
    assert propose(history, [2, 3, 4], limit=2) == (5, 6)
    assert propose(history, [5, 6, 7]) == () == propose(history, [2, 3]) == propose(history, [6, 7, 1])


def test_of_several_ways_the_most_frequent_is_gone() -> None:
    history = filled(*([1, 2, 3, n, n + 1] for n in (4, 6, 4, 8)), [1, 2, 3, 4, 7])
    tenant = history.tenant(b"")
    assert tenant is not None
    draft = history.propose(tenant, [1, 2, 3], 9)
    assert draft.tokens == (4, 7) and draft.source is Source.HISTORY
    history = filled([1, 2, 3, 4, 5], [1, 2, 3, 4, 6])
    tenant = history.tenant(b"")
    assert tenant is not None and history.propose(tenant, [1, 2, 3], 1).source is Source.AGREED


TOKENS = st.integers(0, 2)  # few, so that everything repeats, across answers and tenants


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from([b"", b"a", b"b"]), st.lists(TOKENS, max_size=40)), max_size=40), st.data())
def test_nobody_is_offered_what_another_tenant_was_answered(answers: list[tuple[bytes, list[int]]], data) -> None:
    """Tokens of each tenant are told apart by 10 times its number."""
    history, whose = AnswerHistory(64), {b"": 0, b"a": 10, b"b": 20}
    for salt, answer in answers:
        history.add(salt, [t + whose[salt] for t in answer], DraftChances())
        for asked, base in whose.items():
            for other in whose.values():
                tail = [t + other for t in data.draw(st.lists(TOKENS, min_size=GRAM, max_size=6))]
                found = propose(history, tail, asked)
                assert all(base <= t < base + 3 for t in found) and (other == base or not found)


def test_equal_tokens_of_another_tenant_are_nothing() -> None:
    history = filled([1, 2, 3, 4, 5], salt=b"a")
    history.add(b"b", [7, 8, 9, 7], DraftChances())
    assert propose(history, [1, 2, 3], b"a") == (4, 5)
    assert propose(history, [1, 2, 3], b"b") == () == propose(history, [1, 2, 3], b"")


@settings(deadline=None)
@given(st.lists(st.lists(TOKENS, min_size=GRAM + 1, max_size=30), min_size=1, max_size=30), st.integers(1, 8))
def test_a_proposal_is_what_stands_in_an_answer(answers: list[list[int]], limit: int) -> None:
    history = filled(*answers, capacity=128)
    for tail in answers[-1][:GRAM], answers[-1][-GRAM:], [0, 1, 2]:
        found = propose(history, tail, limit=limit)
        if found:
            assert len(found) <= limit
            text = [*tail, found[0]]
            assert any(answer[i : i + len(text)] == text for answer in answers for i in range(len(answer)))


def test_memory_is_taken_once_and_the_oldest_answers_go() -> None:
    rng = random.Random(1)
    history = AnswerHistory(1000)
    assert history.num_bytes == 24 * 1024

    def days(num_answers: int) -> None:
        for i in range(num_answers):
            history.add(str(i % 70).encode(), [rng.randrange(500) for _ in range(rng.randint(4, 60))], DraftChances())
            tokens, answers, tenants = history.counts
            assert tokens <= 1024 and answers <= 1024 // (GRAM + 2) and tenants <= min(answers, 70)

    days(3000)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    days(10_000)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert history.num_bytes == 24 * 1024 and grown < 64 * 1024  # the answers that are there, counted anew
    history.add(b"", [1, 2, 3, 4], DraftChances())
    assert propose(history, [1, 2, 3]) == (4,)
    for _ in range(400):
        history.add(b"other", [5, 6, 7, 8], DraftChances())
    assert propose(history, [1, 2, 3]) == () and history.tenant(b"") is None and history.counts[2] == 1


def test_an_answer_longer_than_everything_is_kept_in_part() -> None:
    history = filled(list(range(10_000)), capacity=64)
    assert propose(history, [9990, 9991, 9992], limit=3) == (9993, 9994, 9995) and propose(history, [1, 2, 3]) == ()


def test_answers_are_guessed_from_earlier_ones_of_the_same_tenant(tmp_path: Path) -> None:
    """Not of another, not of background requests, not where that is switched off; and all tokens stay what they are."""
    package, drafted = convert_tiny(tmp_path, Tiny("qwen3", layers=2), rows=127, chunk=64, history=[0, 64]), []
    for history in (1024, 0):
        engine = Engine.open(package, "emu", "none", threaded=False, draft_history=history)
        costs = engine.scheduler.costs
        costs.observe = lambda *measured: None
        costs.set(Costs((1.0,) * len(costs.groups), costs.head, costs.copy))  # so that guesses always pay
        texts = set()
        for fields in ({"low_priority": True}, {}, {"cache_salt": b"other"}, {}):
            before, answer = engine.stats()["accepted_draft_tokens"], Collector()
            params = SamplingParams(temperature=1.5, seed=5)  # such an answer does not repeat itself
            engine.submit(GenerationRequest([7, 8, 9, 10], params, 30, ignore_eos=True, **fields), answer)
            while engine.step():
                pass
            texts.add(answer.text)
            drafted.append(engine.stats()["accepted_draft_tokens"] - before)
        assert len(texts) == 1 and (engine.scheduler.history is None) == (history == 0)
        engine.close()
    assert drafted[:3] == [0, 0, 0] and drafted[3] > 20 and drafted[4:] == [0] * 4

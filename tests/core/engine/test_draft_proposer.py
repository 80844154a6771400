"""Guesses: what followed last time, what the client predicts, and how soon they stop when they are wrong."""

from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from axpress.core.engine.answer_history import GRAM, MAX_CANDIDATES, AnswerHistory
from axpress.core.engine.draft_chances import Draft, DraftChances, Source
from axpress.core.engine.draft_proposer import DraftProposer, SuffixIndex


def naive_longest(text: list[int], tail: list[int], before: int) -> int:
    """Length of the longest suffix of `tail` that also ends in `text` before index `before` (at least GRAM)."""
    best = 0
    for end in range(GRAM, min(before, len(text) + 1)):
        n = 0
        while n < min(end, len(tail)) and text[end - n - 1] == tail[-n - 1]:
            n += 1
        best = max(best, n)
    return best if best >= GRAM else 0


@given(st.lists(st.integers(0, 2), max_size=MAX_CANDIDATES + GRAM), st.integers(1, 9))
def test_the_longest_suffix_is_found(text: list[int], length: int) -> None:
    index = SuffixIndex(text)
    tail = text[-length:]
    place, found = index.longest(tail, len(text))
    assert found == naive_longest(text, tail, len(text))
    assert not found or text[place - found : place] == tail[-found:]


@given(st.lists(st.integers(0, 2), max_size=40), st.integers(0, 40), st.integers(1, 9))
def test_a_text_that_grew_is_searched_like_one_that_was_there(text: list[int], length: int, tail: int) -> None:
    whole, grown = SuffixIndex(text), SuffixIndex(text[:length])
    for token in text[length:]:
        grown.append(token)
    assert grown.repeats == whole.repeats and list(grown.tokens) == text
    assert grown.longest(text[-tail:], len(text)) == whole.longest(text[-tail:], len(text))


def test_a_long_text_has_its_runs_found_as_it_grows_and_takes_little_memory() -> None:
    text = [17 * i % 1009 for i in range(3000)]  # each run again after 1009 tokens
    index = SuffixIndex(text[:10])
    for token in text[10:]:
        index.append(token)
    assert index.repeats and index.longest(text[2980:], len(text)) == (3000 - 1009, 20)
    tracemalloc.start()
    index = SuffixIndex(range(30_000))
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert taken < 17 * 30_000 and not index.repeats


def test_a_repetition_is_guessed_from_the_conversation() -> None:
    drafter = DraftProposer([1, 2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4])
    assert drafter.propose(3).tokens == (5, 6, 7)
    drafter.append(5)
    assert drafter.propose(2).tokens == (6, 7)
    assert drafter.propose(0).tokens == ()


def test_nothing_is_guessed_from_nothing() -> None:
    assert DraftProposer([1, 2, 3, 4, 5]).propose(5).tokens == ()
    assert DraftProposer([7]).propose(5).tokens == ()


def test_a_prediction_is_followed_left_and_found_again() -> None:
    drafter = DraftProposer([1, 2], prediction=[10, 11, 12, 13, 14, 15, 16])
    assert drafter.propose(2).tokens == (10, 11)
    drafter.append(10)
    assert drafter.propose(2).tokens == (11, 12)
    drafter.append(99)
    assert drafter.propose(2).tokens == ()
    for token in (12, 13, 14):
        drafter.append(token)
    assert drafter.propose(5).tokens == (15, 16)


def answer(drafter: DraftProposer, tokens: list[int]) -> list[Draft]:
    """The answer as it comes, and what is guessed before each token."""
    drafts = []
    for token in tokens:
        drafts.append(drafter.propose(8))
        drafter.append(token)
    return drafts


def test_what_repeats_itself_is_guessed_to_go_on_repeating() -> None:
    assert DraftProposer([9, *[1, 2] * 5]).propose(5).tokens == (1, 2, 1, 2, 1)


def test_wrong_guesses_lower_the_chance_and_right_ones_raise_it() -> None:
    """Also those that no pass checked: what the answer goes on with tells it."""
    prompt = [1, 2, 3, 4] * 3
    wrong, right = DraftProposer(prompt), DraftProposer(prompt)
    start = DraftChances().of(Source.CONVERSATION, 9)
    answer(wrong, [token for i in range(10) for token in (1, 2, 3, 10 + i)])
    answer(right, [1, 2, 3, 4] * 20)
    assert wrong.chances.of(Source.CONVERSATION, 3) < 0.8 * DraftChances().of(Source.CONVERSATION, 3)
    assert right.chances.of(Source.CONVERSATION, 32) > start
    for drafter in (wrong, right):
        answer(drafter, [1, 2, 3])
    assert len(wrong.propose(99).tokens) < len(right.propose(99).tokens)  # what is hardly reached is not guessed


def test_an_earlier_answer_is_guessed_from_and_its_chances_are_learned() -> None:
    history = AnswerHistory(1024)
    first, said = DraftProposer([1, 2, 3], (), history), list(range(10, 60))
    assert not any(draft.tokens for draft in answer(first, said))
    first.keep()
    before = DraftChances().of(Source.HISTORY, 32)
    for _ in range(3):
        drafts = answer(DraftProposer([7, 2, 3], (), history), said)  # not kept: there is one way to go on
        assert all(draft.tokens[:1] == (token,) for draft, token in zip(drafts[1:], said[1:], strict=True))
    tenant = history.tenant(b"")
    assert tenant is not None and tenant.chances.of(Source.HISTORY, 32) > before
    assert not any(draft.tokens for draft in answer(DraftProposer([7, 2, 3], (), history, b"other"), said))


def test_the_source_that_is_likelier_right_is_taken() -> None:
    history = AnswerHistory(1024)
    past = DraftProposer([0], (), history)
    answer(past, [*range(20, 40), 5])
    past.keep()
    drafter = DraftProposer([37, 38, 39, 6, *range(20, 40)], (), history)  # agrees in 3 tokens there, in 20 earlier
    assert drafter.propose(4).tokens == (5,) and drafter.propose(4).source is Source.HISTORY

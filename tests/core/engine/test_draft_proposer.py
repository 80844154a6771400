"""Guesses: what followed last time, what the client predicts, and how soon they stop when they are wrong."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from axpress.core.engine.draft_proposer import GRAM, MAX_CANDIDATES, DraftProposer, SuffixIndex


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


def test_wrong_guesses_lower_the_chance_and_right_ones_raise_it() -> None:
    drafter = DraftProposer([1, 2, 3, 4, 1, 2, 3])
    draft = drafter.propose(1)
    before = drafter.chance(draft)
    for _ in range(10):
        drafter.checked(draft, 0)
    low = drafter.chance(draft)
    for _ in range(20):
        drafter.checked(draft, 1)
    assert low < 0.3 * before < drafter.chance(draft) <= 1

"""States are found again under exactly the tokens before them, and go in the order in which they are missed least."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axpress.core.kv_cache.row_pool import IntegrityError
from axpress.core.kv_cache.state_cache import StateCache

FIRST = 2


def tokens(*ids: int) -> array:
    return array("i", ids)


def keep(cache: StateCache, ids: array, *, lasting: bool = True, salt: bytes = b"") -> int:
    assert cache.make_free(1)
    slot = cache.take()
    cache.keep(salt, ids, slot, lasting=lasting)
    cache.release(slot)
    return slot


def test_the_longest_prefix_is_found_and_held() -> None:
    cache = StateCache(8, FIRST)
    short, long = keep(cache, tokens(1, 2)), keep(cache, tokens(1, 2, 3, 4))
    assert cache.find(b"", tokens(1, 2, 3, 4, 5)) == (4, long)
    assert cache.find(b"", tokens(1, 2, 3, 9)) == (2, short)
    assert cache.find(b"", tokens(1, 9)) == (0, 0)
    cache.check_integrity([long, short])


def test_salts_do_not_see_each_other() -> None:
    cache = StateCache(8, FIRST)
    keep(cache, tokens(1, 2), salt=b"a")
    assert cache.longest(b"b", tokens(1, 2, 3)) == 0
    assert cache.longest(b"a", tokens(1, 2, 3)) == 2


def test_states_within_prompts_go_first_then_the_least_recently_used() -> None:
    cache = StateCache(FIRST + 3, FIRST)
    keep(cache, tokens(1))
    keep(cache, tokens(2))
    keep(cache, tokens(3), lasting=False)
    cache.release(cache.find(b"", tokens(1, 9))[1])
    keep(cache, tokens(4))  # in place of the one within a prompt
    assert [cache.longest(b"", tokens(i)) for i in (1, 2, 3, 4)] == [1, 1, 0, 1]
    keep(cache, tokens(5))
    assert [cache.longest(b"", tokens(i)) for i in (1, 2, 4, 5)] == [1, 0, 1, 1]
    cache.check_integrity([])


def test_one_within_a_prompt_that_was_used_lasts() -> None:
    cache = StateCache(FIRST + 2, FIRST)
    keep(cache, tokens(1), lasting=False)
    keep(cache, tokens(2))
    cache.release(cache.find(b"", tokens(1))[1])
    keep(cache, tokens(3))
    assert [cache.longest(b"", tokens(i)) for i in (1, 2, 3)] == [1, 0, 1]


def test_a_state_in_use_keeps_its_slot() -> None:
    cache = StateCache(FIRST + 2, FIRST)
    kept = keep(cache, tokens(1))
    assert cache.find(b"", tokens(1)) == (1, kept)
    assert not cache.make_free(2)
    assert cache.num_kept == 0
    cache.check_integrity([kept])
    cache.release(kept)
    assert cache.make_free(2)


def test_what_nobody_holds_cannot_be_released() -> None:
    cache = StateCache(4, FIRST)
    cache.release(0)  # nobody's
    with pytest.raises(IntegrityError, match="state 3"):
        cache.release(3)


@given(st.lists(st.tuples(st.lists(st.integers(0, 2), max_size=5), st.booleans(), st.booleans()), max_size=40))
def test_whatever_is_kept_and_found_the_count_is_right(steps: list) -> None:
    cache, held = StateCache(FIRST + 5, FIRST), []
    for ids, lasting, uses in steps:
        if uses:
            count, slot = cache.find(b"", tokens(*ids))
            assert count == cache.longest(b"", tokens(*ids)) <= len(ids)
            held.append(slot)
        elif cache.make_free(1):
            keep(cache, tokens(*ids), lasting=lasting)
            assert cache.longest(b"", tokens(*ids)) == len(ids)
        else:
            for slot in held:
                cache.release(slot)
            held.clear()
        cache.check_integrity(held)

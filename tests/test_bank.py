"""A bank's rows: low ones for those who run, what waits for a next turn parked above, nothing lost on the way."""

from __future__ import annotations

from array import array

import numpy as np

from axpress.core.bank import Bank
from axpress.core.groups import Group
from axpress.core.planner import Planner
from axpress.core.rows import Rows

GROUPS = (Group(0, 1, 64), *(Group(1 + i, 16, 16 * i) for i in range(5)))


class Card:
    """What lies in which row, as far as a bank moves it."""

    def __init__(self) -> None:
        self.rows = np.full(64, -1)
        self.moves = 0

    def move(self, bank: int, old: Rows, new: Rows) -> None:
        self.rows[new] = self.rows[old]
        self.rows[old] = -2
        self.moves += 1


def make() -> tuple[Bank, Card]:
    card = Card()
    planner = Planner(GROUPS, (1.0, *(0.5 + 0.1 * i for i in range(5))), 0.1)
    return Bank(0, 64, planner, card.move), card


def cache(bank: Bank, card: Card, tokens: array) -> None:
    """Computes what is missing of these tokens and ends at once."""
    with bank.tree.cursor(tokens=tokens) as cursor:
        missing = tokens[cursor.num_tokens :]
        if missing:
            rows = bank.take(len(missing))
            assert rows is not None
            card.rows[rows] = missing
            cursor.extend(missing, rows)
            bank.pool.release(rows)
    bank.park(tokens, b"")
    check(bank, card, tokens)


def check(bank: Bank, card: Card, tokens: array) -> None:
    bank.check_integrity()
    rows = bank.tree.match(tokens, touch=False).rows
    assert card.rows[rows].tolist() == tokens[: len(rows)].tolist()


def test_what_ended_is_parked_in_the_upper_half() -> None:
    bank, card = make()
    first, second = array("i", range(100, 120)), array("i", range(200, 210))
    cache(bank, card, first)
    assert min(bank.tree.match(first).rows) >= 32
    cache(bank, card, second)
    check(bank, card, first)
    assert bank.take(4).tolist() == [0, 1, 2, 3]  # type: ignore[union-attr]


def test_when_the_upper_half_is_full_the_oldest_goes() -> None:
    bank, card = make()
    old, new = array("i", range(100, 120)), array("i", range(200, 225))
    cache(bank, card, old)
    cache(bank, card, new)
    assert bank.tree.match(new, touch=False).num_tokens == 25
    assert bank.tree.match(old, touch=False).num_tokens == 7
    assert min(bank.tree.match(new).rows) >= 32
    check(bank, card, old)


def test_a_shared_beginning_in_use_stays_where_it_is() -> None:
    bank, card = make()
    system = array("i", range(50, 60))
    cache(bank, card, system)
    with bank.tree.cursor(tokens=system) as running:
        where = list(running.matched)
        cache(bank, card, system + array("i", [1, 2, 3]))
        assert list(bank.tree.match(system, touch=False).rows) == where


def test_too_many_copies_are_not_made_while_others_wait() -> None:
    bank, card = make()
    bank.sequences.append(object())  # type: ignore[arg-type]
    scattered = np.arange(0, 64, 2, dtype=np.int32)[:16]
    import axpress.core.bank as module

    before, module.MAX_STRETCHES = module.MAX_STRETCHES, 8
    try:
        bank.pool.claim(scattered)
        tokens = array("i", range(16))
        with bank.tree.cursor() as cursor:
            cursor.extend(tokens, scattered)
        bank.pool.release(scattered)
        bank.park(tokens, b"")
        assert card.moves == 0
        bank.sequences.clear()
        bank.park(tokens, b"")
        assert card.moves == 1
    finally:
        module.MAX_STRETCHES = before

"""A bank's rows: those who run change places with what lies below them where that pays, and nothing is lost on the
way."""

from __future__ import annotations

from array import array
from types import SimpleNamespace

import numpy as np
import pytest
from prefix_trees import insert

from axpress.core.device.backend import Costs
from axpress.core.device.shape_groups import Group
from axpress.core.engine import row_compactor as module
from axpress.core.engine.bank_selection import _has_room, _num_promised, _sizes
from axpress.core.engine.pass_costs import PassCosts
from axpress.core.engine.pass_planner import Part, PassPlanner, StepPlan
from axpress.core.engine.row_compactor import RowCompactor
from axpress.core.kv_cache.cache_bank import CacheBank
from axpress.core.kv_cache.row_pool import Rows

ROWS, CHUNK, REACH = 64, 16, 48
GROUPS = (Group(0, 1, ROWS), *(Group(1 + i, CHUNK, 16 * i) for i in range(4)))
COSTS = (1.0, *(1.5 + 0.5 * i for i in range(4)))
COPY = 0.01


class Card:
    """What lies in which row, as far as a bank moves it."""

    def __init__(self) -> None:
        self.rows = np.full(ROWS, -1)
        self.moves = 0

    def move(self, bank: int, old: Rows, new: Rows) -> None:
        assert not set(old.tolist()) & set(new.tolist())
        self.rows[new] = self.rows[old]
        self.rows[old] = -2
        self.moves += 1


class Living:
    """A sequence as far as a bank and a planner know it, with all its tokens cached but the last `pending` ones."""

    def __init__(
        self, bank: CacheBank, card: Card, tokens: list[int], rows: list[int], *, pending: int = 1, order: int = 0
    ) -> None:
        self.tokens, self.cache_salt = array("i", tokens), b""
        self.cursor = bank.tree.cursor(tokens=self.tokens[: len(tokens) - pending])
        missing = np.array(rows, np.int32)
        bank.pool.claim(missing)
        known = self.cursor.num_tokens
        card.rows[missing] = tokens[known : len(tokens) - pending]
        self.cursor.extend(self.tokens[known : len(tokens) - pending], missing)
        bank.pool.release(missing)
        self.set_rows(np.concatenate((self.cursor.matched, missing)))
        self.served = self.blocked = self.low_priority = False
        self.order, self.num_drafts, self.chance, self.needs_chunk = (False, order), 0, 0.0, False
        bank.sequences.append(self)  # type: ignore[arg-type]

    def set_rows(self, rows: Rows) -> None:
        self.rows, self.high = array("i", rows.tolist()), int(rows.max(initial=-1)) + 1

    @property
    def num_cached(self) -> int:
        return len(self.rows)

    @property
    def num_pending(self) -> int:
        return len(self.tokens) - len(self.rows)


class PackedBank(CacheBank):
    """A bank with a planner and a compactor of its own."""

    def __init__(self, card: Card, copy: float) -> None:
        self.planner = PassPlanner(PassCosts(GROUPS, Costs(COSTS, 0.1, copy)))
        super().__init__(0, ROWS, self.planner.costs.worth_reusing, card.move)
        self.compactor = RowCompactor(self, self.planner)


def make(copy: float = COPY) -> tuple[PackedBank, Card]:
    card = Card()
    return PackedBank(card, copy), card


def idle(bank: CacheBank, card: Card, tokens: list[int], rows: list[int]) -> None:
    """A conversation that is cached in these rows and that nobody follows."""
    taken = np.array(rows, np.int32)
    bank.pool.claim(taken)
    card.rows[taken] = tokens
    insert(bank.tree, tokens, taken)
    bank.pool.release(taken)


def pack(bank: PackedBank) -> bool:
    planned = bank.planner.plan(bank.sequences)
    assert planned is not None
    return bank.compactor.pack(planned)


def check(bank: CacheBank, card: Card) -> None:
    bank.check_integrity()
    for sequence in bank.sequences:
        assert card.rows[list(sequence.rows)].tolist() == sequence.tokens[: len(sequence.rows)].tolist()


def streams(bank: CacheBank, card: Card, count: int, first: int) -> list[Living]:
    """Sequences of 4 rows each, from row `first` on."""
    return [
        Living(bank, card, [10 * i + k for k in range(5)], list(range(first + 4 * i, first + 4 * i + 4)))
        for i in range(1, count + 1)
    ]


def test_who_runs_changes_places_with_what_nobody_uses() -> None:
    bank, card = make()
    old = list(range(900, 920))
    idle(bank, card, old, list(range(20)))
    streams(bank, card, 4, 20)
    assert pack(bank)
    check(bank, card)
    assert max(s.high for s in bank.sequences) <= 16
    match = bank.tree.match(old, touch=False)
    assert card.rows[match.rows].tolist() == old, "the idle conversation moved up, whole"
    assert not pack(bank), "packed is packed"


def test_no_copies_until_high_rows_have_cost_as_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE", 10)
    bank, card = make(copy=0.7)
    idle(bank, card, list(range(900, 920)), list(range(20)))
    streams(bank, card, 4, 20)
    times = [pack(bank) for _ in range(6)]  # each pass costs up to 1.0 too much, moving all rows 2.2 at least
    assert times[0] is False and times.count(True) in (1, 2)
    check(bank, card)
    assert max(s.high for s in bank.sequences) <= 16


def test_while_others_run_copies_are_made_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE", 0.02)  # of a pass of 3.0: 6 copies
    bank, card = make()
    idle(bank, card, list(range(900, 920)), list(range(0, 40, 2)))
    streams(bank, card, 5, 40)
    times = 0
    while pack(bank):
        check(bank, card)
        times += 1
    assert times > 1 and max(s.high for s in bank.sequences) <= 32


def test_what_is_shared_moves_once_and_for_all_who_share_it() -> None:
    bank, card = make()
    idle(bank, card, list(range(900, 930)), list(range(30)))
    for i in range(4):
        Living(bank, card, [1, 2, 3, 4, 50 + i, 99], list(range(30, 35)) if not i else [34 + i])
    assert pack(bank)
    check(bank, card)
    assert len({tuple(s.rows[:4]) for s in bank.sequences}) == 1


def test_a_prompt_out_of_reach_comes_down_and_goes_on_in_chunks() -> None:
    bank, card = make()
    Living(bank, card, list(range(100, 141)), list(range(40)))
    Living(bank, card, list(range(200, 250)), list(range(40, 60)), pending=30, order=1)
    assert bank.planner.plan(bank.sequences) == StepPlan(0, (Part(0, 1),))
    bank.sequences.reverse()
    assert pack(bank)
    check(bank, card)
    planned = bank.planner.plan(bank.sequences)
    assert planned is not None and planned.slot > 0 and Part(0, 16) in planned.parts


def test_a_full_bank_gives_up_its_oldest_prefix_to_make_room() -> None:
    bank, card = make()
    old, new = list(range(900, 920)), list(range(800, 828))
    idle(bank, card, old, list(range(20)))
    idle(bank, card, new, list(range(36, 64)))
    streams(bank, card, 4, 16 + 4 - 4)
    assert bank.pool.num_free == 0
    assert pack(bank)
    check(bank, card)
    assert bank.tree.match(new, touch=False).num_tokens == len(new)
    assert bank.tree.match(old, touch=False).num_tokens < len(old)
    assert max(s.high for s in bank.sequences) <= 16


def test_a_single_row_is_taken_beside_the_sequences_own() -> None:
    bank, _ = make()
    assert bank.take(4).tolist() == [0, 1, 2, 3]  # type: ignore[union-attr]
    assert bank.take(1, above=30).tolist() == [30]  # type: ignore[union-attr]
    assert bank.take(40).tolist() == [*range(4, 30), *range(31, 45)]  # type: ignore[union-attr]
    assert bank.take(19).tolist() == list(range(45, 64))  # type: ignore[union-attr]
    assert bank.take(1, above=30) is None


def test_what_a_sequence_adds_is_what_it_does_not_share_and_has_still_to_take(monkeypatch: pytest.MonkeyPatch) -> None:
    bank, card = make()
    for i in range(2):
        living = Living(bank, card, [1, 2, 3, 4, 50 + i, *range(90, 98)], list(range(5)) if not i else [5], pending=8)
        living.prefix_owner_tokens, living.num_to_generate = 0, 7  # type: ignore[attr-defined]
    assert _sizes(bank) == [1 + 8 + 7, 5 + 8 + 7]
    assert [_num_promised(s) for s in bank.sequences] == [8 + 7, 8 + 7]
    for low_priority, most in ((False, 58), (True, bank.pool.num_free)):
        asker = SimpleNamespace(low_priority=low_priority, cache_salt=b"")
        assert _has_room(bank, asker, array("i", [1, 2, 3]), most)  # type: ignore[arg-type]
        assert not _has_room(bank, asker, array("i", [1, 2, 3]), most + 1)  # type: ignore[arg-type]

"""Which bank a sequence should live in: where it costs least, and pushes out least."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from itertools import accumulate

from ..kv_cache.cache_bank import CacheBank
from ..kv_cache.row_placement import packed_highs
from .pass_costs import PassCosts, overlapped
from .sequence import Sequence

HEADROOM = 64  # rows a sequence should find free beyond its prompt, so that it does not push another out at once

Bank = CacheBank[Sequence]


def choose_bank(banks: Iterable[Bank], sequence: Sequence, costs: PassCosts, num_cards: int = 1) -> Bank | None:
    """The bank where the sequence costs least: what it must compute there, and what its rows add to everybody's passes.
    Of equal ones that where fewer rows that others might go on from are pushed out. None: no bank has room.
    `num_cards`: over which the model is split, so that passes of as many banks run at a time."""
    best: tuple[tuple[float, int], Bank] | None = None
    banks = list(banks)
    rounds = {bank.index: costs.round_seconds(_highs(_sizes(bank), bank)) for bank in banks if num_cards > 1}
    for bank in banks:
        others = [seconds for index, seconds in rounds.items() if index != bank.index]
        cost = _cost(bank, sequence, costs, others, num_cards)
        if cost is not None and (best is None or cost < best[0]):
            best = (cost, bank)
    return best[1] if best else None


def _cost(
    bank: Bank, sequence: Sequence, costs: PassCosts, others: list[float], num_cards: int
) -> tuple[float, int] | None:
    """Seconds that the sequence costs in this bank, and rows that it pushes out; None where it finds no room. `others`:
    seconds of a round of each other bank, where passes overlap."""
    tokens, num_rows = sequence.tokens, bank.pool.num_rows
    cached, common = bank.num_shared(tokens[:-1], sequence.cache_salt)
    shared = max(cached, common)
    need = min(len(tokens) - shared + _headroom(sequence), num_rows) + sum(map(_num_promised, bank.sequences))
    if not _has_room(bank, sequence, tokens[:-1], need):
        return None
    sizes = _sizes(bank)
    highs = _highs(sizes, bank)
    later = _highs(sorted([*sizes, len(tokens) - common + _headroom(sequence)]), bank)
    then, now = (overlapped([*others, costs.round_seconds(each)], num_cards) for each in (later, highs))
    stay = then - now
    seconds = stay * sequence.num_to_generate + costs.entry_seconds(shared, len(tokens), highs)
    return seconds, max(0, need - bank.pool.num_free)


def _highs(sizes: list[int], bank: Bank) -> list[int]:
    """Up to which row sequences of these sizes see, one above the other."""
    return [min(high, bank.pool.num_rows) for high in accumulate(sizes)]


def _headroom(sequence: Sequence) -> int:
    """Rows of its answer that a sequence should find free."""
    return min(HEADROOM, sequence.num_to_generate)


def _num_promised(sequence: Sequence) -> int:
    """Rows that one who lives in a bank has still to take: the rest of its prompt, and some of its answer."""
    computed = max(sequence.num_cached, sequence.prefix_owner_tokens)
    return len(sequence.tokens) - computed + _headroom(sequence)


def _sizes(bank: Bank) -> list[int]:
    """Rows that each sequence adds to those before it, with the rest of its prompt and some of its answer; few
    first."""
    seqs = sorted(bank.sequences, key=lambda s: s.num_cached)
    highs, _ = packed_highs([s.rows for s in seqs], bank.pool.num_rows)
    added = (high - low for high, low in zip(highs, [0, *highs], strict=False))
    return sorted(rows + _num_promised(s) for rows, s in zip(added, seqs, strict=True))


def _has_room(bank: Bank, sequence: Sequence, tokens: array, num_rows: int) -> bool:
    """Whether the sequence would find `num_rows` more rows there without taking any from another.

    A low-priority one beside others counts on free rows only: it may not push out what `take` would refuse it later."""
    if bank.pool.can_allocate(num_rows) or not bank.sequences:
        return True
    if sequence.low_priority:
        return False
    shared = bank.tree.match(tokens, sequence.cache_salt, touch=False).rows  # must stay
    highs, _ = packed_highs([*(s.rows for s in bank.sequences), shared], bank.pool.num_rows)
    return bank.pool.num_rows - highs[-1] >= num_rows

"""Turns at a card that engines share: in order, one at a time, whatever becomes of who has it."""

from __future__ import annotations

import threading
import time
from contextlib import suppress

import pytest

from axpress.core.recovery.turns import Turn, Turns


def test_nobody_waits_for_more_than_one_turn_of_each_other() -> None:
    turns, order, begun = Turns(), list[str](), threading.Barrier(3)

    def user(name: str) -> None:
        turn = Turn(turns)
        begun.wait()
        for _ in range(50):
            with turn.hold():
                order.append(name)
                while len(turns.waiting) < 2 and len(order) < 90:  # whoever is between two turns comes back
                    time.sleep(0.0001)

    threads = [threading.Thread(target=user, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(len(set(order[i : i + 3])) == 3 for i in range(0, 87, 3)), order


def test_a_turn_may_be_entered_again_and_ends_with_the_outermost_block() -> None:
    turns = Turns()
    mine, other = Turn(turns), Turn(turns)
    with mine.hold(), mine.hold():
        assert turns.holder is mine
    assert turns.holder is None
    with other.hold():
        assert turns.holder is other


def test_who_does_not_want_to_wait_any_longer_keeps_nobody() -> None:
    turns = Turns()
    first, second, third = Turn(turns), Turn(turns), Turn(turns)

    def enough() -> None:
        raise KeyError("enough")

    def impatient() -> None:
        with suppress(KeyError), second.hold(enough):
            pytest.fail("it has it")

    with first.hold():
        thread = threading.Thread(target=impatient)
        thread.start()
        thread.join()
    with third.hold():
        assert not turns.waiting


def test_a_thread_that_is_given_up_leaves_its_turn_to_the_next_of_the_same_user() -> None:
    turns, hangs, comes_back = Turns(), threading.Event(), threading.Event()
    mine, other = Turn(turns), Turn(turns)

    def hanging() -> None:
        with mine.hold():
            hangs.set()
            comes_back.wait()

    thread = threading.Thread(target=hanging)
    thread.start()
    hangs.wait()
    mine.inherit()
    with mine.hold():
        comes_back.set()
        thread.join()
        assert turns.holder is mine
    with other.hold():
        assert turns.holder is other


def test_nobody_waits_for_the_turn_of_a_user_who_ended() -> None:
    turns, hangs, comes_back = Turns(), threading.Event(), threading.Event()
    mine, other = Turn(turns), Turn(turns)

    def hanging() -> None:
        with mine.hold():
            hangs.set()
            comes_back.wait()

    thread = threading.Thread(target=hanging)
    thread.start()
    hangs.wait()
    mine.inherit()
    mine.drop()
    with other.hold():
        comes_back.set()
        thread.join()
        assert turns.holder is other

"""Calls that may never come back, and those that come back in the very moment in which they are given up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from axpress.core.recovery.bounded_call import BoundedCall, CallHangs


def comes_back_now(discarded: list[str]) -> tuple[BoundedCall[str], Callable[[], None]]:
    """A call, and what makes it come back while it is waited for."""
    go = threading.Event()

    def work() -> str:
        go.wait()
        return "result"

    call = BoundedCall("a test", work, discarded.append)

    def meanwhile() -> None:
        go.set()
        while not call.done:
            time.sleep(0.001)

    return call, meanwhile


def test_what_comes_in_the_moment_of_the_deadline_is_taken() -> None:
    discarded: list[str] = []
    call, meanwhile = comes_back_now(discarded)
    assert call.result(-1.0, meanwhile) == "result"
    assert discarded == []


def test_what_comes_in_the_moment_in_which_nobody_wants_it_any_more_is_put_away() -> None:
    discarded: list[str] = []
    call, come_back = comes_back_now(discarded)

    def meanwhile() -> None:
        come_back()
        raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        call.result(60.0, meanwhile)
    call.wait(60.0)
    assert discarded == ["result"]


def test_what_comes_late_is_put_away() -> None:
    go, discarded = threading.Event(), list[bool]()
    call = BoundedCall("a test", go.wait, discarded.append)
    with pytest.raises(CallHangs, match=r"a test did not end within 0\.01 s"):
        call.result(0.01)
    assert not discarded and not call.done
    go.set()
    call.wait(60.0)
    assert discarded == [True]

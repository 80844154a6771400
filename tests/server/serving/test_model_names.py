"""A model answers to what people call it, and says what that is to who calls it something else."""

from __future__ import annotations

import pytest

from axpress.server.http.errors import HttpError
from axpress.server.serving.model_names import ModelNames

NAMES = ModelNames("Qwen3-4B", ("qwen3-4b-ax650", "AXERA-TECH/Qwen3-4B", "qwen3-4b", "mine:1b"))


KNOWN = "default Qwen3-4B qwen3-4b QWEN3-4B:latest qwen3-4B-ax650 axera-tech/qwen3-4b AXERA-TECH/Qwen3-4B:latest"


@pytest.mark.parametrize("name", [None, "mine:1b", "MINE:1B", *KNOWN.split()])
def test_every_name_of_the_model_is_it(name: str | None) -> None:
    NAMES.check(name)


@pytest.mark.parametrize("name", ["", "Qwen3-1.7B", "4B", "mine", "mine:2b", "gpt-4o", ":latest", "x" * 999])
def test_another_name_is_told_which_ones_work_and_what_adds_one(name: str) -> None:
    with pytest.raises(HttpError) as error:
        NAMES.check(name)
    text = str(error.value)
    assert error.value.status == 404 and error.value.code == "model_not_found" and len(text) < 450
    for known in ("Qwen3-4B", "qwen3-4b-ax650", "AXERA-TECH/Qwen3-4B", "default", "--alias NAME"):
        assert known in text


def test_a_tag_of_the_served_name_itself_may_be_left_out() -> None:
    names = ModelNames("tiny:latest")
    names.check("tiny")
    names.check("tiny:latest")
    assert ModelNames("a", ("A", "a:latest", "")).aliases == ()

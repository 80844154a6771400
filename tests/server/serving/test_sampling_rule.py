"""A client that asks for randomness gets it, whatever the package prefers; a silent one gets the package's choice.

The three forms are those of published post_config.json files: A takes the best token (top_k 1), B draws from the ten
best, C has everything switched off, which the vendor's programs take for "the best token".
"""

from __future__ import annotations

from typing import Any

import pytest

from axpress.core.request import SamplingParams
from axpress.server.openai.chat import ChatDialect
from axpress.server.serving.input_processor import sampling
from axpress.server.serving.model_limits import ModelLimits
from axpress.server.serving.model_names import ModelNames

NAMES = ModelNames("m")
FORMS = {
    "A": SamplingParams(top_k=1, penalty_window=20),
    "B": SamplingParams(temperature=0.9, top_k=10),
    "C": SamplingParams(temperature=0.0),
}


def asked(form: str, **fields: Any) -> SamplingParams:
    document = {"messages": [{"role": "user", "content": "hi"}], **fields}
    return sampling(ChatDialect.read(document, NAMES).spec, ModelLimits(NAMES, 1000, 100, FORMS[form]))


def is_greedy(params: SamplingParams) -> bool:
    return params.temperature == 0 or params.top_k == 1 or params.top_p == 0


@pytest.mark.parametrize("form", FORMS)
def test_silence_is_the_packages_choice(form: str) -> None:
    assert asked(form) == FORMS[form] and asked(form, seed=5, max_tokens=3).temperature == FORMS[form].temperature
    assert is_greedy(asked(form)) == (form != "B")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "fields", [{"temperature": 0.9}, {"temperature": 0.9, "top_p": 0.95}, {"top_p": 0.8}, {"temperature": 1e-3}]
)
def test_who_asks_for_randomness_gets_it(form: str, fields: dict[str, float]) -> None:
    params = asked(form, **fields)
    assert not is_greedy(params)
    assert params.temperature == fields.get("temperature", FORMS[form].temperature or 1.0)
    assert params.top_p == fields.get("top_p", 1.0)
    assert params.top_k == (10 if form == "B" else 0), "what does not undo it stays"


@pytest.mark.parametrize("form", FORMS)
def test_who_asks_for_the_best_token_gets_it(form: str) -> None:
    for fields in ({"temperature": 0}, {"temperature": 0, "top_p": 0.9}, {"temperature": 0.9, "top_k": 1}):
        assert is_greedy(asked(form, **fields)), fields

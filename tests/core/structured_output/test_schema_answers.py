"""Answers that finish are valid JSON of their schema, whatever the model thinks: random schemas, a model of random
weights.

`AXPRESS_SCHEMAS=500 pytest tests/core/structured_output/test_schema_answers.py` is the full campaign; without it
there are fewer schemas.
"""

from __future__ import annotations

import json
import os

import jsonschema
import pytest
from collecting import Collector
from random_schemas import random_schema
from tiny_models import Tiny, convert_tiny

from axpress.core.engine.engine import Engine
from axpress.core.errors import RequestError
from axpress.core.request import GenerationRequest, SamplingParams
from axpress.core.structured_output.grammar_compiler import GrammarCompiler, JsonSchema, OutputSpec

SCHEMAS = int(os.environ.get("AXPRESS_SCHEMAS", "80"))
TEMPERATURES = (0.0, 1.0, 2.0)
MAX_TOKENS = 200


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("schemas")
    package = convert_tiny(
        folder,
        Tiny("qwen3", layers=1, hidden=32, heads=2, kv_heads=1, ffn=48),
        rows=2047,
        chunk=64,
        history=[0, 64, 1024],
    )
    engine = Engine.open(package, "emu", "none", max_queue=10**6, threaded=False)
    yield engine
    engine.close()


def is_beginning_of_json(text: str) -> bool:
    """Whether some JSON text begins like this: its first error is that it ends."""
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        tail = text[error.pos :]
        return (
            error.pos >= len(text) - 1
            or "Unterminated string" in error.msg
            or tail in ("-", "t", "tr", "tru")
            or len(tail) < 8
        )
    return True


def test_every_finished_answer_satisfies_its_schema(engine: Engine) -> None:
    grammars = GrammarCompiler(engine.text, engine.info.vocab_size)
    asked: list[tuple[dict, float, Collector]] = []
    refused = []
    for seed in range(SCHEMAS):
        schema = random_schema(seed)
        try:
            constraint = grammars.compile(OutputSpec(JsonSchema(schema)))
        except RequestError as error:
            refused.append(str(error))
            continue
        for temperature in TEMPERATURES:
            params = SamplingParams(temperature=temperature, seed=seed)
            request = GenerationRequest([seed % 250, 7, 8], params, MAX_TOKENS, ignore_eos=True, constraint=constraint)
            answer = Collector()
            engine.submit(request, answer)
            asked.append((schema, temperature, answer))
    while engine.step():
        pass
    engine.scheduler.check_integrity()
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    finished = 0
    for schema, temperature, answer in asked:
        case = f"{answer.text!r} at temperature {temperature} for {json.dumps(schema)}"
        if answer.reason == "stop":
            finished += 1
            jsonschema.Draft202012Validator(schema, format_checker=checker).validate(json.loads(answer.text))
        else:
            assert answer.reason == "length" and answer.num_tokens == MAX_TOKENS, (
                f"{answer.reason} {answer.error}: {case}"
            )
            assert is_beginning_of_json(answer.text), case
    assert len(refused) <= 0.06 * SCHEMAS, refused
    assert finished >= 0.7 * len(asked)
    print(f"{finished} of {len(asked)} answers finished; {len(refused)} of {SCHEMAS} schemas refused")

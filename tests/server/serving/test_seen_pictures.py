"""From a picture's file to the model's answer, for every family with eyes: as transformers have it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from collecting import Collector
from pictures import data_url, file, picture
from seeing_models import log_probabilities, placeholder_of, seeing_package
from tiny_vision_models import CASES, TinyVision

from axpress.core.engine.engine import Engine
from axpress.server.openai.chat import ChatDialect
from axpress.server.serving.input_processor import prepare_request
from axpress.server.serving.pictures import PictureRoom, Pictures
from axpress.server.serving.served_model import ServedModel
from axpress.server.settings import Settings

FAMILIES = [tiny for tiny in CASES if tiny.name in ("qwen2_5_vl", "internvl", "internvl-planes", "smolvlm-smaller")]


@pytest.mark.parametrize("tiny", FAMILIES, ids=lambda tiny: tiny.name)
def test_the_likeliest_tokens_are_those_of_transformers(tiny: TinyVision, tmp_path: Path) -> None:
    model, package = seeing_package(tiny, tmp_path)
    pictures = [picture(90, 60, 3), picture(40, 70, 4)][: 1 if tiny.family == "smolvlm" else 2]
    parts = [{"type": "image_url", "image_url": {"url": data_url(file(one))}} for one in pictures]
    asked = {"messages": [{"role": "user", "content": [*parts, {"type": "text", "text": "hi"}]}], "max_tokens": 1,
             "temperature": 0, "logprobs": True, "top_logprobs": 5, "ignore_eos": True}  # fmt: skip
    engine = Engine.open(package, "emu", "none")
    try:
        served = ServedModel.of(engine, Settings(model_dir=package))
        dialect = ChatDialect.read(asked, served.limits.names)

        async def pictures_of() -> Pictures:
            room = PictureRoom(Settings())
            try:
                return await room.prepare(dialect.spec.images, served)
            finally:
                room.close()

        spec, runs = dialect.spec.without_sources(), asyncio.run(pictures_of())
        (request,) = prepare_request(spec, served, b"", b"", runs).requests
        sink = Collector()
        engine.submit(request, sink)
        (first,) = sink.wait().logprobs
    finally:
        engine.close()
    mark = engine.text.encode_control(placeholder_of(tiny))
    wanted = log_probabilities(model, tiny, request.prompt_ids, mark, pictures)
    blind = log_probabilities(model, tiny, request.prompt_ids, mark, [])
    best = np.argsort(-wanted)[:5]
    np.testing.assert_allclose([value for _, value in first.top], wanted[best], atol=0.06)
    assert first.token == best[0] and np.abs(wanted - blind).max() > 0.3, "it looks"

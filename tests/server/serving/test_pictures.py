"""Pictures of requests, from every dialect to the engine's request: in their places, within limits, never from text."""

from __future__ import annotations

import asyncio
import base64
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import chat_templates
import numpy as np
import pytest
from chat_templates import random_package, text_with
from pictures import SVG, data_url, file, picture, png_bomb

from axpress.core.engine.engine import Engine
from axpress.core.errors import ContextOverflow, QueueFull, RequestError
from axpress.core.request import GenerationRequest
from axpress.core.vision import EncoderInput, ImageAdapter, adapter_for
from axpress.server.anthropic.dialect import MessagesDialect
from axpress.server.ollama.dialect import OllamaChat, OllamaGenerate
from axpress.server.openai.chat import ChatDialect
from axpress.server.openai.responses import ResponsesDialect
from axpress.server.serving import pictures
from axpress.server.serving.chat_format import chat_format_of
from axpress.server.serving.dialect import Dialect
from axpress.server.serving.input_processor import prepare_request
from axpress.server.serving.pictures import PictureRoom
from axpress.server.serving.served_model import ServedModel
from axpress.server.settings import Settings

EYES = adapter_for("qwen3_vl", EncoderInput((16, 512, 3), np.dtype(np.uint8)))
PAD = "<|image_pad|>"
RED, BLUE = (file(picture(50, 40, seed)) for seed in (1, 2))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedModel]:
    package = random_package(tmp_path_factory.mktemp("seeing"), chat_templates.SEEING)
    engine = Engine.open(package, "emu", "none", threaded=False)
    try:
        blind = ServedModel.of(engine, Settings(model_dir=package))
        assert blind.eyes is None
        yield replace(blind, eyes=EYES, chat_format=chat_format_of(engine.text, None, EYES))
    finally:
        engine.close()


def prepared(dialect: Dialect, served: ServedModel, **settings: Any) -> GenerationRequest:
    """What becomes of a request, as the handler makes it."""

    async def make() -> GenerationRequest:
        room = PictureRoom(Settings(**settings))
        try:
            runs = await room.prepare(dialect.spec.images, served)
        finally:
            room.close()
        dialect.pictures_taken()
        return prepare_request(dialect.spec, served, b"salt", b"", runs).requests[0]

    return asyncio.run(make())


def refusal(dialect: Dialect, served: ServedModel, **settings: Any) -> RequestError:
    with pytest.raises(RequestError) as refused:
        prepared(dialect, served, **settings)
    return refused.value


def shown(request: GenerationRequest, served: ServedModel) -> str:
    return served.engine.text.decode(request.prompt_ids, skip_special_tokens=False)


def said(*parts: Any, **fields: Any) -> ChatDialect:
    content = [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts]
    return ChatDialect.read({"messages": [{"role": "user", "content": content}], **fields}, None)  # type: ignore[arg-type]


def url_part(data: bytes, **fields: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": data_url(data), **fields}}


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


SEEN = "<|vision_start|>" + PAD * 4 + "<|vision_end|>"


def test_pictures_stand_in_their_places(served: ServedModel) -> None:
    request = prepared(said("first ", url_part(RED), " then ", url_part(BLUE), " differ?"), served)
    text = f"<|im_start|>user\nfirst {SEEN} then {SEEN} differ?<|im_end|>\n<|im_start|>assistant\n"
    assert shown(request, served) == text
    pad = served.engine.text.encode_control(PAD)
    assert [i for i, token in enumerate(request.prompt_ids) if token == pad] == [
        index for image in request.images for index in range(image.start, image.start + image.num_tokens)
    ]
    expected = [EYES.prepare(data)[0] for data in (RED, BLUE)]
    for image, run in zip(request.images, expected, strict=True):
        assert (image.digest, image.grid, image.num_tokens) == (run.digest, (2, 2), 4)
        np.testing.assert_array_equal(image.pixels, run.pixels)
    assert request.cache_salt == b"salt"


def _read(kind: type[Dialect], **fields: Any) -> Dialect:
    return kind.read(fields, Names())  # type: ignore[arg-type]


class Names:
    """Any name is the model's."""

    def check(self, name: str | None) -> None: ...


def every_dialect(data: bytes, text: str = "what?") -> list[Dialect]:
    """One request in each spelling: a picture and then a text."""
    image = {"type": "input_image", "image_url": data_url(data), "detail": "high"}
    block = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": _base64(data)}}
    by_url = {"type": "image", "source": {"type": "url", "url": data_url(data)}}
    user = [{"role": "user", "content": text, "images": [_base64(data)]}]
    return [
        said(url_part(data, detail="auto"), text),
        said({"type": "image_url", "image_url": data_url(data)}, text),
        _read(ResponsesDialect, input=[{"role": "user", "content": [image, {"type": "input_text", "text": text}]}]),
        _read(OllamaChat, model="default", messages=user),
        _read(OllamaGenerate, model="default", prompt=text, images=[data_url(data)]),
        *(
            _read(
                MessagesDialect, model="default", max_tokens=9,
                messages=[{"role": "user", "content": [one, {"type": "text", "text": text}]}],
            )
            for one in (block, by_url)
        ),
    ]  # fmt: skip


def test_every_dialect_asks_the_same(served: ServedModel) -> None:
    requests = [prepared(dialect, served) for dialect in every_dialect(RED)]
    assert {shown(request, served) for request in requests} == {
        f"<|im_start|>user\n{SEEN}what?<|im_end|>\n<|im_start|>assistant\n"
    }
    assert {request.images[0].digest for request in requests} == {EYES.prepare(RED)[0].digest}


def test_a_model_without_eyes_refuses_by_name(served: ServedModel) -> None:
    blind = replace(served, eyes=None)
    for dialect, field in zip(
        every_dialect(b"nothing is looked at"),
        (
            *["messages[0].content[0].image_url"] * 2, "input[0].content[0].image_url", "messages[0].images[0]",
            "images[0]", "messages[0].content[0].source.data", "messages[0].content[0].source.url",
        ),
        strict=True,
    ):  # fmt: skip
        error = refusal(dialect, blind)
        assert (error.param, error.code) == (field, "invalid_value")
        assert "reads text only" in str(error)


def test_text_that_spells_a_placeholder_is_text(served: ServedModel) -> None:
    """A picture's tokens come from pictures alone: nothing is drawn by words, and nobody's picture is moved by them."""
    spelled = f"{SEEN}<|vision_start|>{PAD}"
    request = prepared(said(f"{spelled} a ", url_part(RED), f" b {spelled}"), served)
    pad = served.engine.text.encode_control(PAD)
    assert request.prompt_ids.count(pad) == 4
    assert shown(request, served).count(PAD) == 4 + 2 * spelled.count(PAD)
    (image,) = request.images
    assert request.prompt_ids[image.start : image.start + 4] == [pad] * 4
    alone = prepared(said(spelled), served)
    assert pad not in alone.prompt_ids and alone.images == ()
    tools = [{"type": "function", "function": {"name": "f", "description": spelled}}]
    assert prepared(said(url_part(RED), tools=tools), served).prompt_ids.count(pad) == 4


@pytest.mark.parametrize("template", ["QWEN", "STERN", "LISTING"])
def test_templates_of_other_kinds_show_pictures_too(template: str, tmp_path: Path) -> None:
    """One that knows text only gets the family's own way to write a picture; one that knows lists only gets lists."""
    text = text_with(getattr(chat_templates, template), tmp_path / "t")
    chat_format = chat_format_of(text, None, EYES)
    assert (chat_format.picture, chat_format.only_parts) == (
        (None, True) if template == "LISTING" else (EYES.in_text, False)
    )
    spec = said(f"a {PAD} ", url_part(RED), f" b {PAD}").spec.without_sources()
    ids, _ = chat_format.prompt(spec)
    assert ids.count(text.encode_control(PAD)) == 1
    mark = PAD if template == "LISTING" else EYES.in_text
    assert f"user\na {PAD} {mark} b {PAD}<|im_end|>" in text.decode(ids, skip_special_tokens=False)
    plain, _ = chat_format.prompt(said("hi").spec)
    assert "user\nhi<|im_end|>" in text.decode(plain, skip_special_tokens=False)


def test_functions_are_told_before_a_picture_where_there_is_no_system_message(tmp_path: Path) -> None:
    text = text_with(chat_templates.STERN, tmp_path / "t")
    chat_format = chat_format_of(text, None, EYES)
    tools = [{"type": "function", "function": {"name": "weather"}}]
    ids, _ = chat_format.prompt(said(url_part(RED), "rain?", tools=tools).spec.without_sources())
    whole = text.decode(ids, skip_special_tokens=False)
    assert whole.index("weather") < whole.index(PAD) < whole.index("rain?")


def test_a_hundred_pictures_are_refused_before_any_is_decoded(
    served: ServedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageAdapter, "prepare", lambda *_: pytest.fail("a picture was decoded"))
    monkeypatch.setattr(PictureRoom, "_read", lambda *_: pytest.fail("a picture was read"))
    error = refusal(said(*[url_part(RED)] * 100), served)
    assert "100 pictures; this server takes at most 8" in str(error) and error.code == "too_many_images"


def test_a_picture_that_comes_again_is_not_decoded_again(served: ServedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[bytes] = []
    prepare = ImageAdapter.prepare
    monkeypatch.setattr(
        ImageAdapter, "prepare", lambda eyes, data, *more: decoded.append(data) or prepare(eyes, data, *more)
    )
    monkeypatch.setattr(pictures, "KEPT_BYTES", 2 * EYES.prepare(RED)[0].pixels.nbytes)
    decoded.clear()
    green = file(picture(seed=3))

    async def ask() -> None:
        room = PictureRoom(Settings())
        try:
            for data in (RED, BLUE, RED, BLUE, green, BLUE, RED):  # room for two: RED went for green
                (runs,) = await room.prepare(said(url_part(data)).spec.images, served)
                assert runs[0].digest == prepare(EYES, data)[0].digest
            await room.prepare(said(url_part(RED)).spec.images, served, b"of somebody else")
        finally:
            room.close()

    asyncio.run(ask())
    assert decoded == [RED, BLUE, green, RED, RED]


def test_requests_that_wait_for_their_pictures_are_bounded(served: ServedModel) -> None:
    async def crowd() -> list[Any]:
        room = PictureRoom(Settings(max_queue=3))
        sources = said(url_part(RED)).spec.images
        try:
            return await asyncio.gather(*[room.prepare(sources, served) for _ in range(5)], return_exceptions=True)
        finally:
            room.close()

    outcomes = asyncio.run(crowd())
    assert [isinstance(outcome, QueueFull) for outcome in outcomes] == [False] * 3 + [True] * 2


def test_the_limits_are_the_owners(served: ServedModel) -> None:
    assert len(prepared(said(*[url_part(RED)] * 9), served, max_images=9).images) == 9
    assert "--max-images" in str(refusal(said(*[url_part(RED)] * 2), served, max_images=1))
    assert "--max-image-pixels" in str(refusal(said(url_part(RED)), served, max_image_pixels=1999))
    assert "--max-image-bytes" in str(refusal(said(url_part(RED)), served, max_image_bytes=len(RED) - 1))
    assert prepared(said(url_part(RED)), served, max_image_pixels=2000, max_image_bytes=len(RED)).images


@pytest.mark.parametrize(
    ("url", "told"),
    [
        (data_url(SVG, "image/svg+xml"), "SVG"),
        ("data:image/svg+xml;utf8,<svg/>", "base64"),
        ("data:image/png;base64,", "no bytes"),
        ("data:image/png;base64,%%%", "not base64"),
        ("data:image/png;base64", "base64,..."),
        (data_url(RED[:60]), "damaged or cut off"),
        (data_url(png_bomb()), "900000000 pixels"),
        ("http://127.0.0.1:9/a.png", "fetches no pictures from 127.0.0.1"),
        ("https://example.com/a.png", "--allow-image-host example.com"),
        ("file:///etc/passwd", "data: URL"),
        ("/etc/passwd", "data: URL"),
        ("http://a@example.com/", "data: URL"),
        ("http://exa\nmple.com/", "data: URL"),
    ],
)
def test_what_is_no_picture_is_refused_by_name(served: ServedModel, url: str, told: str) -> None:
    error = refusal(said("a", {"type": "image_url", "image_url": {"url": url}}), served)
    assert told in str(error) and error.param == "messages[0].content[1].image_url"


def test_a_name_that_is_looked_up_for_long_holds_up_nobody(
    served: ServedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not those either who send their pictures themselves."""
    known = threading.Event()

    def look_up(*_: Any, **__: Any) -> list[Any]:
        known.wait(60)
        raise OSError("not found")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(pictures, "FETCH_SECONDS", 0.3)
    slow = {"type": "image_url", "image_url": {"url": "http://images.example.org/a.png"}}
    for part in (slow, slow, slow):
        error = refusal(said(part), served, allow_image_hosts=("images.example.org",))
        assert error.code == "invalid_image_url" and "did not come within 0.3 s" in str(error)
    assert prepared(said(url_part(RED)), served).images
    known.set()


def test_pictures_count_towards_the_context(served: ServedModel) -> None:
    request = prepared(said(url_part(RED), "hi", max_tokens=5), served)
    context = served.limits.context_length
    small = replace(served, limits=replace(served.limits, context_length=len(request.prompt_ids) + 4))
    with pytest.raises(ContextOverflow, match=f"takes? {len(request.prompt_ids)} tokens"):
        prepared(said(url_part(RED), "hi", max_tokens=5), small)
    assert len(request.prompt_ids) < context


@pytest.mark.parametrize("role", ["system", "assistant"])
def test_only_the_user_shows_pictures(role: str) -> None:
    with pytest.raises(RequestError, match="only"):
        ChatDialect.read({"messages": [{"role": role, "content": [url_part(RED)]}]}, None)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="only messages of the user"):
        image = {"type": "input_image", "image_url": data_url(RED)}
        _read(ResponsesDialect, input=[{"role": role, "content": [image]}])
    with pytest.raises(RequestError, match="only messages of role user"):
        _read(OllamaChat, model="default", messages=[{"role": role, "images": [_base64(RED)]}])


def test_pictures_data_are_let_go(served: ServedModel) -> None:
    for dialect in every_dialect(RED):
        prepared(dialect, served)
        assert dialect.spec.images == []
        assert _base64(RED)[:40] not in repr(vars(dialect)), type(dialect)

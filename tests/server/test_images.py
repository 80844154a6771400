"""Pictures over HTTP: real clients send them; those that must do no harm are refused with a 400 that says why, memory
flat, nobody else disturbed."""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anthropic
import numpy as np
import ollama
import pytest
from documented_client import looks_during
from pictures import SVG, data_url, file, picture, png_bomb
from PIL import Image
from seeing_models import log_probabilities, placeholder_of, seeing_package
from server_process import RunningServer, chat, events, openai_client, post
from tiny_vision_models import TinyVision

from axpress.server.docs.routes import ROUTES

GOOD, OTHER = file(picture()), file(picture(30, 30, 1))
BOMB = png_bomb()
MIB = 1 << 20


QWEN = TinyVision("qwen3_vl", image_size=64)


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A tiny random Qwen3-VL, of transformers and as a package: it sees, and answers nonsense."""
    return seeing_package(QWEN, tmp_path_factory.mktemp("seeing"), rows=2047, history=[0, 128, 512, 1024])


@pytest.fixture(scope="module")
def server(seeing: tuple[Any, Path]) -> Iterator[RunningServer]:
    package = seeing[1]
    hosts = ("localhost", "127.0.0.1:1", "169.254.169.254", "[::1]")
    allowed = [flag for host in hosts for flag in ("--allow-image-host", host)]
    stored = ("--store-responses", package.parent / "responses.sqlite")
    with RunningServer(package, "--max-images", "4", *allowed, *stored, "--emu-profile", "none") as running:
        assert look(running, GOOD)[0] == 200
        before = running.process_status("VmHWM")
        yield running
        running.wait(running.idle, 30, "idle")
        assert look(running, GOOD)[0] == 200
        grown = running.process_status("VmHWM") - before
        assert grown < 220 * 1024, f"{grown} KiB more than before, whatever came"


def url(text: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": text}}


def seen(*parts: dict[str, Any], **fields: Any) -> dict[str, Any]:
    content = [*parts, {"type": "text", "text": "hi"}]
    return {"messages": [{"role": "user", "content": content}], "max_tokens": 2, "ignore_eos": True, **fields}


def look(server: RunningServer, *files: bytes, **fields: Any) -> tuple[int, Any]:
    return post(server, "/v1/chat/completions", **seen(*[url(data_url(data)) for data in files], **fields))


def told(answer: Any) -> str:
    error = answer["error"]
    return str(error if isinstance(error, str) else error["message"])


def in_every_dialect(server: RunningServer, data: bytes) -> list[tuple[int, Any]]:
    encoded = base64.b64encode(data).decode()
    block = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": encoded}}
    said = [{"role": "user", "content": [block]}]
    item = [{"role": "user", "content": [{"type": "input_image", "image_url": data_url(data)}]}]
    chat_messages = seen(url(data_url(data)))["messages"]
    return [
        look(server, data),
        post(server, "/v1/responses", input=item, max_output_tokens=2),
        post(server, "/api/chat", model="default", stream=False, messages=[{"role": "user", "images": [encoded]}]),
        post(server, "/api/generate", model="default", stream=False, prompt="hi", images=[encoded]),
        post(server, "/v1/messages", model="default", max_tokens=2, messages=said),
        post(server, "/v1/messages/count_tokens", model="default", messages=said),
        post(server, "/tokenize", messages=chat_messages),
    ]


def test_what_is_seen_is_what_transformers_see(server: RunningServer, seeing: tuple[Any, Path]) -> None:
    """The likeliest first tokens of an answer about two pictures, from the files to the logits."""
    pictures = [picture(64, 64, 5), picture(64, 64, 6)]
    parts = [url(data_url(file(pictures[0]))), {"type": "text", "text": " or "}, url(data_url(file(pictures[1])))]
    answer = look_at(server, parts, logprobs=True, top_logprobs=5)
    (first, *_) = answer["choices"][0]["logprobs"]["content"]
    ids = post(server, "/tokenize", messages=seen(*parts)["messages"])[1]["tokens"]
    (mark,) = post(server, "/tokenize", content=placeholder_of(QWEN), parse_special=True)[1]["tokens"]
    wanted = log_probabilities(seeing[0], QWEN, ids, mark, pictures)
    best = np.argsort(-wanted)[:5]
    np.testing.assert_allclose([entry["logprob"] for entry in first["top_logprobs"]], wanted[best], atol=0.05)
    assert first["token"] == post(server, "/detokenize", tokens=[int(best[0])])[1]["content"]
    assert np.abs(wanted - log_probabilities(seeing[0], QWEN, ids, mark, [])).max() > 0.5, "it looks"


def look_at(server: RunningServer, parts: list[dict[str, Any]], **fields: Any) -> Any:
    status, answer = post(server, "/v1/chat/completions", **seen(*parts, temperature=0, **fields))
    assert status == 200, answer
    return answer


def test_answers_tell_pictures_apart_and_do_not_depend_on_company(server: RunningServer) -> None:
    def asked(data: bytes) -> str:
        return str(look_at(server, [url(data_url(data))], max_tokens=12)["choices"][0]["message"]["content"])

    files = [file(picture(64, 64, seed)) for seed in range(10, 14)]
    alone = [asked(data) for data in files]
    assert len(set(alone)) > 1
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(asked, files * 2)) == alone * 2
    usage = look_at(server, [url(data_url(files[0]))])["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] > 18, "the picture is found in the cache"
    fresh = look_at(server, [url(data_url(file(picture(64, 64, 20))))])["usage"]
    assert fresh["prompt_tokens_details"]["cached_tokens"] < 10, "another picture is not"


def test_openais_client_sends_pictures(server: RunningServer) -> None:
    with openai_client(server) as client:
        assert client.models.list().data[0].model_extra == {
            "input_modalities": ["text", "image"],
            "max_model_len": 2047,
        }
        parts: Any = [{"type": "text", "text": "One: "}, url(data_url(GOOD)), url(data_url(OTHER))]
        messages: Any = [{"role": "user", "content": parts}]
        whole = client.chat.completions.create(model="default", messages=messages, max_tokens=4, temperature=0)
        stream = client.chat.completions.create(
            model="default", messages=messages, max_tokens=4, temperature=0, stream=True
        )
        text = "".join([chunk.choices[0].delta.content or "" for chunk in stream])
        assert text == whole.choices[0].message.content and whole.usage.prompt_tokens > 36


def test_responses_keep_their_pictures(server: RunningServer) -> None:
    """Stored with the conversation, which goes on with them; listed as they came; let go where nothing is stored."""
    with openai_client(server) as client:
        image: Any = {"type": "input_image", "image_url": data_url(GOOD), "detail": "low"}
        first = client.responses.create(
            model="default", input=[{"role": "user", "content": [image]}], max_output_tokens=2, store=True
        )
        items = client.responses.input_items.list(first.id).data
        assert items[0].content[0].image_url == data_url(GOOD)
        second = client.responses.create(
            model="default", input="and now?", previous_response_id=first.id, max_output_tokens=2, store=False
        )
        assert second.usage.input_tokens > first.usage.input_tokens + first.usage.output_tokens


def test_ollamas_client_sends_pictures(server: RunningServer, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(GOOD)
    options = {"num_predict": 3, "temperature": 0}
    with ollama.Client(server.url) as client:
        shown = client.show("default")
        assert shown.capabilities is not None and "vision" in shown.capabilities
        assert shown.modelinfo[f"{shown.modelinfo['general.architecture']}.vision.image_size"] == 64
        answers = [
            client.chat("default", [{"role": "user", "content": "hi", "images": [image]}], options=options)
            for image in (str(path), GOOD)
        ]
        texts = [answer.message.content for answer in answers]
        assert {client.generate("default", "hi", images=[GOOD], options=options).response, *texts} == {texts[0]}
        with pytest.raises(ollama.ResponseError, match="SVG"):
            client.generate("default", "hi", images=[SVG])
    told = server.request("GET", "/metrics")[2].decode()
    assert int(next(line for line in told.splitlines() if line.startswith("axpress_encoded_images_total")).split()[1])


def test_anthropics_client_sends_pictures(server: RunningServer) -> None:
    with anthropic.Anthropic(api_key="none", base_url=server.url, max_retries=0) as client:
        encoded = base64.b64encode(GOOD).decode()
        block: Any = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": encoded}}
        messages: Any = [{"role": "user", "content": [block, {"type": "text", "text": "hi"}]}]
        counted = client.messages.count_tokens(model="default", messages=messages).input_tokens
        answer = client.messages.create(model="default", messages=messages, max_tokens=2)
        assert answer.usage.input_tokens + (answer.usage.cache_read_input_tokens or 0) == counted > 18


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (BOMB, "900000000 pixels"),
        (GOOD[:300], "damaged or cut off"),
        (SVG, "SVG"),
        (b"", "no bytes"),
        (b"\xff\xd8\xff" + bytes(99), "JPEG is damaged"),
    ],
    ids=["bomb", "cut", "svg", "empty", "noise"],
)
def test_hostile_files_are_refused_in_every_dialect(server: RunningServer, data: bytes, why: str) -> None:
    for status, answer in in_every_dialect(server, data):
        assert status == 400 and (why in told(answer) or not data), answer


def test_odd_files_are_read(server: RunningServer) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    frames = {"save_all": True, "append_images": [picture(seed=3)]}
    odd = [file(picture(), "JPEG", exif=exif), file(picture(), "GIF", **frames), file(picture(), "WEBP", **frames),
           file(picture().convert("CMYK"), "JPEG"), file(picture(1, 1)), file(picture().convert("P")),
           file(Image.fromarray(np.full((9, 9), 40_000, np.uint16)))]  # fmt: skip
    for data in odd:
        status, answer = look(server, data)
        assert status == 200, answer
    for status, answer in in_every_dialect(server, GOOD):
        assert status == 200, answer


def test_pictures_are_counted(server: RunningServer) -> None:
    def counted(*files: bytes) -> list[int]:
        parts = [url(data_url(data)) for data in files]
        usage = look(server, *files)[1]["usage"]["prompt_tokens"]
        return [usage, post(server, "/tokenize", messages=seen(*parts)["messages"])[1]["count"]]

    none, one, two = counted(), counted(GOOD), counted(GOOD, GOOD)
    assert none[0] == none[1] and one[0] == one[1] and two[0] == two[1]
    assert two[0] - one[0] == one[0] - none[0] == 18  # 16 of the picture, one before and one after


def test_a_hundred_pictures(server: RunningServer) -> None:
    status, answer = look(server, *[BOMB] * 100)
    assert status == 400 and "100 pictures" in told(answer) and "--max-images" in told(answer)
    assert look(server, *[GOOD] * 4)[0] == 200 and look(server, *[GOOD] * 5)[0] == 400


def test_nobody_is_called_at_a_private_address(server: RunningServer) -> None:
    """Allowed or not: by number, by a name that leads there, by the metadata service's address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        port = listening.getsockname()[1]
        for text in (f"http://localhost:{port}/", f"http://127.0.0.1:{port}/", f"http://[::1]:{port}/",
                     "http://localhost/a.png", "https://localhost/a.png", "http://127.0.0.1:1/", "http://[::1]/",
                     "http://169.254.169.254/latest/meta-data", "file:///etc/passwd", "ftp://localhost/"):  # fmt: skip
            status, answer = post(server, "/v1/chat/completions", **seen(url(text)))
            assert status == 400 and "data: URL" in told(answer), answer
        with pytest.raises(BlockingIOError):
            listening.accept()


def test_pictures_may_be_larger_than_texts(server: RunningServer) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (1300, 1300, 3), np.uint8)
    large = file(Image.fromarray(noise), compress_level=0)
    assert 4 * MIB < len(large) < 10 * MIB
    assert look(server, large)[0] == 200
    status, _, answer = server.post(json.dumps(seen(url(data_url(large)), stop="x" * 10)).encode() + b" " * (14 * MIB))
    assert status == 413, answer
    status, answer = look(server, large + bytes(6 * MIB))
    assert status == 400 and "--max-image-bytes" in told(answer)


def test_many_large_pictures_at_a_time_are_decoded_one_by_one(server: RunningServer) -> None:
    """What all of them would take together is never held; the fixture looks at the memory in the end."""
    large = [file(Image.new("RGBA", (3200, 3200), (i, 9, 9, 99))) for i in range(5)]  # 41 MB each, and 31 on white
    with ThreadPoolExecutor(5) as pool:
        statuses = [status for status, _ in pool.map(lambda data: look(server, data), large)]
    assert statuses == [200] * 5


def test_streams_go_on_beside_them(server: RunningServer) -> None:
    """The same tokens as alone, and the server answers others while a picture is decoded."""
    question = chat("tell", max_tokens=60, temperature=0, ignore_eos=True, stream=True)
    raw = json.dumps(question).encode()
    alone = server.request("POST", "/v1/chat/completions", raw, {"content-type": "application/json"})[2]
    stop, statuses = threading.Event(), []

    def attack() -> None:
        while not stop.is_set():
            statuses.append(look(server, BOMB)[0])

    thread = threading.Thread(target=attack)
    thread.start()
    beside = server.request("POST", "/v1/chat/completions", raw, {"content-type": "application/json"})[2]
    stop.set()
    thread.join()
    texts = [
        "".join(c["delta"].get("content") or "" for e in events(one) for c in e["choices"]) for one in (alone, beside)
    ]
    assert texts[0] == texts[1] and set(statuses) == {400}
    large = file(Image.new("RGB", (5000, 4500)))
    (tokenize,) = [route for route in ROUTES if route.path == "/tokenize"]
    looks = looks_during(server, tokenize, {"messages": seen(url(data_url(large)))["messages"]})
    assert looks >= 3

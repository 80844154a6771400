"""The live view's data: true counts, shared rows seen as shared, nothing that anybody wrote, and many viewers at no
cost. And the page's files; what a browser makes of them is in test_page.py."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import time
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from collecting import Collector
from hypothesis import given, settings
from hypothesis import strategies as st
from server_process import RunningServer, chat, hollow_package, http_post

from axpress.core.device.emulator import Emulator
from axpress.core.engine import snapshot
from axpress.core.engine.engine import Engine
from axpress.core.engine.snapshot import MIN_SECONDS, row_owners
from axpress.core.errors import EngineClosed
from axpress.core.request import GenerationRequest, SamplingParams
from axpress.server.http.errors import HttpError
from axpress.server.monitor import live
from axpress.server.page import page_files
from axpress.server.serving.engine_service import Service
from axpress.server.settings import Settings


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return hollow_package(tmp_path_factory.mktemp("live"))


@pytest.fixture
def engine(package: tuple[Path, Path]) -> Iterator[Engine]:
    engine = Engine.open(package[0], "emu", "none", threaded=False, banks=2)
    yield engine
    engine.close()


@pytest.fixture
def threaded(package: tuple[Path, Path]) -> Iterator[Engine]:
    engine = Engine.open(package[0], "emu", "none", banks=1)
    yield engine
    engine.close()


def request(prompt: list[int], **fields: Any) -> GenerationRequest:
    return GenerationRequest(
        prompt, SamplingParams(temperature=1, seed=1), **{"max_tokens": 200, "ignore_eos": True, **fields}
    )


COMMON = list(range(100, 140))


# ---- the engine's side ----


@given(st.integers(1, 40), st.data())
def test_each_row_is_told_with_the_one_who_holds_it(num_rows: int, data: st.DataObject) -> None:
    row = st.integers(0, num_rows - 1)
    held = {
        n: data.draw(st.lists(row, unique=True))
        for n in data.draw(st.lists(st.integers(1, 99), unique=True, max_size=5))
    }
    cached = data.draw(st.sets(row))
    references = np.array([(i in cached) + sum(i in rows for rows in held.values()) for i in range(num_rows)], np.int32)
    owners = row_owners(references, [(n, np.array(rows, np.int32)) for n, rows in held.items()])
    for i, owner in enumerate(owners.tolist()):
        users = [n for n, rows in held.items() if i in rows]
        assert owner == (users[0] if len(users) == 1 else -len(users) if users else -1 if i in cached else 0)


@settings(max_examples=25)
@given(st.integers(1, 40_000), st.integers(1, 9), st.integers(0, 2**32))
def test_a_large_bank_is_told_in_few_words(rows: int, owners: int, seed: int) -> None:
    """However many answers have their rows in turns; what is counted stays exact, and so do all runs while they are
    few."""
    random = np.random.default_rng(seed)
    lengths = random.integers(1, 1 + 2 ** random.integers(1, 9), rows)
    held = np.repeat(random.integers(-3, owners, rows, np.int32), lengths)[:rows]
    told = live.describe_bank(held)
    holders, counts = told["runs"][0::2], told["runs"][1::2]
    assert sum(counts) == rows and len(counts) <= live.MAX_RUNS and min(counts) > 0
    assert (told["free"], told["idle"], told["shared"]) == (
        (held == 0).sum(), (held == -1).sum(), (held < -1).sum()
    )  # fmt: skip
    shown = np.repeat(holders, counts)
    exact = np.count_nonzero(np.diff(held)) < live.MAX_RUNS
    assert np.array_equal(shown, held) if exact else set(holders) <= set(held.tolist())


def test_the_largest_message_of_a_bank() -> None:
    """Rows in turns of answers with seven digits, just so many turns that all are told; twice as many are not."""
    turns = 1_000_000 + np.arange(32_767, dtype=np.int32) // 16 % 2
    told = live.describe_bank(turns)
    assert len(told["runs"]) == 2 * live.MAX_RUNS and len(json.dumps(told)) < 14 * live.MAX_RUNS
    assert len(live.describe_bank(1_000_000 + np.arange(32_767, dtype=np.int32) // 8 % 2)["runs"]) <= 2 * live.MAX_RUNS
    assert len(live.describe_bank(turns[:2047])["runs"]) == 2 * 128
    assert len(live.describe_bank(np.arange(2047, dtype=np.int32) % 2)["runs"]) == 2 * 2047


def test_a_common_beginning_is_seen_as_shared_and_goes_idle_in_the_end(engine: Engine) -> None:
    answers = [Collector() for _ in range(3)]
    engine.submit_all([request([*COMMON, 200 + i], max_tokens=30) for i in range(3)], answers)  # type: ignore[arg-type]
    assert engine.snapshot().num_waiting == 3 and engine.snapshot().running == []
    for _ in range(12):
        engine.step()
    picture = engine.snapshot()
    rows = Counter(picture.banks[0].tolist())
    assert [r.state for r in picture.running] == ["answer"] * 3 and picture.num_waiting == 0
    assert rows[-3] == len(COMMON)
    for one in picture.running:
        assert rows[one.number] == one.computed - len(COMMON) and one.prompt_tokens == len(COMMON) + 1
        assert one.generated == sum(d.num_tokens for d in answers[one.number - 1].deltas)
    assert rows[0] == engine.scheduler.banks[0].pool.num_free
    assert not picture.banks[1].any() and len(picture.banks[1]) == engine.scheduler.banks[1].pool.num_rows
    while engine.step():
        pass
    after = engine.snapshot()
    assert after.running == [] and Counter(after.banks[0].tolist()) == {
        0: rows[0] - 3 * 30 + sum(r.generated for r in picture.running),
        -1: len(COMMON) + 3 * 30,
    }


def test_the_state_of_each_answer(engine: Engine) -> None:
    engine.submit_all(
        [request([*COMMON, *range(200, 500)], low_priority=True), request([7, 8, 9])], [Collector(), Collector()]
    )
    engine.step()
    states = {r.number: r for r in engine.snapshot().running}
    assert states[1].low_priority and not states[2].low_priority
    assert (
        states[1].state == "prompt" and 0 <= states[1].computed < states[1].prompt_tokens and states[1].generated == 0
    )
    while any(r.state == "prompt" for r in engine.snapshot().running):
        engine.step()
    bank = next(b for b in engine.scheduler.banks if any(s.generation.id == 1 for s in b.sequences))
    engine.scheduler._preempt(bank)
    paused = next(r for r in engine.snapshot().running if r.number == 1)
    assert (paused.state, paused.bank, paused.computed) == ("paused", None, 0)
    assert not (engine.snapshot().banks[bank.index] == 1).any()


def test_passes_are_told_with_what_they_carried(engine: Engine) -> None:
    engine.submit_all([request([*COMMON, 200 + i]) for i in range(2)], [Collector(), Collector()])
    engine.step()
    assert engine.snapshot().widths == [(len(COMMON) + 1, 1)]  # the second one waits for the common part
    for _ in range(80):
        engine.step()
    assert len(engine.snapshot().widths) == 48


def test_speed_is_that_of_the_last_seconds(threaded: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "RATE_SECONDS", 60.0)
    before = threaded.snapshot()
    assert before.tokens_per_s is None  # nobody looked before
    answer = Collector()
    threaded.submit(request(COMMON), answer)
    answer.wait()
    time.sleep(MIN_SECONDS)
    first, again = threaded.snapshot(), threaded.snapshot()
    assert again is first
    assert first.tokens_per_s == pytest.approx(200 / (first.at - before.at), abs=0.01)


def test_the_card_tells_its_temperature_and_memory_or_nothing(engine: Engine) -> None:
    emulator = Emulator()
    try:
        emulator.set("TEMPERATURE", "61500")
        card = engine.snapshot().card
        assert card.temperature_c == 61.5
        assert card.memory_bytes and card.memory_free_bytes and 0 < card.memory_free_bytes < card.memory_bytes
        emulator.set("TEMPERATURE", "70000")
        assert engine.snapshot().card.temperature_c == 61.5  # asked a moment ago
        emulator.set("FAULTS", "axclrtGetDeviceProperties@1+=fail:0x80300181")
        engine.live._card_at -= 5
        silent = engine.snapshot().card
        assert silent.temperature_c is silent.memory_bytes is silent.memory_free_bytes is None
        engine.submit(request([1, 2, 3]), Collector())
        assert engine.step()
    finally:
        emulator.set("FAULTS", "")
        emulator.set("TEMPERATURE", "45000")


def test_no_picture_is_made_unless_somebody_asks_and_few_if_many_do(
    threaded: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, real = [], threaded.live._picture

    def counted() -> Any:
        made.append(1)
        return real()

    monkeypatch.setattr(threaded.live, "_picture", counted)
    answer = Collector()
    threaded.submit(request(COMMON), answer)
    answer.wait()
    assert not made
    asked = [threaded.live.ask() for _ in range(50)]
    pictures = {id(picture): picture for picture in (future.result(60) for future in asked)}
    assert len(pictures) == len(made) == 1
    while len(pictures) < 4:
        picture = threaded.snapshot()
        pictures[id(picture)] = picture
    times = [picture.at for picture in pictures.values()]
    assert len(made) == 4 and min(b - a for a, b in pairwise(times)) >= MIN_SECONDS


def test_a_picture_that_fails_is_the_askers_trouble_only(threaded: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threaded.live, "_picture", lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        threaded.snapshot()
    answer = Collector()
    threaded.submit(request(COMMON, max_tokens=3), answer)
    assert answer.wait().reason == "length"


def test_a_closed_engine_says_so(package: tuple[Path, Path]) -> None:
    engine = Engine.open(package[0], "emu", "none")
    engine.close()
    with pytest.raises(EngineClosed, match="shutting down"):
        engine.snapshot()


# ---- the feed ----


def test_a_viewer_that_does_not_read_holds_one_event(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        viewer = live.Viewer(None)
        for i in range(1000):
            viewer.offer(b"data: %d\n\n" % i)
        assert await viewer.next() == b"data: 999\n\n"
        monkeypatch.setattr(live, "HEARTBEAT", 0.01)
        assert await viewer.next() == b": nothing changed\n\n"
        viewer.end()
        assert await viewer.next() is None

    asyncio.run(main())


def test_one_look_serves_all_viewers_and_none_is_taken_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        feed, looks = live.Feed(Service(Settings())), []
        monkeypatch.setattr(live, "PERIOD", 0.01)

        async def document() -> bytes:
            looks.append(1)
            return b"%d" % len(looks)

        monkeypatch.setattr(feed, "document", document)
        viewers = [feed.join() for _ in range(live.MAX_VIEWERS)]
        with pytest.raises(HttpError) as refused:
            feed.join()
        assert refused.value.status == 429
        events = await asyncio.gather(*(viewer.next() for viewer in viewers))
        assert len(set(events)) == 1 and len(looks) <= 2
        for viewer in viewers:
            feed.leave(viewer)
        count = len(looks)
        await asyncio.sleep(0.05)
        assert len(looks) == count
        feed.close()
        with pytest.raises(EngineClosed):
            feed.join()

    asyncio.run(main())


def test_a_pass_that_takes_long_does_not_hold_up_those_who_watch(
    package: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator = Emulator()

    async def main() -> None:
        service = Service(Settings(model_dir=package[0], device="emu", profile=str(package[1])))
        await service.start()
        feed = live.Feed(service)
        before = json.loads(await feed.document())["picture"]
        emulator.set("SPEED", "0.005")  # about 1 s a pass
        generation = service.ready().engine.submit(request(COMMON), Collector())
        await asyncio.sleep(MIN_SECONDS)
        monkeypatch.setattr(live, "PICTURE_SECONDS", 0.05)
        document = json.loads(await feed.document())
        assert document["status"] == "ready" and document["picture"] == before  # not one of after the pass
        emulator.set("SPEED", "1")
        monkeypatch.setattr(live, "PICTURE_SECONDS", 5.0)
        assert len(json.loads(await feed.document())["picture"]["running"]) == 1
        generation.cancel()
        await service.stop()
        assert json.loads(await feed.document())["picture"] is None

    try:
        asyncio.run(main())
    finally:
        emulator.set("SPEED", "1")


def test_nothing_is_sent_while_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        feed, looks = live.Feed(Service(Settings())), []
        monkeypatch.setattr(live, "PERIOD", 0.01)
        monkeypatch.setattr(live, "HEARTBEAT", 0.2)

        async def document() -> bytes:
            looks.append(1)
            return b"the same"

        monkeypatch.setattr(feed, "document", document)
        viewer = feed.join()
        assert await viewer.next() == b"data: the same\n\n"
        assert await viewer.next() == b": nothing changed\n\n" and len(looks) > 3
        feed.leave(viewer)

    asyncio.run(main())


# ---- over HTTP ----


@pytest.fixture(scope="module")
def server(package: tuple[Path, Path]) -> Iterator[RunningServer]:
    with RunningServer(package[0], "--emu-profile", package[1], "--banks", "1") as running:
        yield running


def look(server: RunningServer) -> dict[str, Any]:
    status, head, body = server.request("GET", "/live")
    assert status == 200 and head["content-type"] == "application/json"
    document: dict[str, Any] = json.loads(body)
    return document


@contextlib.contextmanager
def watching(server: RunningServer) -> Iterator[http.client.HTTPResponse]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    try:
        connection.request("GET", "/live/stream")
        yield connection.getresponse()
    finally:
        connection.close()


def next_document(response: http.client.HTTPResponse) -> dict[str, Any]:
    while True:
        line = response.readline()
        assert line, "the stream ended"
        if line.startswith(b"data: "):
            document: dict[str, Any] = json.loads(line[6:])
            return document


SECRET = "zebra crossing"


@pytest.fixture
def three_answers(server: RunningServer) -> Iterator[None]:
    """Three that begin alike and run for seconds."""
    socks = []
    for i in range(3):
        sock = server.raw()
        sock.sendall(
            http_post(
                chat(f"{SECRET} " * 10 + f"number {i}", stream=True, ignore_eos=True, max_tokens=700, user=SECRET)
            )
        )
        socks.append(sock)
    server.wait(lambda: len((look(server)["picture"] or {}).get("running", [])) == 3, 10, "running")
    yield
    for sock in socks:
        sock.close()
    server.wait(server.idle, 30, "idle")


def test_what_is_told_adds_up_and_tells_nothing_that_was_said(server: RunningServer, three_answers: None) -> None:
    server.wait(lambda: look(server)["picture"]["banks"][0]["shared"] > 0, 30, "sharing")
    document = look(server)
    assert document["status"] == "ready" and document["emulated"] is True and document["toy"] is False
    picture = document["picture"]
    assert picture["num_waiting"] == 0 and picture["card"]["temperature_c"] == 45.0
    (bank,) = picture["banks"]
    holders, lengths = bank["runs"][0::2], bank["runs"][1::2]
    assert sum(lengths) == bank["rows"] == 1023 and all(length > 0 for length in lengths)
    rows: Counter[int] = Counter()
    for holder, length in zip(holders, lengths, strict=True):
        rows[holder] += length
    assert (rows[0], rows[-1]) == (bank["free"], bank["idle"])
    assert sum(n for holder, n in rows.items() if holder < -1) == bank["shared"]
    numbers = {one["number"] for one in picture["running"]}
    assert {holder for holder in rows if holder > 0} <= numbers
    assert all(tokens >= answers >= 1 for tokens, answers in picture["passes"])
    assert words(picture) <= {"prompt", "answer", "paused"}  # a name, a text, a client: none of it
    assert not any(word in json.dumps(document) for word in SECRET.split())


def words(value: Any) -> set[str]:
    """All strings among the values of a JSON document."""
    if isinstance(value, dict):
        return set().union(*map(words, value.values()))
    if isinstance(value, list):
        return set().union(*map(words, value))
    return {value} if isinstance(value, str) else set()


def test_the_stream_tells_changes(server: RunningServer) -> None:
    with watching(server) as response:
        assert response.status == 200 and str(response.getheader("content-type")).startswith("text/event-stream")
        while next_document(response)["picture"]["running"]:
            pass  # of the test before
        sock = server.raw()
        sock.sendall(http_post(chat(stream=True, ignore_eos=True, max_tokens=900)))
        seen = [next_document(response) for _ in range(4)]
        counts = [one["generated"] for document in seen for one in document["picture"]["running"]]
        assert len(counts) >= 2 and counts == sorted(set(counts))
        sock.close()


def test_many_watch_and_too_many_are_told(server: RunningServer, three_answers: None) -> None:
    with contextlib.ExitStack() as stack:
        viewers = [stack.enter_context(watching(server)) for _ in range(live.MAX_VIEWERS)]
        assert all(viewer.status == 200 for viewer in viewers)
        status, head, body = server.request("GET", "/live/stream")
        assert status == 429 and head["retry-after"] == "10" and json.loads(body)["error"]["code"] == "too_many_viewers"
        for _ in range(2):
            assert {len(next_document(viewer)["picture"]["running"]) for viewer in viewers} == {3}

    def free() -> bool:
        with watching(server) as one:
            return one.status == 200

    server.wait(free, 30, "free for viewers again")


def test_a_server_that_ends_ends_its_streams(package: tuple[Path, Path]) -> None:
    with RunningServer(package[0], "--emu-profile", package[1]) as server, watching(server) as response:
        next_document(response)
        assert server.stop() == 0
        while response.readline():
            pass


def test_only_those_with_a_key_watch(package: tuple[Path, Path]) -> None:
    with RunningServer(
        package[0], "--emu-profile", "none", environment={"AXPRESS_API_KEYS": "sesame-sesame-sesame"}
    ) as server:
        for path in ("/live", "/live/stream"):
            assert server.request("GET", path)[0] == 401
        assert server.request("GET", "/live", headers={"authorization": "Bearer sesame-sesame-sesame"})[0] == 200
        for path in ("/", "/page/main.js", "/page/style.css"):
            assert server.request("GET", path)[0] == 200


# ---- the page's files ----


def test_the_files_are_sent_with_what_keeps_a_browser_safe(server: RunningServer) -> None:
    for path in ("/", *(f"/page/{name}" for name in page_files())):
        status, head, body = server.request("GET", path)
        assert status == 200 and body
        assert head["x-content-type-options"] == "nosniff"
        policy = dict(part.strip().split(" ", 1) for part in head["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'" and {
            policy[f"{kind}-src"] for kind in ("script", "style", "img", "connect")
        } == {"'self'"}
        again = server.request("GET", path, headers={"if-none-match": head["etag"]})
        assert again[0] == 304 and again[2] == b""
        alone = server.request("HEAD", path)
        assert alone[0] == 200 and alone[2] == b"" and alone[1]["content-length"] == str(len(body))


@pytest.mark.parametrize(
    "path",
    [
        "/page/",
        "/page/__init__.py",
        "/page/../app.py",
        "/page/..%2fapp.py",
        "/page/%2e%2e%2fapp.py",
        "/page/x%00.js",
        "/page/a/b.js",
    ],
)
def test_no_other_file_is_sent(server: RunningServer, path: str) -> None:
    status, _, body = server.request("GET", path)
    assert status == 404 and json.loads(body)["error"]["code"] == "not_found"

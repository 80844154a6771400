"""`axpress serve` with several cards, under OpenAI's client: one fails while answers are streamed, and clients notice
nothing but the health. The cards are emulated."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from server_process import RunningServer, openai_client, tiny_package

from axpress.core.device.emulator import Emulator
from axpress.core.device.model_loader import devices_of
from axpress.core.model_files.model_package import open_package
from axpress.server.cli import main
from axpress.server.serving.engine_service import Service
from axpress.server.settings import Settings

LONG: dict[str, Any] = {"max_tokens": 60, "seed": 7, "extra_body": {"ignore_eos": True}}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return tiny_package(tmp_path_factory.mktemp("cards"))


def serve(package: tuple[Path, Path], *options: object, faults: str = "") -> RunningServer:
    environment = {"AXPRESS_EMU_FAULTS": faults, "AXPRESS_EMU_REBOOT_MS": "700"}
    return RunningServer(package[0], "--emu-profile", package[1], *options, environment=environment)


def streams(server: RunningServer, count: int = 4) -> list[str]:
    """What so many clients are told, all at once."""
    answers = [""] * count

    def ask(number: int) -> None:
        messages: Any = [{"role": "user", "content": f"tell me of sea number {number}"}]
        chunks = openai_client(server).chat.completions.create(model="default", messages=messages, stream=True, **LONG)
        answers[number] = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)

    clients = [threading.Thread(target=ask, args=(number,)) for number in range(count)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    server.wait(server.idle, 30, "idle")
    return answers


def metrics(server: RunningServer) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    text = server.request("GET", "/metrics")[2].decode()
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.items())] = sample.value
    return found


def test_streams_of_a_card_that_fails_go_on_on_the_other_and_all_is_told(
    package: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    with serve(package, "--device", "emu:0,1", faults="1:device=offline@800") as server:
        interrupted = streams(server)
        status, body = server.health()
        assert (status, body["status"]) == (200, "ready")
        first, second = body["cards"]
        server.wait(lambda: server.health()[1]["cards"][0]["status"] == "ready", 60, "well again")
        first = server.health()[1]["cards"][0]
        assert first["recoveries"] == {"rungs": {"reboot": 1}, "faults": {"card_lost": 1}}
        assert second["recoveries"] == {"rungs": {}, "faults": {}}
        assert streams(server) == interrupted and all(interrupted)
        server.wait(lambda: all(card["card"] for card in server.health()[1]["cards"]), 30, "read")
        body = server.health()[1]
        assert [(card["name"], card["device"]) for card in body["cards"]] == [
            ("0", "emulated card 1"), ("1", "emulated card 2"),
        ]  # fmt: skip
        assert all(card["stats"]["finished"] for card in body["cards"])
        assert body["stats"]["finished"] == sum(card["stats"]["finished"] for card in body["cards"]) == 8
        assert body["rows"] == sum(card["rows"] for card in body["cards"]) and body["max_running"] == 32
        now = metrics(server)
        label = [(("card", "0"),), (("card", "1"),)]
        for name in ("axpress_card_ready", "axpress_card_temperature_celsius", "axpress_rows", "axpress_card_duty"):
            assert list(now[name]) == label, name
        assert now["axpress_recoveries_total"] == {(("card", "0"), ("rung", "reboot")): 1}
        assert sum(now["vllm:generation_tokens_total"].values()) == 8 * 60
        picture = json.loads(server.request("GET", "/live")[2])["picture"]
        banks, cards = picture["banks"], picture["cards"]
        assert [card["name"] for card in cards] == ["0", "1"]
        assert main(["top", "--once", "--url", server.url]) == 0
        drawn = capsys.readouterr().out
        assert "2 cards, emulated" in drawn and "card 1" in drawn and "cache 0.0" in drawn and "cache 1.0" in drawn
        assert sum(card["num_banks"] for card in cards) == len(banks) == body["num_banks"]


def test_a_card_that_is_dead_degrades_the_server_and_is_told(
    package: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    with serve(package, "--device", "emu:0,1", "--banks", "1", faults="2:device=dead") as server:
        body = server.health()[1]
        assert body["status"] == "ready" and [card["status"] for card in body["cards"]] == ["ready", "failed"]
        assert body["degraded"].startswith("card 1 could not be used: ")
        assert metrics(server)["axpress_card_ready"] == {(("card", "0"),): 1, (("card", "1"),): 0}
        assert server.request("GET", "/readyz")[0] == 200
        assert main(["ps", "--url", server.url]) == 0
        _header, row, degraded = capsys.readouterr().out.splitlines()
        assert "2 cards, emulated" in row and degraded.startswith("degraded: card 1")


def test_each_card_has_its_monitor_and_one_that_is_hot_degrades_the_server(package: tuple[Path, Path]) -> None:
    async def serve_and_heat() -> None:
        service = Service(Settings(model_dir=package[0], device="emu:0,1", profile="none", banks=1))
        await service.start()
        warm = [card.monitor for card in service.cards]
        while not all(monitor.latest for monitor in warm):
            await asyncio.sleep(0.01)
        Emulator().set("faults", "2:temperature=90000")
        for monitor in warm:
            await asyncio.to_thread(monitor.look)
        status, body = service.health()
        assert (status, body["status"], body["degraded"]) == (200, "ready", "card 1 is too hot to work")
        assert [card["status"] for card in body["cards"]] == ["ready", "hot"]
        assert [card["card"]["temperature_c"] for card in body["cards"]] == [45, 90]
        assert [card["duty"] for card in body["cards"]] == [1, 0]
        await service.stop()

    try:
        asyncio.run(asyncio.wait_for(serve_and_heat(), 60))
    finally:
        Emulator().set("faults", "")
        Emulator().set("devices", 1)


def test_which_cards_are_meant(package: tuple[Path, Path]) -> None:
    simulated = open_package(package[0])
    Emulator().set("devices", 3)
    try:
        assert devices_of(simulated, "all") == devices_of(simulated, "emu:all") == ["emu:0", "emu:1", "emu:2"]
        Emulator().set("devices", 0)
        assert devices_of(simulated, "all") == ["emu:0"], "opening it tells that there is none"
    finally:
        Emulator().set("devices", 1)
    assert devices_of(simulated, "emu:2,0") == ["emu:2", "emu:0"] and devices_of(simulated, "0,1") == [0, 1]
    assert [devices_of(simulated, one) for one in ("auto", "emu", "axengine", 1, "emu:1")] == [
        ["auto"], ["emu"], ["axengine"], [1], ["emu:1"],
    ]  # fmt: skip


WRONG = {"0,0": "name each card once", "0,": "use auto, emu", "emu:": "use auto, emu", "first": "use auto, emu"}


@pytest.mark.parametrize("device", WRONG)
def test_a_list_of_cards_that_is_none_is_refused(device: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["serve", "--device", device])
    assert WRONG[device] in capsys.readouterr().err


def test_several_models_on_several_cards_are_refused(
    package: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for more in ([str(package[0])], ["--models"]):
        assert main(["serve", str(package[0]), *more, "--device", "emu:0,1"]) == 1
        assert "several cards have one model" in capsys.readouterr().err

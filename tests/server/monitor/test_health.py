"""/health tells whether a token can be had: silence counts while answers run, and only then."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import pytest
from server_process import hollow_package

from axpress.core.device.emulator import Emulator
from axpress.core.request import GenerationRequest
from axpress.server.serving import engine_service as service_module
from axpress.server.serving.engine_service import Service
from axpress.server.settings import Settings


def test_a_card_that_falls_silent_is_told_and_an_idle_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package, profile = hollow_package(tmp_path)
    monkeypatch.setattr(service_module, "STALLED_SECONDS", 0.5)
    emulator = Emulator()

    async def main() -> None:
        service = Service(Settings(model_dir=package, device="emu", profile=str(profile)))
        await service.start()
        await asyncio.sleep(0.7)
        engine = service.ready().engine
        emulator.set("SPEED", "0.02")  # about 0.25 s a token
        service.begin_answer()
        generation = engine.submit(GenerationRequest([1, 2, 3], max_tokens=900, ignore_eos=True), lambda delta: None)
        until = time.monotonic() + 0.4
        while time.monotonic() < until:  # the first pass, after a long silence
            assert service.health()[0] == 200
            await asyncio.sleep(0.01)
        assert service.health()[1]["num_running"] == 1
        emulator.set("SPEED", "0.005")  # about 1 s a token
        until = time.monotonic() + 4
        while service.health()[0] == 200:
            assert time.monotonic() < until
            await asyncio.sleep(0.01)
        assert service.health()[1]["status"] == "stalled" and "no token for" in service.health()[1]["reason"]
        emulator.set("SPEED", "1")
        until = time.monotonic() + 4
        while service.health()[0] != 200:
            assert time.monotonic() < until
            await asyncio.sleep(0.01)
        generation.cancel()
        service.end_answer()
        await service.stop()
        assert service.exit_code == 0

    try:
        asyncio.run(main())
    finally:
        emulator.set("SPEED", "1")


def test_the_fingerprint_changes_with_what_can_change_an_answer(tmp_path: Path) -> None:
    package, _ = hollow_package(tmp_path)
    settings = Settings(model_dir=package, device="emu", profile="none")

    async def fingerprint(settings: Settings) -> str:
        service = Service(settings)
        await service.start()
        found = service.ready().fingerprint
        await service.stop()
        return found

    first = asyncio.run(fingerprint(settings))
    assert asyncio.run(fingerprint(replace(settings, max_queue=3, drafts=False, port=1))) == first
    exact = asyncio.run(fingerprint(replace(settings, exact=True)))
    (package / "post_config.json").write_text('{"enable_temperature": true, "temperature": 0.3}')
    other = asyncio.run(fingerprint(settings))
    assert len({first, exact, other}) == 3

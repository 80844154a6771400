"""/health tells whether a token can be had: silence counts while answers run, and only then."""

from __future__ import annotations

import asyncio
import shutil
import time
from dataclasses import replace
from pathlib import Path

from collecting import Held
from server_process import hollow_package

from axpress.core.request import GenerationRequest
from axpress.server.serving.engine_service import Service
from axpress.server.settings import Settings


def test_a_card_that_falls_silent_is_told_and_an_idle_one_is_not(tmp_path: Path) -> None:
    package, profile = hollow_package(tmp_path)
    answer = Held(2)

    async def main() -> None:
        service = Service(Settings(model_dir=package, device="emu", profile=str(profile)))
        await service.start()
        engine = service.ready().engine

        def silence(seconds: float) -> None:
            engine.scheduler.counters.last_progress = time.monotonic() - seconds

        silence(1000)
        service._busy_since -= 1000
        assert service.health()[0] == 200  # nobody asks for anything
        service.begin_answer()
        generation = engine.submit(GenerationRequest([1, 2, 3], max_tokens=900, ignore_eos=True), answer)
        await asyncio.to_thread(answer.wait_held)
        silence(1000)
        status, body = service.health()
        assert status == 200 and body["num_running"] == 1  # the silence before it was asked does not count
        service._busy_since -= 100
        status, body = service.health()
        assert (status, body["status"], body["reason"]) == (503, "stalled", "no token for 100 seconds")
        answer.go.set()
        while service.health()[0] != 200:
            await asyncio.sleep(0.001)
        generation.cancel()
        service.end_answer()
        await service.stop()
        assert service.exit_code == 0

    asyncio.run(asyncio.wait_for(main(), 60))


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
    copy = Path(shutil.copytree(package, tmp_path / "elsewhere" / package.name, copy_function=shutil.copyfile))
    assert asyncio.run(fingerprint(replace(settings, model_dir=copy))) == first  # another machine, other file times
    (package / "post_config.json").write_text('{"enable_temperature": true, "temperature": 0.3}')
    other = asyncio.run(fingerprint(settings))
    assert len({first, exact, other}) == 3

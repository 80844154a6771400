"""`axpress serve --split`: a model over two cards, which are emulated, answers over HTTP as it does on one; what cannot
be is refused in a sentence."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from repository import PATIENCE
from server_process import RunningServer, openai_client
from tiny_models import Tiny, write_checkpoint

from axpress.core.model_files.convert import convert
from axpress.server.cli import main


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("split")
    write_checkpoint(Tiny("qwen3", layers=3), folder / "Split-tiny")
    return convert(folder / "Split-tiny", folder / "package", progress=False, rows=511, chunk=32, history=[0, 32, 64])


def ask_several(server: RunningServer) -> list[str | None]:
    """Three clients at a time."""
    texts: list[str | None] = [None] * 3

    def ask(number: int) -> None:
        with openai_client(server) as client:
            answer = client.chat.completions.create(
                model="default", messages=[{"role": "user", "content": f"Question {number}"}], max_tokens=30, seed=1
            )
            texts[number] = answer.choices[0].message.content

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60 * PATIENCE)
    return texts


def test_clients_get_the_text_of_one_card(package: Path) -> None:
    with RunningServer(package, "--emu-profile", "none") as server:
        expected = ask_several(server)
    with RunningServer(package, "--emu-profile", "none", "--split", "0,1", "--banks", "2") as server:
        assert ask_several(server) == expected and all(expected)
        health = server.health()[1]
        assert health["device"] == "emulated cards 1 and 2" and health["emulated"] and health["card"]["total_cmm"]
        assert health["stats"]["rows_by_bank"][0] and health["stats"]["rows_by_bank"][1]


def test_fewer_cards_than_named_are_refused(package: Path) -> None:
    command = [sys.executable, "-m", "axpress.server", "serve", str(package), "--split", "0,1", "--port", "0"]
    environment = {**os.environ, "AXPRESS_EMU_DEVICES": "1"}
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60 * PATIENCE, env=environment, check=False)
    assert ended.returncode and "card 1 was asked for, but the runtime" in ended.stderr, ended.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--split", "0,1", "--device", "0"], "--split names the cards: leave out --device"),
        (["--split", "0,1", "--models"], "has them to itself: give one MODEL"),
        (["--split", "1,1"], "two or more different cards, such as 0,1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_is_refused(
    package: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with suppress(SystemExit):
        assert main(["serve", str(package), *arguments])
    assert words in capsys.readouterr().err

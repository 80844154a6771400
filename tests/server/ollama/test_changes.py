"""Models pulled and deleted over Ollama's API: by who may, and by nobody else."""

from __future__ import annotations

from pathlib import Path

import ollama
import pytest
from local_hub import LocalHub
from server_process import RunningServer
from stored_models import store_hollow
from tiny_models import Tiny, convert_tiny

NAME = "AXERA-TECH/Tiny-1"
BOSS, USER = "boss-key-0001", "user-key-0001"


def client(server: RunningServer, key: str) -> ollama.Client:
    return ollama.Client(server.url, headers={"authorization": f"Bearer {key}"})


def test_a_key_with_the_right_changes_the_models_and_no_other_does(tmp_path: Path) -> None:
    root, keys = tmp_path / "models", tmp_path / "keys"
    kept = store_hollow(root, "kept", 0.1)
    keys.write_text(f"boss:{BOSS} models\nuser:{USER}\n")
    keys.chmod(0o600)
    repository = convert_tiny(tmp_path / "repository", Tiny("qwen3"), rows=64, chunk=16, history=[0, 16])
    with LocalHub().running() as hub:
        hub.repositories[NAME] = repository
        environment = {"AXPRESS_MODELS": str(root), "HF_ENDPOINT": hub.url}
        arguments = ("--models", "--api-keys", keys, "--emu-profile", "none")
        with (
            RunningServer(*arguments, environment=environment) as server,
            client(server, USER) as user,
            client(server, BOSS) as boss,
        ):
            for change in (user.pull, user.delete):
                with pytest.raises(ollama.ResponseError, match="has no right to change the models") as refused:
                    change(NAME)
                assert refused.value.status_code == 403
            with pytest.raises(ollama.ResponseError, match="no model is called"):
                boss.pull("no-such-model")
            for name in ("../../etc/passwd", "a/../..", "%00", "a\nb", ".kept.partial", "x" * 5000):
                for change, status in ((boss.pull, 400), (boss.delete, 404)):
                    with pytest.raises(ollama.ResponseError) as hostile:
                        change(name)
                    assert hostile.value.status_code == status, name
            assert [part.status for part in boss.pull(NAME, stream=True)][-1] == "success"
            assert [model.model for model in boss.list().models] == ["kept:latest", f"{NAME}:latest"]
            assert boss.generate(NAME, "hello", raw=True, options={"num_predict": 2}).eval_count == 2
            with pytest.raises(ollama.ResponseError, match="unload it first"):
                boss.delete(NAME)
            boss.generate(NAME, "", keep_alive=0)
            server.wait(lambda: not boss.ps().models, 20, "unloaded")
            assert boss.delete(NAME).status == "success"
            assert [model.model for model in boss.list().models] == ["kept:latest"]
            with pytest.raises(ollama.ResponseError) as gone:
                boss.delete(NAME)
            assert gone.value.status_code == 404
    assert [path.name for path in root.iterdir() if not path.name.startswith(".")] == [kept.name]


def test_without_keys_nobody_does(tmp_path: Path) -> None:
    store_hollow(tmp_path / "models", "kept", 0.1)
    with (
        RunningServer(
            "--models", "--emu-profile", "none", environment={"AXPRESS_MODELS": str(tmp_path / "models")}
        ) as server,
        ollama.Client(server.url) as anybody,
        pytest.raises(ollama.ResponseError, match="Without API keys nobody may"),
    ):
        anybody.delete("kept")

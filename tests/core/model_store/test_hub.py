"""Pulling from a hub: what is fetched, what is verified, and what becomes of everything that goes wrong."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import huggingface_hub.constants
import pytest
from local_hub import COMMIT, LocalHub
from stub_packages import build_entry, published
from tiny_models import Tiny, convert_tiny

from axpress.core.errors import PackageError
from axpress.core.model_files.model_package import open_package
from axpress.core.model_store import ModelStore, Plan, StoredModel, find_entry, pull
from axpress.core.model_store.hub import HubDownload

NAME = "AXERA-TECH/Tiny-1"
READ_NOW = "Qwen2.5-1.5B-Instruct-python@aa999d91"  # its embedding is a .npy, which is read by now
OPENS = [entry for entry in published() if entry["expect"]["opens"] or entry["name"] == READ_NOW]
REFUSED = [entry for entry in published() if entry not in OPENS and "git-lfs" not in entry["name"]]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package, and what lies beside one in published repositories."""
    root = tmp_path_factory.mktemp("repository")
    package = convert_tiny(root, Tiny("qwen3"), rows=64, chunk=16, history=[0, 16])
    for path in list(package.glob("*.axmodel")):
        (package / "tiny-ax630c").mkdir(exist_ok=True)
        shutil.copyfile(path, package / "tiny-ax630c" / path.name)
    (package / "main_axcl_aarch64").write_bytes(b"\x7fELF" * 4000)
    (package / "other_tokenizer").mkdir()
    (package / "other_tokenizer" / "tokenizer.json").write_text("{}")
    (package / "README.md").write_text("# Tiny\n")
    (package / ".gitattributes").write_text("*.axmodel filter=lfs\n")
    return package


@pytest.fixture
def hub(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    with LocalHub().running() as running:
        running.repositories[NAME] = repository
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", running.url)
        template = running.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 1000)
        monkeypatch.setattr("time.sleep", lambda seconds: None)  # between its tries
        yield running


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "models")


def fetch(
    store: ModelStore, name: str = NAME, revision: str | None = None, plans: list[Plan] | None = None
) -> StoredModel:
    told = [] if plans is None else plans
    return pull(store, find_entry(name), revision=revision, tell=told.append, verify=open_package, progress=False)


def files_below(directory: Path) -> list[str]:
    return sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())


def assert_nothing_is_left(store: ModelStore) -> None:
    assert files_below(store.root) == [] and store.models() == []
    assert not any(store.root.glob("*/*")), "no directory either"


def test_only_what_the_model_consists_of_is_fetched(hub: LocalHub, store: ModelStore, repository: Path) -> None:
    plans: list[Plan] = []
    model = fetch(store, plans=plans)
    assert (model.name, model.record.revision, model.record.licence) == (NAME, COMMIT, "mit")
    assert model.directory == store.root / NAME and open_package(model.directory).num_layers == 2
    expected = [
        name for name in files_below(repository)
        if not name.startswith(("tiny-ax630c", "other_tokenizer", "main_", ".git"))
    ]  # fmt: skip
    assert files_below(model.directory) == sorted([*expected, "axpress-model.json"])
    for name in expected:
        assert (model.directory / name).read_bytes() == (repository / name).read_bytes()
    sizes = sum((repository / name).stat().st_size for name in expected)
    assert plans[0].disk == sizes and 0 < plans[0].download < sizes and plans[0].free > sizes
    assert plans[0].card == sum(path.stat().st_size for path in repository.glob("*.axmodel"))
    assert model.record.bytes == sizes and model.record.files == len(expected)
    assert [found.name for found in store.models()] == [NAME]
    assert not any(name.startswith("tiny-ax630c") or name == "main_axcl_aarch64" for name, _ in hub.asked)


@pytest.mark.parametrize("entry", OPENS, ids=lambda entry: entry["name"])
def test_of_published_packages_the_right_build_is_chosen(entry: dict[str, Any], hub: LocalHub, tmp_path: Path) -> None:
    root = build_entry(tmp_path, entry)
    hub.repositories["X/Y"] = root
    staging = tmp_path / "staging"
    staging.mkdir()
    download = HubDownload("X/Y", None, staging, False)
    download.fetch_small()
    chosen = {file.path for file in download._chosen}
    layers = os.path.normpath(entry["expect"]["layer_dir"])
    heavy = {name for name in chosen if name.endswith(".axmodel")}
    encoders = {entry["expect"].get("encoder")} - {None}
    assert encoders <= heavy and len(heavy - encoders) == entry["layers"] + 1
    assert {os.path.dirname(name) or "." for name in heavy - encoders} == {layers}
    tokenizer = os.path.normpath(entry["expect"]["tokenizer_dir"])
    assert any(name == tokenizer or name.startswith(f"{tokenizer}/") for name in chosen)
    assert all((staging / "package" / file.path).is_file() for file in download._chosen if file.is_text)


@pytest.mark.parametrize("entry", REFUSED, ids=lambda entry: entry["name"])
def test_what_cannot_be_served_is_refused_before_it_is_fetched(
    entry: dict[str, Any], hub: LocalHub, store: ModelStore, tmp_path: Path
) -> None:
    root = build_entry(tmp_path / "x", entry)
    hub.repositories["X/Y"] = root
    with pytest.raises(PackageError, match=r"^X/Y cannot be served: ") as refused:
        fetch(store, "X/Y")
    assert "\n" not in str(refused.value) and "survey." not in str(refused.value)
    assert not any(name.endswith(".axmodel") for name, _ in hub.asked)
    assert_nothing_is_left(store)


def test_a_pull_that_was_cut_goes_on_where_it_was(hub: LocalHub, store: ModelStore, repository: Path) -> None:
    large = next(path.name for path in repository.glob("*_post.axmodel"))
    hub.cut[large] = 10_000
    size = (repository / large).stat().st_size
    assert size > 20_000
    with pytest.raises(PackageError, match="pull again to go on"):
        fetch(store)
    assert store.models() == [] and store.find(NAME) is None
    hub.cut.clear()
    hub.asked.clear()
    model = fetch(store)
    assert (large, 10_000) in hub.asked and (large, 0) not in hub.asked
    assert "config.json" not in [name for name, _ in hub.asked], "what is here is not fetched again"
    assert (model.directory / large).read_bytes() == (repository / large).read_bytes()
    assert not any(".part" in name or "partial" in name for name in files_below(store.root))


def test_another_commit_begins_anew(hub: LocalHub, store: ModelStore, repository: Path) -> None:
    large = next(path.name for path in repository.glob("*_post.axmodel"))
    hub.cut[large] = 0
    with pytest.raises(PackageError, match="go on"):
        fetch(store)
    hub.cut.clear()
    hub.asked.clear()
    hub.commit = "f" * 40
    assert fetch(store).record.revision == "f" * 40
    assert "config.json" in [name for name, _ in hub.asked]


@pytest.mark.parametrize("pattern", ["*_post.axmodel", "config.json"])
def test_a_wrong_checksum(pattern: str, hub: LocalHub, store: ModelStore, repository: Path) -> None:
    path = next(repository.glob(pattern))
    hub.lies[path.name] = bytes(path.stat().st_size)
    with pytest.raises(PackageError, match=f"{path.name} of {NAME} came with the checksum"):
        fetch(store)
    assert store.models() == [] and path.name not in [p.name for p in store.root.rglob("*")]
    hub.lies.clear()
    assert (fetch(store).directory / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        ((403, "GatedRepo"), "is gated: accept its terms at"),
        ((401, "GatedRepo"), "is gated: accept its terms at"),
        ((403, ""), r"does not let you read .* \(403\): set HF_TOKEN"),
        ((404, "EntryNotFound"), "is gone from"),
    ],
)
def test_refusals_of_files(refusal: tuple[int, str], said: str, hub: LocalHub, store: ModelStore) -> None:
    hub.refuses = refusal
    with pytest.raises(PackageError, match=said):
        fetch(store)
    assert_nothing_is_left(store)


def test_names_revisions_and_tokens(hub: LocalHub, store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PackageError, match="there is no model AXERA-TECH/Nothing at"):
        fetch(store, "AXERA-TECH/Nothing")
    with pytest.raises(PackageError, match="has no such revision"):
        fetch(store, revision="v9")
    hub.token = "hf_secret"
    with pytest.raises(PackageError, match="none that you may read: for a private one set HF_TOKEN"):
        fetch(store)
    assert_nothing_is_left(store)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert fetch(store, revision=COMMIT).record.revision == COMMIT


def test_no_network(hub: LocalHub, store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(PackageError, match=r"cannot reach http://127.0.0.1:1 \("):
        fetch(store)
    assert_nothing_is_left(store)


def test_paths_that_lead_elsewhere(hub: LocalHub, store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.hf_api import RepoSibling

    siblings = [RepoSibling("../../evil.json", size=3, blob_id="0" * 40)]
    info = type("Info", (), {"sha": COMMIT, "siblings": siblings, "card_data": None})
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: info)
    with pytest.raises(PackageError, match="leads elsewhere"):
        fetch(store)
    assert_nothing_is_left(store)


def test_too_little_room_is_told_before_anything_large(
    hub: LocalHub, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=(32 << 20) + 1000))
    with pytest.raises(PackageError, match=r"takes \d+ MB of the disk of .*, which has 34 MB free: free some room"):
        fetch(store)
    assert not any(name.endswith(".axmodel") for name, _ in hub.asked)
    assert_nothing_is_left(store)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk")
def test_a_disk_that_fills_up_on_the_way(hub: LocalHub, tmp_path: Path, repository: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount a tmpfs")
    try:
        large = next(path.name for path in repository.glob("*_post.axmodel"))

        def fill(path: str) -> None:
            if path == large:
                with open(disk / "other", "wb") as file:
                    file.write(bytes(shutil.disk_usage(disk).free - 8192))

        hub.before_file = fill
        store = ModelStore(disk / "models")
        with pytest.raises(PackageError, match="is full: nothing of AXERA-TECH/Tiny-1 is kept"):
            fetch(store)
        assert_nothing_is_left(store)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_two_pulls_of_one_name(hub: LocalHub, store: ModelStore) -> None:
    at_it, go_on = threading.Event(), threading.Event()

    def hold(path: str) -> None:
        at_it.set()
        go_on.wait(20)

    hub.before_file = hold
    first: list[StoredModel] = []
    thread = threading.Thread(target=lambda: first.append(fetch(store)))
    thread.start()
    assert at_it.wait(20)
    with pytest.raises(PackageError, match="in use by another `axpress pull`"):
        fetch(store)
    with pytest.raises(PackageError, match="in use by another `axpress pull` or `rm`"):
        store.remove(NAME)
    go_on.set()
    thread.join()
    assert [model.name for model in first] == [model.name for model in store.models()] == [NAME]


def test_what_a_killed_pull_has_left_can_be_removed(hub: LocalHub, store: ModelStore, repository: Path) -> None:
    hub.cut[next(path.name for path in repository.glob("*_post.axmodel"))] = 0
    with pytest.raises(PackageError, match="go on"):
        fetch(store)
    assert files_below(store.root)
    assert store.remove(NAME) > 0
    assert_nothing_is_left(store)

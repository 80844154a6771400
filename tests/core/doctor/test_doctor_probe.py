"""`axpress doctor --probe` on emulated cards: what it finds of two that are set differently, what stays of one that
breaks off, and what becomes of a report: comparisons and profiles."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from repository import ROOT
from server_process import PROFILE
from tiny_models import QWEN3_5, Tiny, convert_tiny

from axpress.core.device.model_loader import open_model
from axpress.core.doctor.battery import battery
from axpress.core.doctor.battery.report import ProbeReport, read_report, results
from axpress.core.doctor.compare import compare, compare_assumptions
from axpress.core.doctor.host import Host
from axpress.core.doctor.measured import measured, write_profile
from axpress.core.errors import PackageError
from axpress.core.model_files.hollow import hollow
from axpress.core.model_files.model_package import open_package
from axpress.core.model_files.timing_profile import load_profile
from axpress.server.cli import main

AX8860 = ROOT / "build" / "ax8860" / "libaxcl_rt.so"
TIMED = re.compile(r"(_us|_ms|_s|seconds|started|queued|submitting|^ms|loads|least_ms)$")
TINY = Tiny("qwen3", layers=3)
GROUPS: dict[str, Any] = {"rows": 127, "chunk": 32, "history": [0, 32, 64]}
OTHER = {
    "INPLACE_DECODE": "error", "INPLACE_UNALIGNED": "down", "INPLACE_CHUNK": "1", "ASYNC": "0", "NARROW_OUTPUT": "0",
    "DEVICE_ID": "3",
}  # fmt: skip


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    """Three layers with narrow chunks, K/V rows of 64 bytes."""
    folder = tmp_path_factory.mktemp("probe")
    return convert_tiny(folder, TINY, **GROUPS)


def probe(package: Path, out: Path, monkeypatch, **settings: str) -> tuple[int, dict[str, Any]]:
    """The exit code and the report of a probe on an emulated card with these settings."""
    for key, value in settings.items():
        monkeypatch.setenv(f"AXPRESS_EMU_{key}", value)
    code = main(["doctor", str(package), "--probe", "--out", str(out)])
    return code, read_report(out)


def run_only(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Of the experiments these: each is a process of its own and takes its time."""
    monkeypatch.setattr(battery, "EXPERIMENTS", {name: battery.EXPERIMENTS[name] for name in names})


def untimed(value: Any, path: str = "") -> dict[str, Any]:
    """The report's leaves by path, without what a clock said."""
    if isinstance(value, dict):
        parts = [untimed(part, f"{path}/{key}") for key, part in value.items() if not TIMED.search(key)]
    elif isinstance(value, list):
        parts = [untimed(part, f"{path}/{i}") for i, part in enumerate(value)]
    else:
        return {path: value}
    return {key: leaf for part in parts for key, leaf in part.items()}


@pytest.fixture(scope="module")
def plain(package, tmp_path_factory) -> dict[str, Any]:
    """The report of an emulated card as it is without settings."""
    with pytest.MonkeyPatch.context() as patch:
        code, report = probe(package, tmp_path_factory.mktemp("plain") / "report.json", patch)
    assert code == 0
    return report


def test_all_experiments_come_to_their_end(plain) -> None:
    assert list(plain["tests"]) == list(battery.EXPERIMENTS)
    assert {test["state"] for test in plain["tests"].values()} == {"done"}


def test_reports_of_two_cards_differ_where_the_cards_do(plain, package, tmp_path, monkeypatch) -> None:
    other_width = convert_tiny(tmp_path, TINY, **GROUPS, p0_width="kv")
    code, other = probe(other_width, tmp_path / "b.json", monkeypatch, **OTHER, MEMORY_MIB="2944")
    assert code == 0
    seen = [{one.subject: one.seen for one in compare_assumptions(report)} for report in (plain, other)]
    assert {subject for subject in seen[0] if seen[0][subject] != seen[1][subject]} == {
        "decode rows in place at multiples of 2 KiB (AXPRESS_EMU_INPLACE_DECODE)",
        "decode rows in place at other offsets (AXPRESS_EMU_INPLACE_UNALIGNED)",
        "chunk rows in place (AXPRESS_EMU_INPLACE_CHUNK)",
        "executes in a stream (AXPRESS_EMU_ASYNC)",
        "copies on the card in a stream (AXPRESS_EMU_ASYNC)",
        "async calls by a thread without a context",
        "width of the empty cache of a chunk without history",
        "chunks write their hidden state (AXPRESS_EMU_NARROW_OUTPUT)",
        "the first card's id (AXPRESS_EMU_DEVICE_ID)",
    }
    leaves = [untimed(report) for report in (plain, other)]
    differing = {path for path in leaves[0].keys() | leaves[1].keys() if leaves[0].get(path) != leaves[1].get(path)}
    assert {path.split("/")[2] for path in differing} == {
        "identity", "streams", "load", "costs", "queued_executes", "chunks", "in_place",
    }  # fmt: skip
    assert {path for path in differing if "/identity/" in path} == {
        f"/tests/identity/results/{key}" for key in ("devices/0", "cmm_total", "cmm_free")
    }


def test_what_the_plain_emulated_card_does_is_what_we_assume(plain) -> None:
    compared = compare_assumptions(plain)
    assert [one.line() for one in compared if one.seen and not one.agrees] == []
    assert sum(bool(one.seen) for one in compared) >= 12


@pytest.mark.skipif(not AX8860.is_file(), reason="only a build in place has the next generation's library")
def test_a_card_of_the_next_generation(package, tmp_path) -> None:
    opened = open_package(package)
    report = ProbeReport(tmp_path / "a.json", Host(), opened, "test", True)
    environ = {"AXPRESS_EMU_GENERATION": "ax8860"}
    assert battery.run_battery(opened, str(AX8860), 0, report, environ, print)
    assert {one.subject: one.seen for one in compare_assumptions(report.data) if one.seen and not one.agrees} == {
        "copies on the card in a stream (AXPRESS_EMU_ASYNC)": "refused 0x80300504",
        "the first card's id (AXPRESS_EMU_DEVICE_ID)": "0",
    }
    assert "axclrtGetDeviceList" in results(report.data, "identity")["missing"]
    assert load_profile(str(write_profile(report.data, str(tmp_path / "made.toml")))).model.layers == 3


def test_a_report_names_nobody(package, tmp_path, monkeypatch) -> None:
    run_only(monkeypatch, "identity", "transfers", "load", "costs")
    probe(package, tmp_path / "a.json", monkeypatch, FAULTS="axclrtEngineLoadFromFile@2+=fail:0x80300707")
    text = (tmp_path / "a.json").read_text()
    assert "failed" in text and "0x80300707" in text
    assert str(package) not in text and str(package.parent) not in text and str(Path.home()) + "/" not in text


def test_a_card_that_hangs_ends_the_probe_and_what_was_found_stays(package, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(battery, "CALLS_SECONDS", 8.0)
    code, report = probe(package, tmp_path / "a.json", monkeypatch, FAULTS="axclrtEngineExecute@30=block")
    states = {name: test["state"] for name, test in report["tests"].items()}
    assert code == 1 and states["load"] == "done" and states["costs"] == "no answer"
    assert "no answer in executing group" in report["tests"]["costs"]["error"]
    assert report["tests"]["costs"]["results"]["cmm_free_before"] > 0
    assert set(list(states.values())[list(states).index("costs") + 1 :]) == {"not run"}
    assert "no answer" in report["tests"]["usage"]["error"]
    with pytest.raises(PackageError, match="no results of costs"):
        measured(report)
    assert compare(report, None)  # what it has is compared all the same


def test_a_hybrid_is_probed_by_its_layers_with_rows(tmp_path, monkeypatch) -> None:
    run_only(monkeypatch, "load")
    hybrid = convert_tiny(tmp_path, Tiny(QWEN3_5, layers=3), **GROUPS)
    code, report = probe(hybrid, tmp_path / "a.json", monkeypatch)
    assert code == 0 and [file["file"] for file in results(report, "load")["files"]] == ["head", "layer 0"]
    shown = {tensor["name"]: tensor["shapes"] for tensor in results(report, "load")["layer_inputs"]}
    assert shown["indices"][-1][0] == 3 and len(shown["K_cache"][0]) == 3


def test_a_refusal_is_a_finding_and_the_probe_goes_on(package, tmp_path, monkeypatch) -> None:
    run_only(monkeypatch, "batch_size", "usage", "order")
    code, report = probe(package, tmp_path / "a.json", monkeypatch, FAULTS="axclrtEngineGetUsage@1=fail:0x80300704")
    assert code == 1 and report["tests"]["usage"]["state"] == "failed"
    assert "0x80300704" in report["tests"]["usage"]["error"]
    assert {test["state"] for name, test in report["tests"].items() if name != "usage"} == {"done"}


@pytest.mark.parametrize(("key", "value"), [("TEMPERATURE", "90000"), ("DEVICES", "0")])
def test_a_card_that_is_unwell_is_not_probed(package, tmp_path, monkeypatch, capsys, key: str, value: str) -> None:
    monkeypatch.setenv(f"AXPRESS_EMU_{key}", value)
    assert main(["doctor", str(package), "--probe", "--out", str(tmp_path / "a.json")]) == 1
    assert not (tmp_path / "a.json").exists()


@pytest.fixture(scope="module")
def paced(tmp_path_factory) -> tuple[dict[str, Any], Path]:
    """A report of the made-up card of the server's tests, and that card's profile."""
    folder = tmp_path_factory.mktemp("paced")
    profile = folder / "slow-loads.toml"
    files = "layer_file_bytes = 1000000\nhead_file_bytes = 9000000\n[cost]\nload_file_ms = 150\nload_mb_s = 20\n"
    profile.write_text(PROFILE.replace("[cost]\n", files))
    package = hollow(str(profile), folder / "package")
    with pytest.MonkeyPatch.context() as patch:
        code, report = probe(package, folder / "report.json", patch, PROFILE=str(profile))
    assert code == 0
    return report, profile


def timed_as(seen: float, modelled: float) -> bool:
    """Whether a measured time can be that of the model: on a busy host it is longer, hardly ever shorter."""
    return 0.6 * modelled < seen < 3 * modelled


def test_a_profile_made_of_a_report_is_the_card_that_was_probed(paced, tmp_path) -> None:
    report, original = paced
    path = write_profile(report, str(tmp_path / "made.toml"))
    made, true = load_profile(str(path)), load_profile(str(original))
    assert "EMULATED" in path.read_text() and made.name == "made"
    for size in ("layers", "hidden", "vocab", "rows", "chunk", "history"):
        assert getattr(made.model, size) == getattr(true.model, size), size
    assert made.memory.cmm_mib == 7040
    assert timed_as(made.cost.decode_us(1023), 2000)
    for rows in true.model.history:
        assert timed_as(made.cost.chunk_us(rows), true.cost.chunk_us(rows))
    assert timed_as(made.cost.head_ms, 1.0)
    assert timed_as(1 / made.cost.bus_mb_s, 1 / 400)
    assert 0 < made.cost.sync_call_ms < 2 and 500 < made.cost.unpinned_us < 3000
    for nbytes in (1000000, 9000000):
        assert timed_as(made.cost.load_s(nbytes), true.cost.load_s(nbytes))
    assert (made.model.layer_file_bytes, made.model.head_file_bytes) == (1000000, 9000000)
    with pytest.raises(PackageError, match="there already"):
        write_profile(report, str(path))


def test_a_made_profile_paces_a_hollow_model_that_is_served(paced, tmp_path) -> None:
    report, _ = paced
    path = write_profile(report, str(tmp_path / "made.toml"))
    model = open_model(hollow(str(path), tmp_path / "model"), "emu", str(path))
    decode = model.costs.groups[0]
    model.close()
    assert timed_as(decode, 2 * 0.0021)  # two layers


def test_a_paced_card_shows_what_an_unpaced_cannot(paced) -> None:
    seen = {one.subject: one for one in compare_assumptions(paced[0])}
    assert seen["axclrtEngineGetUsage loads the model"].seen == "yes"
    assert seen["the runtime's host memory against the process's own (AXPRESS_EMU_HOST_MEMORY)"].seen == "faster"
    assert all(one.agrees for one in seen.values() if one.seen)


def test_plain_host_memory_is_found_out(tmp_path, paced, monkeypatch) -> None:
    _, profile = paced
    package = hollow(str(profile), tmp_path / "package")
    run_only(monkeypatch, "identity", "transfers")
    code, report = probe(package, tmp_path / "a.json", monkeypatch, PROFILE=str(profile), HOST_MEMORY="plain")
    differing = {one.subject for one in compare_assumptions(report) if one.seen and not one.agrees}
    assert code == 0
    assert differing == {"the runtime's host memory against the process's own (AXPRESS_EMU_HOST_MEMORY)"}


def test_compare_as_it_is_typed(paced, tmp_path, capsys, monkeypatch) -> None:
    report, original = paced
    path = tmp_path / "report.json"
    report = json.loads(json.dumps(report))
    report["tests"]["streams"]["results"]["on_card_async"] = "refused 0x80300504"
    path.write_text(json.dumps(report))
    monkeypatch.chdir(tmp_path)
    arguments = ["doctor", "--compare", str(path), "--profile", str(original), "--make-profile", "mine"]
    assert main(arguments) == 0
    out = capsys.readouterr()
    assert "DIFFERS  copies on the card in a stream (AXPRESS_EMU_ASYNC): assumed works, this card: refused" in out.out
    assert "agrees   test-hollow: cmm_mib: 7040" in out.out and "an EMULATED card" in out.out
    assert "./mine.toml" in out.err and load_profile("./mine.toml").name == "mine"
    assert main(["doctor", "--compare", str(path), "--json"]) == 0
    compared = json.loads(capsys.readouterr().out)
    assert all(set(one) == {"subject", "assumed", "seen", "agrees"} for one in compared)


@pytest.mark.parametrize("arguments", [["--probe"], ["--make-profile", "x"], ["--device", "axengine"]])
def test_arguments_that_do_not_fit(arguments, capsys) -> None:
    with pytest.raises(SystemExit):
        main(["doctor", *arguments])


@pytest.mark.parametrize("text", ["", "{}", '{"schema": "axpress-probe/9", "tests": {}}', "[1]"])
def test_a_file_that_is_no_report(tmp_path, capsys, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    assert main(["doctor", "--compare", str(tmp_path / "x.json")]) == 1
    assert "axpress doctor --probe" in capsys.readouterr().err


@pytest.mark.parametrize(("setting", "result"), [("offline", "card lost"), ("0", "works")])
def test_cards_differ_in_what_a_late_head_does_and_in_nothing_else(
    plain, package, tmp_path, monkeypatch, capsys, setting: str, result: str
) -> None:
    run_only(monkeypatch, "identity", "load", "usage", "order")
    _, other = probe(package, tmp_path / "a.json", monkeypatch, HEAD_FIRST=setting)
    plain = {**plain, "tests": {name: plain["tests"][name] for name in other["tests"]}}
    subject = "a head loaded after layers (AXPRESS_EMU_HEAD_FIRST)"
    seen = [{one.subject: one.seen for one in compare_assumptions(report)} for report in (plain, other)]
    assert {key for key in seen[0] if seen[0][key] != seen[1][key]} == {subject}
    assert (seen[0][subject], seen[1][subject]) == ("refused", result)
    leaves = [untimed(report) for report in (plain, other)]
    differing = {path for path in leaves[0].keys() | leaves[1].keys() if leaves[0].get(path) != leaves[1].get(path)}
    assert differing == {"/tests/order/results/head_after_layers", "/tests/order/results/code"}
    assert {test["state"] for test in other["tests"].values()} == {"done"}
    assert ("dropped off the bus" in capsys.readouterr().out) is (result == "card lost")


def test_a_late_head_that_hangs_is_the_last_thing_and_has_an_end(package, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(battery, "CALLS_SECONDS", 8.0)
    monkeypatch.setenv("AXPRESS_EMU_HEAD_FIRST", "0")
    run_only(monkeypatch, "usage", "order")
    code, report = probe(package, tmp_path / "a.json", monkeypatch, FAULTS="axclrtEngineLoadFromFile@4=block:600000")
    tests = report["tests"]
    assert code == 1 and list(tests)[-1] == "order" and tests["order"]["state"] == "no answer"
    assert "no answer in loading the head after layers" in tests["order"]["error"]
    assert tests["usage"]["state"] == "done", "what came before stays"


def test_the_risky_experiment_is_the_last() -> None:
    assert list(battery.EXPERIMENTS)[-2:] == ["usage", "order"] and results({"tests": {}}, "order") == {}

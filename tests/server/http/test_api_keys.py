"""Where keys come from: the key file, the environment, the command line; and how one is compared."""

from __future__ import annotations

import hmac
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from access_requests import ALICE, BOB, PLAIN, WRONG, bearer
from server_process import RunningServer

from axpress.server.cli import main
from axpress.server.http import api_keys as keys
from axpress.server.http.access import Access, AccessError
from axpress.server.http.addresses import is_loopback
from axpress.server.http.api_keys import KeyFileError, Keyring
from axpress.server.settings import Settings


def test_every_digest_is_compared_whichever_matches(monkeypatch: pytest.MonkeyPatch) -> None:
    ring = Keyring(None, f"{ALICE},{BOB},{PLAIN}")
    compared: list[tuple[bytes, bytes]] = []

    def counting(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return hmac.compare_digest(one, other)

    monkeypatch.setattr(keys, "hmac", SimpleNamespace(compare_digest=counting, digest=hmac.digest))
    for key, name in ((ALICE, "key 1"), (PLAIN, "key 3"), (WRONG, None), ("", None), ("Ä\udcff", None)):
        compared.clear()
        identity = ring.identify(key)
        assert (identity.name if identity else None) == name
        assert len(compared) == 3 and all(len(one) == len(other) == 32 for one, other in compared)
        assert len({one for one, _ in compared}) == 3 and len({other for _, other in compared}) == 1
    assert all(key.encode() not in repr(vars(ring)["_keys"]).encode() for key in (ALICE, BOB, PLAIN))


# Key files


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no key in the key file"),
        ("# nothing\n\n", "no key in the key file"),
        ("CANARY!", "line 1 .* 8 to 512"),
        (f"{ALICE}\nCANARY two words here", "line 2 .* without blanks"),
        (f"{ALICE}\nCANARY-\N{SNOWMAN}-0123456", "line 2 .* ASCII"),
        (f"bad name:{ALICE}", "line 1 .* name"),
        (f":{ALICE}", "line 1 .* name"),
        ("name:", "line 1 .* 8 to 512"),
        (f"a:{ALICE}\n\nb:{ALICE}", "line 3 .* repeats .* line 1"),
        ("\n".join(f"CANARY-{i:09}" for i in range(1001)), "more than 1000"),
        ("#" * (1 << 20) + "\n", "larger than"),
    ],
)
def test_a_wrong_key_file_is_refused_without_repeating_it(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "keys"
    file.write_text(text, "utf-8")
    with pytest.raises(KeyFileError, match=said) as caught:
        Keyring(file, None)
    assert "CANARY" not in str(caught.value)


def test_what_is_no_key_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe" * 20)
    (tmp_path / "open").write_text(ALICE)
    (tmp_path / "open").chmod(0o666)
    wrong = {
        "absent": "absent, which .* No such file",
        ".": "not a regular",
        "binary": "not UTF-8",
        "open": "open, which .* add keys",
    }
    wrong["\0"] = "not the path"
    for name, said in wrong.items():
        with pytest.raises(KeyFileError, match=said) as caught:
            Keyring(tmp_path / name, None)
        assert "CANARY" not in str(caught.value)
    (tmp_path / "open").chmod(0o644)
    with caplog.at_level("WARNING"):
        assert Keyring(tmp_path / "open", None).identify(ALICE)
    assert "chmod 600" in caplog.text and "CANARY" not in caplog.text
    with pytest.raises(KeyFileError, match="no key in AXPRESS_API_KEYS"):
        Keyring(None, " , ")


def test_the_key_file_is_read_again_on_sighup(package: tuple[Path, Path], tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"alice:{ALICE}\n")
    file.chmod(0o600)
    with RunningServer(package[0], "--emu-profile", "none", "--api-keys", file) as server:

        def opens(key: str) -> bool:
            return server.request("GET", "/v1/models", headers=bearer(key))[0] == 200

        def reread(text: str, said: str) -> None:
            file.write_text(text)
            server.process.send_signal(signal.SIGHUP)
            server.wait(lambda: said in server.log, 30, "read again")

        assert opens(ALICE) and not opens(BOB)
        reread(f"bob:{BOB}\n{PLAIN}\n", "need one of 2 API keys")
        assert opens(BOB) and opens(PLAIN) and not opens(ALICE)
        reread("CANARY\n", "the keys stay as they were")
        assert opens(BOB) and not opens(ALICE)
    assert "CANARY" not in server.log


# Command line


@pytest.mark.parametrize(
    ("flags", "variable", "code", "said"),
    [
        (["--api-key", WRONG], None, 2, "--api-keys FILE"),
        ([f"--api-key={WRONG}"], None, 2, "--api-keys FILE"),
        (["--api-keys", "absent-file"], None, 1, "absent-file, which --api-keys names, cannot be read: No such file"),
        ([], "", 1, "no key in AXPRESS_API_KEYS"),
        (["--key-concurrency", "2"], None, 1, "--key-concurrency"),
        (["--separate-keys"], None, 1, "--separate-keys"),
        (["--allow-origin", "*"], ALICE, 1, "--allow-origin"),
        (["--key-concurrency", "0"], ALICE, 2, "--key-concurrency"),
        *[(["--allow-origin", value], None, 2, "--allow-origin") for value in ("null", "a.example", "https://a/b",
        "https://a@b", "")],
        *[(["--allow-host", value], None, 2, "--allow-host") for value in ("*", "http://x", "a b", "", "[x]",
        "x:99999")],
    ],
)  # fmt: skip
def test_flags_that_are_refused(
    flags: list[str],
    variable: str | None,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("AXPRESS_API_KEYS", raising=False)
    if variable is not None:
        monkeypatch.setenv("AXPRESS_API_KEYS", variable)
    try:
        ended = main(["serve", *flags, "--port", "0"])
    except SystemExit as exc:
        ended = exc.code
    error = capsys.readouterr().err
    assert ended == code and said in error and "CANARY" not in error


def test_rules_that_do_not_go_together() -> None:
    for settings, variable in (
        (Settings(separate_keys=True), {}),
        (Settings(allow_origins=("*",)), {"AXPRESS_API_KEYS": ALICE}),
    ):
        with pytest.raises(AccessError):
            Access(settings, variable)


def test_an_open_server_on_a_network_warns(caplog: pytest.LogCaptureFixture) -> None:
    addresses = {
        "127.0.0.1": False,
        "::1": False,
        "0.0.0.0": True,
        "::": True,
        "192.168.1.5": True,
        "fe80::1%eth0": True,
    }
    for address, warned in addresses.items():
        assert is_loopback(address) != warned
        caplog.clear()
        Access(Settings(), {}).announce(address)
        assert ("without API keys" in caplog.text) == warned
        caplog.clear()
        Access(Settings(), {"AXPRESS_API_KEYS": ALICE}).announce(address)
        assert "without API keys" not in caplog.text
    Access(Settings(allow_origins=("*",)), {}).announce("127.0.0.1")
    assert "any page" in caplog.text


def test_terminal_client_sends_its_key(keyed: RunningServer) -> None:
    command = [sys.executable, "-m", "axpress.server", "chat", "--url", keyed.url, "--max-tokens", "3"]
    for key, said in ((BOB, None), (WRONG, "not one of this server's keys")):
        ended = subprocess.run(
            command, input="hi\n", capture_output=True, text=True, timeout=60, env={"AXPRESS_API_KEY": key + "\n"}
        )
        assert ended.returncode == (0 if said is None else 1), ended.stderr
        assert (said in ended.stderr) if said else ended.stdout.strip()

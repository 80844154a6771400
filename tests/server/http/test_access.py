"""Keys, origins and hosts: each rule against real servers, and what a stranger, a browser or the log must not get."""

from __future__ import annotations

import hmac
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ollama
import openai
import pytest
from server_process import RunningServer, chat, hollow_package, openai_client, send_hundred_megabytes

from axpress.core.errors import RequestError
from axpress.server.cli import main
from axpress.server.docs.routes import ROUTES, Route
from axpress.server.http import api_keys as keys
from axpress.server.http.access import Access, AccessError, cache_salt_of, slot
from axpress.server.http.addresses import Authority, Hosts, Origin, Origins, is_loopback, parse_authority, parse_origin
from axpress.server.http.api_keys import KeyFileError, Keyring
from axpress.server.http.errors import HttpError
from axpress.server.settings import Settings

ALICE, ALICE_NEW, BOB, PLAIN, ENVIRONMENT = (
    f"CANARY-{name}-0123456789" for name in ("alice", "alice-new", "bob", "plain", "environment")
)
WRONG = "CANARY-wrong-0123456789"
KEYS = f"# those who may\nalice:{ALICE}\nalice:{ALICE_NEW}  # replaces the first\n\nbob:{BOB}\n{PLAIN}\n"
APP = "https://app.example"
CLOSED = [
    "/v1/models",
    "/v1/models/x",
    "/v1/chat/completions",
    "/live",
    "/nope",
    "/v1",
    "//v1/models",
    "/page/../v1/models",
    "/health/x",
]


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return hollow_package(tmp_path_factory.mktemp("access"))


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("keys") / "keys"
    file.write_text(KEYS)
    file.chmod(0o600)
    return file


@pytest.fixture(scope="module")
def keyed(package: tuple[Path, Path], key_file: Path) -> Iterator[RunningServer]:
    """With keys, limits and an allowed page."""
    flags = [
        "--banks",
        1,
        "--key-concurrency",
        2,
        "--separate-keys",
        "--allow-origin",
        APP,
        "--allow-host",
        "Models.Example",
    ]
    flags += ["--api-keys", key_file, "--log-level", "debug"]
    environment = {"AXPRESS_API_KEYS": f" {ENVIRONMENT} ,"}
    with RunningServer(package[0], "--emu-profile", package[1], *flags, environment=environment) as running:
        yield running
        assert json.loads(running.request("GET", "/health", headers=bearer(BOB))[2])["num_answers"] == 0
    assert "CANARY" not in running.log


@pytest.fixture(scope="module")
def free(package: tuple[Path, Path]) -> Iterator[RunningServer]:
    """Without keys."""
    with RunningServer(package[0], "--emu-profile", "none", "--log-level", "debug") as running:
        yield running
    assert "CANARY" not in running.log


def refused(answer: tuple[int, dict[str, str], bytes], status: int, code: str) -> str:
    """Checks an error of ours; returns its message."""
    error = json.loads(answer[2])["error"]
    assert (answer[0], error["code"], set(error)) == (status, code, {"message", "type", "param", "code"}), answer
    assert error["type"] == ("authentication_error" if status == 401 else "invalid_request_error")
    assert "access-control-allow-origin" not in answer[1] and answer[1]["x-request-id"]
    assert answer[1].get("www-authenticate") == ('Bearer realm="axpress"' if status == 401 else None)
    return str(error["message"])


# Keys


@pytest.mark.parametrize("key", [ALICE, ALICE_NEW, BOB, PLAIN, ENVIRONMENT])
@pytest.mark.parametrize("header", ["Authorization: Bearer ", "authorization: bEARER  ", "api-key: ", "x-api-key: "])
def test_a_key_opens(keyed: RunningServer, header: str, key: str) -> None:
    name, value = (header + key).split(":", 1)
    status, _, body = keyed.request("GET", "/v1/models", headers={name: value.strip()})
    assert status == 200 and json.loads(body)["data"]


def test_one_good_key_among_several_is_enough(keyed: RunningServer) -> None:
    assert (
        keyed.request("GET", "/v1/models", headers={"authorization": "Basic eDp5", "api-key": WRONG, "x-api-key": BOB})[
            0
        ]
        == 200
    )


@pytest.mark.parametrize("path", CLOSED)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "OPTIONS", "HEAD", "PATCH"])
def test_nothing_is_told_without_a_key_also_not_what_exists(keyed: RunningServer, method: str, path: str) -> None:
    status, head, body = keyed.request(method, path)
    assert status == 401 and head["www-authenticate"].startswith("Bearer") and "allow" not in head
    if method != "HEAD":
        assert "Authorization: Bearer KEY" in refused((status, head, body), 401, "invalid_api_key")


@pytest.mark.parametrize(
    "headers",
    [
        bearer(WRONG), bearer(ALICE[:-1]), bearer(ALICE + "x"), bearer(ALICE.lower()), bearer(f"alice:{ALICE}"),
        bearer("Ä" * 9),
        bearer("x" * 4000), {"api-key": WRONG}, {"x-api-key": WRONG},
    ],
)  # fmt: skip
def test_a_wrong_key_is_told_and_not_repeated(keyed: RunningServer, headers: dict[str, str]) -> None:
    message = refused(keyed.request("GET", "/v1/models", headers=headers), 401, "invalid_api_key")
    assert "not one of" in message and "CANARY" not in message


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer ", "Basic " + ALICE, ALICE, "Bearer\t" + ALICE])
def test_what_is_no_key(keyed: RunningServer, value: str) -> None:
    refused(keyed.request("GET", "/v1/models", headers={"authorization": value}), 401, "invalid_api_key")


def test_keys_in_the_url_are_not_taken(keyed: RunningServer) -> None:
    refused(keyed.request("GET", f"/v1/models?api_key={ALICE}&api-key={ALICE}"), 401, "invalid_api_key")


def test_strangers_learn_the_status_only(keyed: RunningServer, free: RunningServer) -> None:
    status, _, body = keyed.request("GET", "/health")
    assert status == 200 and json.loads(body) == {"status": "ready"}
    assert json.loads(keyed.request("GET", "/health", headers=bearer(WRONG))[2]) == {"status": "ready"}
    known = json.loads(keyed.request("GET", "/health", headers=bearer(BOB))[2])
    assert known["emulated"] and known["model"] and known["status"] == "ready"
    assert free.health()[1]["model"]
    refused(keyed.request("POST", "/health"), 401, "invalid_api_key")
    assert keyed.request("POST", "/health", headers=bearer(BOB))[0] == 405


def test_the_page_is_open_and_what_it_shows_is_not(keyed: RunningServer) -> None:
    status, head, body = keyed.request("GET", "/")
    assert status == 200 and head["content-type"].startswith("text/html")
    files = set(re.findall(r'(?:src|href)="(/?page/[^"]+)"', body.decode()))
    assert files
    for file in files:
        path = "/" + file.lstrip("/")
        assert keyed.request("GET", path)[0] == keyed.request("HEAD", path)[0] == 200
        refused(keyed.request("POST", path), 401, "invalid_api_key")
    for path in ("/live", "/live/stream"):
        refused(keyed.request("GET", path), 401, "invalid_api_key")
    assert keyed.request("GET", "/live", headers=bearer(BOB))[0] == 200


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_a_route_is_open_exactly_where_the_table_says_so(keyed: RunningServer, route: Route) -> None:
    path = re.sub(r"{\w+}", "x", route.path)
    assert (keyed.request(route.method, path)[0] == 401) == (not route.open)
    if route.request is None and route.stream is None:
        assert keyed.request(route.method, path, headers=bearer(BOB))[0] != 401


def test_openai_client(keyed: RunningServer) -> None:
    hello: Any = {"model": "default", "messages": [{"role": "user", "content": "CANARY-PROMPT"}], "max_tokens": 3}
    with openai_client(keyed, ALICE) as good, openai_client(keyed, WRONG) as bad:
        assert good.chat.completions.create(**hello).choices
        for stream in (False, True):
            with pytest.raises(openai.AuthenticationError) as caught:
                bad.chat.completions.create(**hello, stream=stream)
            assert caught.value.code == "invalid_api_key" and caught.value.type == "authentication_error"
        with pytest.raises(openai.AuthenticationError):
            bad.models.list()


def test_ollama_client(keyed: RunningServer) -> None:
    """Its own client reads our refusals, and passes with a header."""
    with pytest.raises(ollama.ResponseError, match="API key") as caught:
        ollama.Client(keyed.url).chat("default", [{"role": "user", "content": "hi"}])
    assert caught.value.status_code == 401
    assert ollama.Client(keyed.url, headers=bearer(BOB)).list().models


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


# On the wire: nothing is read, nothing is skipped


def talk(server: RunningServer, *parts: bytes, until: Callable[[bytes], bool] | None = None) -> bytes:
    """Send `parts` on one connection; what came back until the server closed it (or `until` is true)."""
    got = b""
    with server.raw() as sock:
        for part in parts:
            sock.sendall(part)
        while until is None or not until(got):
            if not (data := sock.recv(65536)):
                break
            got += data
    return got


def http(
    method: str, path: str, *headers: str, host: str | None = "localhost", body: bytes = b"", version: str = "1.1"
) -> bytes:
    lines = [f"{method} {path} HTTP/{version}", *([f"host: {host}"] if host is not None else []), *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


def test_a_refused_upload_is_not_waited_for(keyed: RunningServer) -> None:
    kind = "content-type: application/json"
    for length in (
        "content-length: 104857600",
        "transfer-encoding: chunked",
        "content-length: 104857600\r\nexpect: 100-continue",
    ):
        began = time.monotonic()
        got = talk(
            keyed, http("POST", "/v1/chat/completions", kind, length), until=lambda got: b"invalid_api_key" in got
        )
        assert got.startswith(b"HTTP/1.1 401 ") and b"connection: close" in got and b" 100 " not in got
        assert time.monotonic() - began < 15  # of the 20 seconds that an upload may take


def test_hundred_megabytes_from_a_stranger(keyed: RunningServer) -> None:
    with keyed.raw() as sock:
        sock.sendall(
            http("POST", "/v1/chat/completions", "content-type: application/json", "content-length: 104857600")
        )
        sent = send_hundred_megabytes(sock)
        assert sock.recv(65536).startswith(b"HTTP/1.1 401 ")
        assert sent > 16 << 20  # it was let talk for a while, so that it reads the answer and not a reset
    assert keyed.process_status("VmHWM") < 1_500_000
    assert keyed.request("GET", "/health")[0] == 200


def test_a_connection_lives_on_after_a_refusal(keyed: RunningServer) -> None:
    """Also when the refused request had a (small) body, which must not become the next request."""
    inner = http("GET", "/v1/models", f"x-api-key: {ALICE}")
    parts = [
        http("GET", "/v1/models"),
        http(
            "POST",
            "/v1/chat/completions",
            "content-type: application/json",
            f"content-length: {len(inner)}",
            body=inner,
        ),
        http("GET", "/v1/models", f"x-api-key: {BOB}"),
        http("GET", "/nope"),
        http("GET", "/health", "connection: close"),
    ]
    want = [b"401", b"401", b"200", b"401", b"200"]
    with keyed.raw() as sock:
        for part, status in zip(parts, want, strict=True):
            sock.sendall(part)
            got = sock.recv(65536)
            assert got.split(b" ", 2)[1] == status and got.count(b"HTTP/1.1 ") == 1
    pipelined = talk(keyed, b"".join(parts))
    assert [part.split(b" ", 1)[0] for part in pipelined.split(b"HTTP/1.1 ")[1:]] == want


def test_a_key_counts_for_its_own_request_only(keyed: RunningServer) -> None:
    got = talk(
        keyed,
        b"".join(http("GET", "/v1/models", header) for header in (f"x-api-key: {BOB}", "x: y", "connection: close")),
    )
    assert [part.split(b" ", 1)[0] for part in got.split(b"HTTP/1.1 ")[1:]] == [b"200", b"401", b"401"]


# Answers at a time


def test_answers_at_a_time(keyed: RunningServer) -> None:
    long: Any = {
        "model": "default",
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 900,
        "extra_body": {"ignore_eos": True},
    }
    short: Any = {**long, "max_tokens": 2}
    with (
        openai_client(keyed, ALICE) as alice,
        openai_client(keyed, ALICE_NEW) as same,
        openai_client(keyed, BOB) as bob,
    ):
        with pytest.raises(openai.BadRequestError, match="at most 2 at a time"):
            alice.chat.completions.create(**short, n=3)
        streams = [one.chat.completions.create(**long, stream=True) for one in (alice, same)]
        for stream in (False, True):
            with pytest.raises(openai.RateLimitError, match="2 of its 2 answers") as caught:
                alice.chat.completions.create(**short, stream=stream)
            assert caught.value.code == "rate_limit_exceeded" and caught.value.response.headers["retry-after"] == "1"
        assert bob.chat.completions.create(**short, n=2).choices  # another key is not concerned
        streams.pop().close()

        def freed() -> bool:
            try:
                return bool(alice.chat.completions.create(**short).choices)
            except openai.RateLimitError:
                return False

        keyed.wait(freed, 5, "free after a client left")
        with pytest.raises(openai.BadRequestError):  # neither does an error hold a place
            alice.chat.completions.create(**short, temperature=9)
        assert alice.chat.completions.create(**short).choices
        for stream in streams:
            stream.close()
        keyed.wait(lambda: alice.chat.completions.create(**short, n=2).choices, 5, "free")


def test_many_at_once_never_exceed_the_limit(keyed: RunningServer) -> None:
    statuses: list[int] = []

    def ask() -> None:
        statuses.append(keyed.post(chat(max_tokens=60, ignore_eos=True), **bearer(PLAIN))[0])

    threads = [threading.Thread(target=ask) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(set(statuses)) == [200, 429] and len(statuses) == 12
    keyed.wait(lambda: keyed.post(chat(max_tokens=2, n=2), **bearer(PLAIN))[0] == 200, 5, "free")


def test_a_slot_is_given_back_however_its_block_is_left() -> None:
    access = Access(Settings(key_concurrency=2), {"AXPRESS_API_KEYS": f"{ALICE},{BOB}"})
    alice, bob = (request_of(access, key) for key in (ALICE, BOB))
    with slot(alice), slot(alice), slot(bob, 2):
        for request in (alice, bob):
            with pytest.raises(HttpError) as caught, slot(request):
                raise AssertionError("a third answer")
            assert caught.value.status == 429
    with pytest.raises(KeyboardInterrupt), slot(alice, 2):
        raise KeyboardInterrupt
    with pytest.raises(RequestError), slot(alice, 3):
        pass
    assert not access.answers
    nobody = request_of(Access(Settings(), {}), None)
    with slot(nobody, 99), slot(nobody, 99):
        pass


def request_of(access: Access, key: str | None) -> Any:
    """What is left of a request after it was admitted."""
    identity = access.keys.identify(key) if key else None
    return SimpleNamespace(
        app=SimpleNamespace(ctx=SimpleNamespace(access=access)), ctx=SimpleNamespace(key=identity), headers=NO_HEADERS
    )


NO_HEADERS = SimpleNamespace(getone=lambda name, default: default)


# Tenants


def test_prompts_are_cached_per_key(keyed: RunningServer) -> None:
    def computed(key: str, **more: Any) -> int:
        status, _, body = keyed.post(
            chat("What only one of them has asked: CANARY-PROMPT pineapple.", max_tokens=1, **more), **bearer(key)
        )
        assert status == 200
        return int(body["usage"]["prompt_tokens"] - body["usage"]["prompt_tokens_details"]["cached_tokens"])

    everything = computed(ALICE, prompt_cache_key="k")
    assert everything > 20 and computed(ALICE_NEW, prompt_cache_key="k") == 1  # one tenant, two keys
    assert computed(BOB, prompt_cache_key="k") == everything
    assert computed(PLAIN, prompt_cache_key="k") == everything == computed(ENVIRONMENT, prompt_cache_key="k")
    assert computed(ALICE) > 20 and computed(ALICE) == 1 and computed(BOB) > 20


def test_salts() -> None:
    ring = {"AXPRESS_API_KEYS": f"a:{ALICE},b:{BOB}"}
    shared, apart = Access(Settings(), ring), Access(Settings(separate_keys=True), ring)
    names = [None, "", "k", "l"]
    common = [cache_salt_of(request_of(shared, ALICE), name) for name in names]
    assert (
        common[0] == b""
        and common == [cache_salt_of(request_of(shared, BOB), name) for name in names]
        and len(set(common)) == 4
    )
    own = [cache_salt_of(request_of(apart, key), name) for key in (ALICE, BOB) for name in names]
    assert len(set(own)) == 8 and all(len(one) == 32 for one in own) and not set(own) & set(common)
    again = Access(Settings(separate_keys=True), ring)  # and nobody can compute them from a key
    assert cache_salt_of(request_of(again, ALICE), "k") != own[2]


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
            server.wait(lambda: said in server.log, 5, "read again")

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


# Origins


def test_a_strangers_page_is_refused(keyed: RunningServer, free: RunningServer) -> None:
    for server in (keyed, free):
        here = f"127.0.0.1:{server.port}"
        for origin in (
            "https://evil.example", "http://127.0.0.1", f"https://{here}", f"http://localhost:{server.port}", f"http://{here}.evil.example",
            f"http://{here}@evil.example", "http://127.0.0.1:1", "null", "", "file://", "https://app.example.evil.example",
            "http://app.example",
            "https://app.example:444", "https://app.example/x", f"http://{here}, {APP}", "*", "x" * 5000,
        ):  # fmt: skip
            for method, path in (
                ("GET", "/v1/models"),
                ("POST", "/v1/chat/completions"),
                ("GET", "/health"),
                ("GET", "/nope"),
            ):
                answer = server.request(method, path, headers={"origin": origin, **bearer(BOB)})
                assert "--allow-origin" in refused(answer, 403, "origin_not_allowed"), (origin, answer)
            preflight = {
                "origin": origin,
                "access-control-request-method": "POST",
                "access-control-request-headers": "authorization",
            }
            refused(server.request("OPTIONS", "/v1/chat/completions", headers=preflight), 403, "origin_not_allowed")


def test_our_own_page_and_programs_are_answered_without_cors_headers(free: RunningServer) -> None:
    own: list[dict[str, str]] = [
        {"origin": f"http://127.0.0.1:{free.port}"},
        {"origin": f"HTTP://127.0.0.1:{free.port}"},
        {},
    ]
    own.append(
        {"host": f"localhost:{free.port}", "origin": f"http://localhost:{free.port}", "sec-fetch-site": "same-origin"}
    )
    own.append({"host": "localhost", "origin": "http://localhost:80"})
    own.append({"host": f"[::1]:{free.port}", "origin": f"http://[0:0:0:0:0:0:0:1]:{free.port}"})
    for headers in own:
        status, head, _ = free.post(chat(max_tokens=2), **headers)
        assert status == 200 and "access-control-allow-origin" not in head and head["vary"] == "origin"


def test_an_allowed_page(keyed: RunningServer) -> None:
    for origin in (APP, "https://APP.example:443"):
        status, head, _ = keyed.post(chat(max_tokens=2), origin=origin, **bearer(ALICE))
        assert status == 200 and head["access-control-allow-origin"] == origin and head["vary"] == "origin"
        assert "x-request-id" in head["access-control-expose-headers"]
        assert "access-control-allow-credentials" not in head
    for path, status in (("/v1/models", 401), ("/nope", 401), ("/health", 200)):  # a page can read why it was refused
        found, head, _ = keyed.request("GET", path, headers={"origin": APP})
        assert found == status and head["access-control-allow-origin"] == APP
    status, head, _ = keyed.post(chat(max_tokens=2, stream=True, temperature=9), origin=APP, **bearer(ALICE))
    assert status == 400 and head["access-control-allow-origin"] == APP


def test_streams_carry_cors_headers(keyed: RunningServer) -> None:
    body = json.dumps(chat(max_tokens=2, stream=True)).encode()
    headers = {"content-type": "application/json", "origin": APP, **bearer(ALICE)}
    status, head, raw = keyed.request("POST", "/v1/chat/completions", body, headers)
    assert (
        status == 200
        and raw.endswith(b"data: [DONE]\n\n")
        and head["access-control-allow-origin"] == APP
        and head["vary"] == "origin"
    )


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/nope"])
def test_preflight(keyed: RunningServer, path: str) -> None:
    """It carries no key, and what it is answered does not depend on whether the path exists."""
    wanted = "authorization,content-type, x-stainless-os"
    asked = {"origin": APP, "access-control-request-method": "POST", "access-control-request-headers": wanted}
    status, head, body = keyed.request("OPTIONS", path, headers=asked)
    assert (status, body) == (204, b"")
    assert head["access-control-allow-origin"] == APP and head["vary"] == "origin"
    assert head["access-control-allow-headers"] == wanted
    assert "POST" in head["access-control-allow-methods"] and "access-control-allow-credentials" not in head
    head = keyed.request("OPTIONS", path, headers={**asked, "access-control-request-headers": "x: y"})[1]
    assert "access-control-allow-headers" not in head
    refused_without = keyed.request("OPTIONS", path, headers={"origin": APP})  # not a preflight
    assert refused_without[0] == 401


def test_any_origin_where_there_are_no_keys(package: tuple[Path, Path]) -> None:
    with RunningServer(package[0], "--emu-profile", "none", "--allow-origin", "*") as server:
        for origin in ("https://anything.example", "null"):
            status, head, _ = server.request("GET", "/v1/models", headers={"origin": origin})
            assert (status, head["access-control-allow-origin"]) == (
                200,
                "*",
            ) and "access-control-allow-credentials" not in head
        rebound = {"host": "evil.example", "origin": "http://evil.example"}
        refused(server.request("GET", "/v1/models", headers=rebound), 403, "host_not_allowed")
    assert "any page" in server.log


def test_writes_from_another_site_without_an_origin(free: RunningServer) -> None:
    for site in ("cross-site", "same-site"):
        body = json.dumps(chat(max_tokens=2)).encode()
        headers = {"content-type": "application/json", "sec-fetch-site": site}
        refused(free.request("POST", "/v1/chat/completions", body, headers), 403, "origin_not_allowed")
        assert free.request("GET", "/health", headers={"sec-fetch-site": site, "sec-fetch-mode": "no-cors"})[0] == 200


def test_two_origins_are_none(keyed: RunningServer) -> None:
    for origin in (APP, "http://localhost"):
        got = talk(keyed, http("GET", "/health", f"origin: {origin}", f"origin: {origin}", "connection: close"))
        assert got.startswith(b"HTTP/1.1 403 ")


# Hosts


def test_names_that_are_ours(keyed: RunningServer) -> None:
    own = socket.gethostname()
    own_names = (own, own.upper(), own.split(".")[0] + ".local")
    for host in (
        "localhost",
        "LOCALHOST.",
        "127.0.0.1",
        "[::1]",
        "[FE80::1%25eth0]",
        "192.168.7.9",
        "models.example",
        *own_names,
    ):
        for port in ("", f":{keyed.port}", ":1", ":"):
            status, _, body = keyed.request("GET", "/health", headers={"host": host + port})
            assert status == 200, (host, port, body)


def test_names_that_are_not(keyed: RunningServer, free: RunningServer) -> None:
    names = [
        "evil.example",
        "x",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "127.1",
        "2130706433",
        "0x7f.0.0.1",
        "local",
    ]
    for server in (keyed, free):
        for host in names:
            headers = {"host": f"{host}:{server.port}", "origin": f"http://{host}:{server.port}", **bearer(BOB)}
            for method, path in (
                ("GET", "/health"),
                ("POST", "/v1/chat/completions"),
                ("OPTIONS", "/v1/models"),
                ("GET", "/"),
            ):
                answer = server.request(method, path, headers=headers)
                assert f"--allow-host {host}" in refused(answer, 403, "host_not_allowed")


@pytest.mark.parametrize(
    "host",
    [
        "", " ", ":80", "localhost:x", "localhost:65536", "local host", "user@localhost", "localhost/", "[::1", "::1",
        "[localhost]",
        "[:::1]", "a..b", ".", "localhost,evil.example", "localhost:80:80", "\xe4.example", "http://localhost", "*",
        "localhost#x",
        "localhost?x", "a" * 300,
    ],
)  # fmt: skip
def test_malformed_host(keyed: RunningServer, host: str) -> None:
    got = talk(keyed, http("GET", "/health", "connection: close", host=host))
    assert got.startswith(b"HTTP/1.1 400 ") and b'"bad_request"' in got


def test_no_host_and_two_hosts(keyed: RunningServer) -> None:
    for request, status in (
        (http("GET", "/health", "connection: close", host=None), 400),
        (http("GET", "/health", "host: localhost", "connection: close"), 400),
        # a health check of the old kind; browsers always name a host
        (http("GET", "/health", host=None, version="1.0"), 200),
        (http("GET", "/health", host="evil.example", version="1.0"), 403),
        (http("GET", "/v1/models", host=None, version="1.0"), 401),
    ):
        assert talk(keyed, request).startswith(b"HTTP/1.1 %d " % status), request


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        ("http://localhost/health", "localhost", 200),
        ("http://LOCALHOST/health", "localhost", 200),
        ("http://localhost/v1/models", "localhost", 401),
        ("http://evil.example/health", "localhost", 400),
        ("http://localhost/health", "evil.example", 400),
        ("http://evil.example/health", "evil.example", 403),
        ("http://user@localhost/health", "localhost", 400),
        ("http://localhost:1/health", "localhost:2", 400),
        ("http:///health", "localhost", 400),
        ("http://localhost", "localhost", 400),
        ("ftp://localhost/health", "localhost", 400),
        ("*", "localhost", 400),
        ("localhost:80", "localhost", 400),
        ("health", "localhost", 400),
        ("?health", "localhost", 400),
    ],
)
def test_request_targets(keyed: RunningServer, target: str, host: str, status: int) -> None:
    got = talk(keyed, http("GET", target, "connection: close", host=host))
    assert got.startswith(b"HTTP/1.1 %d " % status), got


def test_a_server_on_ipv6(package: tuple[Path, Path]) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    with RunningServer(package[0], "--emu-profile", "none", "--host", "::1", ready=False) as server:
        assert f"http://[::1]:{server.port}" in server.log and "without API keys" not in server.log
        own = f"[::1]:{server.port}"
        for host, origin, status in (
            (own, f"http://{own}", 200),
            ("x", "http://x", 403),
            ("[::1]", "http://[::2]", 403),
        ):
            with socket.create_connection(("::1", server.port), timeout=30) as sock:
                sock.sendall(http("GET", "/openapi.json", f"origin: {origin}", "connection: close", host=host))
                assert sock.recv(65536).startswith(b"HTTP/1.1 %d " % status)


def test_addresses_are_compared_in_one_form() -> None:
    assert parse_authority("[2001:DB8:0::1%25eth0]:80") == Authority("2001:db8::1", 80)
    assert parse_authority("Pi.Local.") == Authority("pi.local") and not parse_authority("pi.local").is_address
    assert (
        parse_origin("HTTPS://A.example") == Origin("https", "a.example", 443) == parse_origin("https://a.example:443")
    )
    assert parse_origin("chrome-extension://abcdef") == Origin("chrome-extension", "abcdef", None)
    hosts = Hosts("Pi.lan", ["other.example:8000"])
    assert all(hosts.allows(Authority(name)) for name in ("pi.lan", "other.example", "10.0.0.1", "::ffff:1.2.3.4"))
    assert not hosts.allows(Authority("lan")) and not hosts.allows(Authority("10.0.0.01"))
    assert (
        Origins(["app://obsidian.md"]).allows("app://obsidian.md")
        and not Origins().allows("null")
        and not Origins().any
    )


# The log


def test_canaries_stay_out_of_the_log(keyed: RunningServer, free: RunningServer) -> None:
    """The fixtures look at the whole log at their end; here are requests that go wrong in every way."""
    documents = [chat("CANARY", CANARY=1), chat("CANARY", model="CANARY\nCANARY"), b"CANARY", {"messages": "CANARY"}]
    documents.append(chat("CANARY", max_tokens=2, stop="CANARY", user="CANARY", prompt_cache_key="CANARY"))
    said: list[dict[str, str]] = [{"host": "CANARY.example"}, {"host": "CANARY/"}, {"origin": "https://CANARY.example"}]
    said += [bearer(WRONG), bearer(BOB), {**bearer(BOB), "x-request-id": "CANARY", "user-agent": "CANARY\x1b[31m"}]
    malformed = [
        b"GET /CANARY HTTP/9\r\n\r\n",
        b"CANARY\r\n\r\n",
        http("GET", "/\x1bCANARY"),
        http("GET", "/", "CANARY : x"),
    ]
    malformed.append(http("GET", "//CANARY@x:y/", "connection: close"))
    for server in (keyed, free):
        for headers in said:
            for path in ("/v1/models/CANARY", "/CANARY%0aFORGED", "/v1/models?key=CANARY"):
                server.request("GET", path, headers=headers)
            for document in documents:
                server.post(document, **headers)
        for raw in malformed:
            assert talk(server, raw).startswith(b"HTTP/1.1 4"), raw
    for server, code in ((keyed, "invalid_api_key"), (free, "host_not_allowed")):
        server.wait(lambda: f"refused a request from 127.0.0.1: {code}" in server.log, 10, "told in the log")  # noqa: B023
    assert "CANARY" not in keyed.log + free.log and "\x1b" not in keyed.log + free.log

"""Keys against real servers: each rule, and what a stranger or the log must not get."""

from __future__ import annotations

import json
import re
import threading
import time
from typing import Any

import ollama
import openai
import pytest
from access_requests import ALICE, ALICE_NEW, BOB, ENVIRONMENT, PLAIN, WRONG, bearer, http, refused, request_of, talk
from server_process import RunningServer, chat, openai_client, send_hundred_megabytes

from axpress.core.errors import RequestError
from axpress.server.docs.routes import ROUTES, Route
from axpress.server.http.access import Access, cache_salt_of, slot
from axpress.server.http.errors import HttpError
from axpress.server.settings import Settings

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
    with ollama.Client(keyed.url) as stranger, ollama.Client(keyed.url, headers=bearer(BOB)) as bob:
        with pytest.raises(ollama.ResponseError, match="API key") as caught:
            stranger.chat("default", [{"role": "user", "content": "hi"}])
        assert caught.value.status_code == 401
        assert bob.list().models


# On the wire: nothing is read, nothing is skipped


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

        keyed.wait(freed, 30, "free after a client left")
        with pytest.raises(openai.RateLimitError):  # and not because both came to their ends
            alice.chat.completions.create(**short, n=2)
        with pytest.raises(openai.BadRequestError):  # neither does an error hold a place
            alice.chat.completions.create(**short, temperature=9)
        assert alice.chat.completions.create(**short).choices
        for stream in streams:
            stream.close()
        keyed.wait(lambda: alice.chat.completions.create(**short, n=2).choices, 30, "free")


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
    keyed.wait(lambda: keyed.post(chat(max_tokens=2, n=2), **bearer(PLAIN))[0] == 200, 30, "free")


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
        server.wait(lambda: f" {code} from 127.0.0.1" in server.log, 30, "told in the log")  # noqa: B023
    assert "CANARY" not in keyed.log + free.log and "\x1b" not in keyed.log + free.log

"""--rate, and the bound on wrong keys."""

from __future__ import annotations

from pathlib import Path

import pytest
from server_process import RunningServer, chat

from axpress.server.http.errors import HttpError
from axpress.server.http.rates import MAX_CLIENTS, WRONG_KEYS, Rates, WrongKeys


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_minutes_worth_at_once_then_as_it_flows_in() -> None:
    clock = Clock()
    rates = Rates((6, None), clock)
    for _ in range(6):
        rates.take(b"a", "requests", 1)
    with pytest.raises(HttpError) as caught:
        rates.take(b"a", "requests", 1)
    assert caught.value.status == 429 and caught.value.headers == {"retry-after": "10"}
    rates.take(b"b", "requests", 1)  # another's
    clock.now += 10
    rates.take(b"a", "requests", 1)
    said = rates.headers(b"a")
    assert said["x-ratelimit-limit-requests"] == "6" and said["x-ratelimit-remaining-requests"] == "0"
    assert said["x-ratelimit-reset-requests"] == "60.000s"


def test_generated_tokens_are_owed() -> None:
    clock = Clock()
    rates = Rates((None, 600), clock)
    rates.take(b"a", "tokens", 100)
    rates.spend(b"a", 700)  # 200 more than there were
    with pytest.raises(HttpError) as caught:
        rates.take(b"a", "tokens", 10)
    assert caught.value.headers == {"retry-after": "21"}
    clock.now += 120
    rates.take(b"a", "tokens", 5000)  # more than it ever holds: when it is full


def test_clients_are_forgotten() -> None:
    clock = Clock()
    rates = Rates((5, None), clock)
    for number in range(MAX_CLIENTS + 10):
        rates.take(b"%d" % number, "requests", 1)
    assert len(rates._clients) <= MAX_CLIENTS


def test_an_address_tries_only_so_many_keys_and_known_ones_go_on() -> None:
    clock = Clock()
    wrong = WrongKeys(clock)
    wrong.check("1.2.3.4", b"alice")
    for _ in range(WRONG_KEYS):
        wrong.check("1.2.3.4", None)
    with pytest.raises(HttpError):
        wrong.check("1.2.3.4", None)
    with pytest.raises(HttpError):
        wrong.check("1.2.3.4", b"guessed")  # what a guesser must not learn
    wrong.check("1.2.3.4", b"alice")
    wrong.check("5.6.7.8", None)
    clock.now += 60
    wrong.check("1.2.3.4", b"bob")


def test_on_the_wire(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("alice:alice-key-01\nbob:bob-key-0001\n")
    keys.chmod(0o600)
    alice, bob = ({"authorization": f"Bearer {key}"} for key in ("alice-key-01", "bob-key-0001"))
    with RunningServer("--emu-profile", "none", "--api-keys", keys, "--rate", "2,60") as server:
        for left in (1, 0):
            status, head, _ = server.post(chat(max_tokens=2), **alice)
            assert status == 200 and head["x-ratelimit-remaining-requests"] == str(left)
            assert 0 < int(head["x-ratelimit-remaining-tokens"]) < 60
        status, head, body = server.post(chat(max_tokens=2), **alice)
        assert status == 429 and body["error"]["code"] == "rate_limit_exceeded" and int(head["retry-after"]) > 0
        assert head["x-ratelimit-limit-requests"] == "2"
        assert server.post(chat(max_tokens=2), **bob)[0] == 200
        statuses = [server.post(chat(), authorization=f"Bearer wrong-{n:04}")[0] for n in range(WRONG_KEYS + 1)]
        assert statuses == [401] * WRONG_KEYS + [429]
        assert server.request("GET", "/v1/models", headers=bob)[0] == 200

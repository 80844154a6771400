"""Pictures by URL: from hosts that the owner allowed, at public addresses, within size and time; from nowhere else."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Any

import pytest

from axpress.server.http import fetching
from axpress.server.http.fetching import NotFetched, fetch, is_public


@contextmanager
def answering(reply: bytes, hold: bool = False) -> Iterator[tuple[int, list[bytes]]]:
    """A host on loopback that answers once with these bytes; its port, and what it was asked. `hold`: it keeps the
    connection open until it is cut."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                asked.append(connection.recv(65536))
                connection.sendall(reply)
                while hold and connection.recv(65536):
                    pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1], asked
        if asked:
            thread.join(10)


@pytest.fixture
def loopback_is_public(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one address at which a test can have a host."""
    monkeypatch.setattr(fetching, "is_public", lambda address: address == ip_address("127.0.0.1"))


def refused(url: str, allowed: tuple[str, ...] = (), **fields: Any) -> str:
    with pytest.raises(NotFetched) as error:
        fetch(url, allowed, 1000, **fields)
    return str(error.value)


OK = b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\npicture"


@pytest.mark.usefixtures("loopback_is_public")
def test_an_allowed_host_is_asked_as_its_own_name() -> None:
    with answering(OK) as (port, asked):
        assert fetch(f"http://localhost:{port}/a%20b.png?c=d#e", [f"LocalHost:{port}"], 1000) == b"picture"
    head = asked[0].decode().lower()
    assert head.startswith("get /a%20b.png?c=d http/1.1\r\n") and f"host: localhost:{port}\r\n" in head
    assert "accept-encoding: identity" in head and "cookie" not in head and "authorization" not in head


@pytest.mark.usefixtures("loopback_is_public")
@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\n\r\n", "redirect"),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "status 404"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1001\r\n\r\n" + bytes(1001), "more than 1000 bytes"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + bytes(1001), "more than 1000 bytes"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3e9\r\n" + bytes(1001), "more than 1000 bytes"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\nhalf", "middle of the picture"),
        (b"nonsense\r\n\r\n", "could not be fetched"),
        (b"", "could not be fetched"),
    ],
)
def test_other_answers_are_no_pictures(reply: bytes, told: str) -> None:
    with answering(reply) as (port, asked):
        assert told in refused(f"http://localhost:{port}/", (f"localhost:{port}",))
    assert len(asked) == 1


@pytest.mark.usefixtures("loopback_is_public")
@pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf"])
def test_a_host_that_dribbles_is_cut(begun: bytes) -> None:
    with answering(begun, hold=True) as (port, _):
        assert "0.3 s" in refused(f"http://localhost:{port}/", (f"localhost:{port}",), seconds=0.3)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "[::1]", "0.0.0.0", "169.254.169.254", "10.0.0.1", "192.168.1.1", "172.16.0.1",
     "100.64.0.1", "[::ffff:127.0.0.1]", "[fe80::1]", "[fc00::1]", "2130706433", "0x7f.1", "127.1"],
)  # fmt: skip
def test_allowed_or_not_private_addresses_are_never_asked(host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        port = listening.getsockname()[1]
        for allowed in ((), (f"{host}:{port}",)):
            assert "http" in (told := refused(f"http://{host}:{port}/", allowed)) or "data: URL" in told
        with pytest.raises(BlockingIOError):
            listening.accept()


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["93.184.216.34", "10.0.0.1"], ["::1"], ["64:ff9b::7f00:1"]])
def test_names_that_lead_into_the_own_network_are_refused(
    addresses: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [(socket.AF_INET6 if ":" in a else socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, 80)) for a in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: pytest.fail("somebody was called"))
    assert "private address" in refused("http://pictures.example/", ("pictures.example",))


def test_the_address_that_was_checked_is_the_one_that_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that leads elsewhere at the second look is looked at once."""
    looks: list[str] = []
    called: list[Any] = []

    def resolve(host: str, port: int, **_: Any) -> list[Any]:
        looks.append(host)
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.216.34" if len(looks) == 1 else "127.0.0.1", port))
        ]

    def connect(address: Any, timeout: float) -> socket.socket:
        called.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket, "create_connection", connect)
    assert "could not be fetched" in refused("https://pictures.example/a", ("pictures.example",))
    assert looks == ["pictures.example"] and called == [("93.184.216.34", 443)]


@pytest.mark.parametrize(
    "url",
    ["ftp://pictures.example/", "//pictures.example/", "http://", "http://a:b@pictures.example/", "http://pictures.exämple/",
     "http://pictures.example/\r\nx: y", "http://pictures.example:99999/", "http:\\\\pictures.example/",
     "http://pictures.example/" + "a" * 5000],
)  # fmt: skip
def test_urls_of_other_kinds_are_refused(url: str) -> None:
    assert "data: URL" in refused(url, ("pictures.example",))


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("http://pictures.example/", ()),
        ("http://pictures.example:8080/", ("pictures.example",)),
        ("http://pictures.example/", ("pictures.example:8080",)),
        ("http://a.pictures.example/", ("pictures.example",)),
        ("http://pictures.example.evil.example/", ("pictures.example",)),
    ],
)
def test_hosts_that_were_not_allowed_are_named(
    url: str, allowed: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("a name was resolved"))
    told = refused(url, allowed)
    assert "--allow-image-host" in told and "data: URL" in told


def test_which_addresses_are_public() -> None:
    assert all(is_public(ip_address(text)) for text in ("93.184.216.34", "2606:2800:220:1::1", "::ffff:93.184.216.34"))
    private = ("224.0.0.1", "255.255.255.255", "240.0.0.1", "192.0.2.1", "fec0::1", "ff02::1", "::", "2002:7f00:1::",
               "2001:db8::1", "::127.0.0.1", "64:ff9b::a00:1", "198.18.0.1")  # fmt: skip
    assert not [text for text in private if is_public(ip_address(text))]

"""Origins and hosts: which pages and names a server answers to."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from access_requests import ALICE, APP, BOB, bearer, http, refused, talk
from server_process import RunningServer, chat

from axpress.server.http.addresses import Authority, Hosts, Origin, Origins, parse_authority, parse_origin

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

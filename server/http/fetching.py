"""Fetches a picture for a request from a host that the server's owner allowed, and from nowhere else.

The name is resolved here, every address that it has must be a public one, and the connection goes to the address that
was looked at: a name that resolves to something else a moment later (DNS rebinding) changes nothing. No redirect is
followed, no proxy and no cookie used. Blocks: on a thread of its own."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Iterable
from contextlib import closing, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from threading import Timer
from urllib.parse import urlsplit

from .addresses import Authority, parse_authority

PORTS = {"http": 80, "https": 443}
MAX_URL = 4096
FETCH_SECONDS = 10.0
"""From the first look at the name to the last byte."""
_TRANSLATED = IPv6Network("64:ff9b::/96")
"""IPv4 addresses as NAT64 writes them."""


class NotFetched(Exception):
    """Why there is no picture: a clause that goes after the field's name."""


@dataclass(frozen=True, slots=True)
class _Target:
    host: str
    port: int
    secure: bool
    path: str


def fetch(url: str, allowed: Iterable[str], max_bytes: int, seconds: float = FETCH_SECONDS) -> bytes:
    """The body of what `url` gives. `allowed`: hosts, or hosts with a port, as --allow-image-host takes them; without a
    port: the scheme's own. Raises NotFetched."""
    target = _target(url, [parse_authority(name) for name in allowed])
    address = _address(target)
    deadline, late = _Deadline(seconds), NotFetched(f"the picture of {target.host} did not come within {seconds:g} s")
    try:
        with deadline, socket.create_connection((address, target.port), timeout=seconds) as connection:
            data = _exchange(connection, target, max_bytes, deadline)
    except (OSError, http.client.HTTPException, ValueError, NotFetched) as error:
        if deadline.passed or isinstance(error, TimeoutError):
            raise late from None
        if isinstance(error, NotFetched):
            raise
        text = f"the picture of {target.host} could not be fetched ({type(error).__name__})"
        raise NotFetched(text) from None
    if deadline.passed:
        raise late
    return data


class _Deadline:
    """Cuts a connection after so many seconds in all; a socket's own time-out begins anew with each byte."""

    def __init__(self, seconds: float) -> None:
        self.passed = False
        self.connection: socket.socket | None = None
        self._timer = Timer(seconds, self._cut)

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def _cut(self) -> None:
        self.passed = True
        if self.connection is not None:
            with suppress(OSError):
                socket.socket.shutdown(self.connection, socket.SHUT_RDWR)  # a TLS one would say goodbye first


def _target(url: str, allowed: list[Authority]) -> _Target:
    """Raises NotFetched for what is no http(s) URL of an allowed host."""
    try:
        if len(url) > MAX_URL or not url.isascii() or any(c <= " " or c == "\\" for c in url):
            raise ValueError
        parts = urlsplit(url)
        where = parse_authority(parts.netloc)
        default = PORTS[parts.scheme]
    except (ValueError, KeyError):
        raise NotFetched("use a data: URL, or an http(s) one (ASCII, no user name in it)") from None
    port = where.port or default
    if not any(known.host == where.host and (known.port or default) == port for known in allowed):
        text = f"this server fetches no pictures from {where.host[:100]}, port {port}: send the picture as a data: URL"
        raise NotFetched(f"{text} (data:image/jpeg;base64,...), or start it with --allow-image-host {where.host[:100]}")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return _Target(where.host, port, parts.scheme == "https", path)


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether it is of the internet, whatever IPv4 address stands in an IPv6 one."""
    if isinstance(address, IPv6Address):
        inner = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
        if address in _TRANSLATED:
            inner.append(IPv4Address(int(address) & 0xFFFFFFFF))
        if not all(is_public(one) for one in inner if one is not None):
            return False
        if address.is_site_local:
            return False
        if address.ipv4_mapped is not None:
            return True
    unusual = address.is_private or address.is_loopback or address.is_link_local or address.is_multicast
    return address.is_global and not (unusual or address.is_reserved or address.is_unspecified)


def _address(target: _Target) -> str:
    """The first one that the name resolves to. Raises NotFetched where any of them is not of the internet."""
    try:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise NotFetched(f"the host {target.host} is not known") from None
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    for text in addresses:
        if "%" in text or not is_public(ip_address(text)):
            why = "nothing is ever fetched from the network that the server is in, nor from itself"
            raise NotFetched(f"{target.host} is at a private address; {why}: send the picture as a data: URL")
    if not addresses:
        raise NotFetched(f"the host {target.host} has no address")
    return addresses[0]


def _exchange(plain: socket.socket, target: _Target, max_bytes: int, deadline: _Deadline) -> bytes:
    """Asks for the target and reads the answer."""
    connection = http.client.HTTPConnection(target.host, target.port)
    connection.sock = deadline.connection = plain
    try:
        if target.secure:
            context = ssl.create_default_context()
            secure = context.wrap_socket(plain, server_hostname=target.host, do_handshake_on_connect=False)
            connection.sock = deadline.connection = secure
            secure.do_handshake()
        headers = {"accept": "image/*", "accept-encoding": "identity", "user-agent": "axpress"}
        connection.request("GET", target.path, headers=headers)
        with closing(connection.getresponse()) as reply:
            return _body(reply, target, max_bytes)
    finally:
        connection.close()


def _body(reply: http.client.HTTPResponse, target: _Target, max_bytes: int) -> bytes:
    if 300 <= reply.status < 400:
        raise NotFetched(f"{target.host} answers with a redirect, which is not followed: give the picture's own URL")
    if reply.status != 200:
        raise NotFetched(f"{target.host} answers with status {reply.status}")
    declared = reply.length or 0
    data = reply.read(max_bytes + 1) if declared <= max_bytes else b""
    if declared > max_bytes or len(data) > max_bytes:
        raise NotFetched(f"the picture has more than {max_bytes} bytes (axpress serve --max-image-bytes)")
    if declared > len(data):
        raise NotFetched(f"{target.host} ended the connection in the middle of the picture")
    return data

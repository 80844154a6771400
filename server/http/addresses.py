"""Hosts and origins as HTTP writes them, and which of them this server answers. Pure: no request, no socket.

A page of a stranger reaches a server on loopback in two ways. It sends requests across origins: those carry an Origin
header. Or its own name is made to resolve to 127.0.0.1 (DNS rebinding), so that the browser takes us for the page's own
server: those carry that name as Host. An address in numbers cannot be rebound."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

_AUTHORITY = re.compile(
    r"(?:\[([0-9A-Fa-f:.]{2,45})(?:%[A-Za-z0-9._-]{1,32})?\]|([A-Za-z0-9._-]{1,253}))(?::([0-9]{0,5}))?"
)
_ORIGIN = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,63})://([^/?#@\\]+)/?")
_DEFAULT_PORTS = {"http": 80, "https": 443}
ANY = "*"


@dataclass(frozen=True, slots=True)
class Authority:
    """Host and port of a request or a URL. The host is in lower case, an IPv6 address in its short form without
    brackets."""

    host: str
    port: int | None = None

    @property
    def is_address(self) -> bool:
        """True for an IPv4 or IPv6 address in numbers."""
        return _address(self.host) is not None


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port of a page; a default port is written out."""

    scheme: str
    host: str
    port: int | None


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def parse_authority(text: str) -> Authority:
    """`host`, `host:port`, `[v6]` or `[v6]:port`. Raises ValueError."""
    match = _AUTHORITY.fullmatch(text)
    if match is None:
        raise ValueError("not a host with an optional port")
    v6, name, digits = match.groups()
    port = int(digits) if digits else None
    if port is not None and port > 65535:
        raise ValueError("a port is at most 65535")
    if v6 is not None:
        return Authority(str(IPv6Address(v6)), port)
    host = name.lower().removesuffix(".")
    if not host or ".." in host:
        raise ValueError("not a host name")
    return Authority(host, port)


def parse_origin(text: str) -> Origin:
    """`scheme://host[:port]`, as a browser sends it and as --allow-origin takes it. Raises ValueError, for "null"
    too."""
    match = _ORIGIN.fullmatch(text)
    if match is None:
        raise ValueError("not an origin (scheme://host or scheme://host:port)")
    scheme, authority = match[1].lower(), parse_authority(match[2])
    return Origin(scheme, authority.host, authority.port or _DEFAULT_PORTS.get(scheme))


def is_loopback(address: str) -> bool:
    """True when only this machine reaches a server that listens on `address`."""
    ip = _address(address.partition("%")[0])
    return address == "localhost" if ip is None else ip.is_loopback


class Hosts:
    """The names under which this server answers: addresses in numbers, localhost, the machine's own name, and those it
    was given."""

    def __init__(self, listen: str, allowed: Iterable[str] = ()) -> None:
        own = socket.gethostname().lower().removesuffix(".")
        names = {"localhost", own, own.partition(".")[0] + ".local", listen.lower().removesuffix(".")}
        self._names = {name for name in names if name} | {parse_authority(name).host for name in allowed}

    def allows(self, host: Authority) -> bool:
        """Whether a request to `host` is meant for us; the port does not matter, since rebinding needs a name."""
        return host.is_address or host.host in self._names


class Origins:
    """The pages whose requests are answered: our own, and those that were allowed."""

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        allowed = tuple(allowed)
        self.any = ANY in allowed
        self._allowed = {parse_origin(origin) for origin in allowed if origin != ANY}

    def same(self, origin: str, host: Authority | None) -> bool:
        """True for a page that came from `host`, which is this server. We speak http only, whatever stands before
        us."""
        return host is not None and _origin(origin) == Origin("http", host.host, host.port or 80)

    def allows(self, origin: str) -> bool:
        """Whether --allow-origin names it."""
        return self.any or _origin(origin) in self._allowed


def _origin(text: str) -> Origin | None:
    try:
        return parse_origin(text)
    except ValueError:
        return None

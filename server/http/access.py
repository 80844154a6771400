"""Who may ask: hosts, origins and keys, decided for every request before Sanic routes it and before its body is read.

In this order, each with an answer that names the flag that would let it pass:
1. Host: an address in numbers, localhost, this machine's name, --host's name or --allow-host's; so no name can be
   rebound to us.
2. Origin: of our own page, or one that --allow-origin names; CORS headers and preflights for the latter only. `*` only
   where there are no keys (a page that asks for a key should be known by name), and no answer ever allows a browser's
   credentials.
3. Key, where there are keys: `Authorization: Bearer KEY`, `api-key: KEY` or `x-api-key: KEY`. Open without one are the
   reads whose row in the route table says so: nothing in them tells of this server more than that it is here and
   whether it is ready. The decision is taken on the route that Sanic's router finds, not on the path as it was sent;
   what has no route needs a key."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from sanic.exceptions import SanicException
from sanic.request import Request
from sanic.response import BaseHTTPResponse, HTTPResponse

from axpress.core.errors import AxpressError, RequestError

from ..settings import Settings
from .addresses import ANY, Authority, Hosts, Origins, is_loopback, parse_authority
from .api_keys import VARIABLE, Identity, KeyFileError, Keyring
from .connections import LimitedProtocol
from .errors import HttpError
from .rates import Rates, WrongKeys
from .request_body import answer_unread
from .request_log import logged

log = logging.getLogger("axpress.access")

_READS = ("GET", "HEAD", "OPTIONS")
_TARGET = re.compile(r"(?:[Hh][Tt][Tt][Pp][Ss]?://([^/?#]*))?/.*", re.DOTALL)
_ASKED_HEADERS = re.compile(r"[A-Za-z0-9_-]{1,64}(?:[ ,]+[A-Za-z0-9_-]{1,64}){0,63}")
_EXPOSED = "x-request-id, retry-after, retry-after-ms, x-should-retry" + "".join(
    f", x-ratelimit-{what}-{of}" for what in ("limit", "remaining", "reset") for of in ("requests", "tokens")
)


class AccessError(AxpressError):
    """Flags that do not go together."""


class Access:
    """The rules of one server, and who is being answered. Lives on the event loop, as `app.ctx.access`."""

    def __init__(self, settings: Settings, environment: Mapping[str, str] = os.environ) -> None:
        self.keys = Keyring(settings.api_keys, environment.get(VARIABLE))
        self.hosts = Hosts(settings.host, settings.allow_hosts)
        self.origins = Origins(settings.allow_origins)
        self.separate = settings.separate_keys
        self.limit = settings.key_concurrency
        self.rates = Rates(settings.rate)
        self.wrong_keys = WrongKeys()
        self.answers: Counter[bytes] = Counter()
        for flag, is_set in (("--key-concurrency", self.limit is not None), ("--separate-keys", self.separate)):
            if is_set and not self.keys:
                text = f"{flag} is about API keys and there are none; give them with --api-keys FILE or {VARIABLE}"
                raise AccessError(text)
        if self.origins.any and self.keys:
            text = "--allow-origin '*' is not taken together with API keys; name the pages that may use them"
            raise AccessError(text)

    def announce(self, address: str) -> None:
        """Say in the log who may use a server that listens on `address`."""
        if self.keys:
            log.info("requests need one of %d API keys", len(self.keys))
        elif not is_loopback(address):
            log.warning(
                "listening on %s without API keys: whoever reaches this address can use the card; see --api-keys",
                address,
            )
        if self.origins.any:
            log.warning("--allow-origin '*': any page that is open in a browser on this network can use the card")

    def reload(self) -> None:
        """Read the key file again (SIGHUP). Answers that run go on; a file with a mistake changes nothing."""
        if self.keys.file is None:
            log.info("SIGHUP: there is no key file to read again")
            return
        try:
            self.keys.load()
        except KeyFileError as exc:
            log.error("the key file was not read again, the keys stay as they were: %s", exc)
        else:
            log.info("the key file was read again: requests need one of %d API keys", len(self.keys))

    def admit(self, request: Request) -> HTTPResponse | None:
        """The answer to a preflight; None for a request that may go on, with `request.ctx.key` set. Raises
        HttpError."""
        request.ctx.key = request.ctx.allowed_origin = None
        host = self._check_host(request)
        preflight = self._check_origin(request, host)
        if preflight is not None:
            return preflight
        if self.keys:
            request.ctx.key = self._identify(request)
            if request.ctx.key is None and not _is_open(request):
                raise _unauthorized(bool(_presented(request)))
        return None

    def _check_host(self, request: Request) -> Authority | None:
        """The host a request is for; None where an old client names none. Raises HttpError 400 or 403."""
        headers = request.headers.getall("host", [])
        target = _TARGET.fullmatch(request.raw_url.decode("latin-1"))
        if target is None or len(headers) > 1 or (not headers and request.version != "1.0"):
            raise _bad_host()
        try:
            hosts = {parse_authority(name) for name in (*headers, target[1]) if name is not None}
        except ValueError:
            raise _bad_host() from None
        if len(hosts) > 1:
            raise _bad_host()
        host = hosts.pop() if hosts else None
        if host is not None and not self.hosts.allows(host):
            text = (
                f"This server does not answer under the name '{host.host}'; start it with --allow-host {host.host} if"
                " it should."
            )
            raise HttpError(403, text, code="host_not_allowed")
        return host

    def _check_origin(self, request: Request, host: Authority | None) -> HTTPResponse | None:
        """The answer to an allowed page's preflight, else None. Raises HttpError 403 for a stranger's page."""
        origins = request.headers.getall("origin", [])
        if not origins:
            # Every browser says its origin with a write; one that says only that it comes from elsewhere is not
            # believed.
            site = request.headers.getone("sec-fetch-site", "none")
            if request.method not in _READS and site in ("cross-site", "same-site"):
                raise _foreign("another site")
            return None
        origin = origins[0]
        if len(origins) == 1 and self.origins.same(origin, host):
            return None
        if len(origins) > 1 or not self.origins.allows(origin):
            raise _foreign(f"'{origin[:100]}'")
        request.ctx.allowed_origin = ANY if self.origins.any else origin
        wanted = request.headers.getone("access-control-request-method", None)
        return None if request.method != "OPTIONS" or wanted is None else _preflight(request)

    def _identify(self, request: Request) -> Identity | None:
        """Whose request it is, by the first good key among those it carries. Raises HttpError 429 where its address
        has tried too many."""
        identities = [self.keys.identify(key) for key in _presented(request)]
        found = next((identity for identity in identities if identity is not None), None)
        if identities:
            self.wrong_keys.check(request.ip, None if found is None else found.digest)
        return found


def _bad_host() -> HttpError:
    text = "The request does not name its host well: one Host header, and the same host in the target."
    return HttpError(400, text, code="bad_request")


def _foreign(site: str) -> HttpError:
    text = (
        f"Requests from pages of {site} are not answered here; start the server with --allow-origin ORIGIN for a page"
        " that may."
    )
    return HttpError(403, text, code="origin_not_allowed")


def _unauthorized(wrong: bool) -> HttpError:
    if wrong:
        text = "This API key is not one of this server's keys."
    else:
        text = (
            "This server wants an API key: send it as 'Authorization: Bearer KEY', or in the header api-key or"
            " x-api-key."
        )
    return HttpError(401, text, code="invalid_api_key", headers={"www-authenticate": 'Bearer realm="axpress"'})


def _presented(request: Request) -> list[str]:
    """The keys a request carries: at most one from each header."""
    scheme, _, bearer = request.headers.getone("authorization", "").partition(" ")
    others = [request.headers.getone(name, "") for name in ("api-key", "x-api-key")]
    keys = [key.strip(" \t") for key in (bearer if scheme.lower() == "bearer" else "", *others)]
    return [key for key in keys if key]


def _is_open(request: Request) -> bool:
    """Whether the route that will answer needs no key. What is not found, and writes, do."""
    if request.method not in ("GET", "HEAD"):
        return False
    try:
        route, _, _ = request.app.router.get(request.path, request.method, request.headers.getone("host", None))
    except (SanicException, UnicodeDecodeError):
        return False
    return bool(getattr(route.ctx, "open", False))


def _preflight(request: Request) -> HTTPResponse:
    """What an allowed page may send. It may name any header, since nothing here is granted by a header but the key."""
    asked = request.headers.getone("access-control-request-headers", "").strip()
    headers = {"access-control-allow-methods": "GET, HEAD, POST, DELETE", "access-control-max-age": "600"}
    if _ASKED_HEADERS.fullmatch(asked):
        headers["access-control-allow-headers"] = asked
    return HTTPResponse(status=204, headers=headers)


async def mark(request: Request, response: BaseHTTPResponse) -> None:
    """For every response: let the allowed page read it, and no cache give it to another one."""
    response.headers["vary"] = ", ".join([*response.headers.getall("vary", []), "origin"])
    if getattr(request.ctx, "rated", False):
        response.headers.update(request.app.ctx.access.rates.headers(client_of(request)))
    origin = getattr(request.ctx, "allowed_origin", None)
    if origin is not None:
        response.headers["access-control-allow-origin"] = origin
        response.headers["access-control-expose-headers"] = _EXPOSED


class GuardedProtocol(LimitedProtocol):
    """HTTP/1.1 whose requests pass `Access` before Sanic sees them: unknown paths, wrong methods and pipelined ones as
    well."""

    __slots__ = ()

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.request_handler = partial(logged, partial(_guard, self.request_handler))


async def _guard(handle: Callable[[Request], Awaitable[None]], request: Request) -> None:
    """Handle an admitted request, or answer it here."""
    access: Access = request.app.ctx.access
    try:
        response = access.admit(request)
    except HttpError as exc:
        response = request.app.error_handler.default(request, exc)
    if response is None:
        await handle(request)
    else:
        await answer_unread(request, response)


def is_known(request: Request) -> bool:
    """True when the details of this server are for this client: it has a key, or nobody needs one."""
    access: Access = request.app.ctx.access
    return not access.keys or request.ctx.key is not None


def client_of(request: Request) -> bytes:
    """Who asks, for what is shared fairly: the key's owner, or without keys the address."""
    identity: Identity | None = request.ctx.key
    return request.ip.encode() if identity is None else identity.digest


def check_may_change(request: Request) -> None:
    """Raises HttpError 403 unless the request has a key with the right to pull and delete models."""
    identity: Identity | None = request.ctx.key
    if identity is None or not identity.may_change_models:
        has = "This API key has no right to" if identity is not None else "Without API keys nobody may"
        text = f"{has} change the models here; a line 'NAME:KEY models' of the key file (--api-keys) gives it."
        raise HttpError(403, text, code="not_allowed")


def owner_of(request: Request) -> str:
    """Whose something stored is: the same after a restart too. Without keys it is everybody's."""
    identity: Identity | None = request.ctx.key
    return "" if identity is None else identity.lasting


def take_rate(request: Request, name: str, amount: int) -> None:
    """Counts "requests" or "tokens" against --rate. Raises HttpError 429; the answer has the x-ratelimit headers in any
    case."""
    request.ctx.rated = True
    request.app.ctx.access.rates.take(client_of(request), name, amount)


def cache_salt_of(request: Request, prompt_cache_key: str | None) -> bytes:
    """What a request's cached prompts are kept under: b"" for what all share, else 32 bytes of the tenant's own.

    Tenants are told apart by `prompt_cache_key`, and with --separate-keys by API key too: nobody's cache key then
    reaches another's rows."""
    access: Access = request.app.ctx.access
    tenant = request.ctx.key.digest if access.separate and request.ctx.key is not None else b""
    if not tenant and prompt_cache_key is None:
        return b""
    name = b"" if prompt_cache_key is None else b"\0" + prompt_cache_key.encode()
    return hashlib.sha256(tenant + name).digest()


@contextmanager
def slot(request: Request, answers: int = 1) -> Iterator[None]:
    """Around the answers to one request: they count against their key's --key-concurrency until the block is left,
    however it is.

    Raises HttpError 429 when the key has no room for them now, RequestError when it never will. Event loop only, so it
    is atomic."""
    access: Access = request.app.ctx.access
    identity: Identity | None = request.ctx.key
    if access.limit is None or identity is None:
        yield
        return
    _check_room(access.limit, access.answers[identity.digest], answers)
    access.answers[identity.digest] += answers
    try:
        yield
    finally:
        access.answers[identity.digest] -= answers
        if not access.answers[identity.digest]:
            del access.answers[identity.digest]


def _check_room(limit: int, running: int, wanted: int) -> None:
    if wanted > limit:
        text = f"This request asks for {wanted} answers; an API key has at most {limit} at a time here."
        raise RequestError(text, None, "invalid_value")
    if running + wanted > limit:
        text = f"This API key has {running} of its {limit} answers at a time running; try again when one has ended."
        raise HttpError(429, text, code="rate_limit_exceeded", headers={"retry-after": "1"})

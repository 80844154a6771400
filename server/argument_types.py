"""What the command line's words mean, for argparse: an ArgumentTypeError says what would be right."""

from __future__ import annotations

import argparse
import re
from contextlib import suppress

from .settings import Settings


def device(text: str) -> str | int:
    if text in ("auto", "emu", "axengine"):
        return text
    if text.isascii() and text.isdigit():
        return int(text)
    raise argparse.ArgumentTypeError("use auto, emu, axengine, or a card's index such as 0")


def devices(text: str) -> str | int:
    """As `device`, or several."""
    if re.fullmatch(r"(emu:)?(all|[0-9]+(,[0-9]+)*)", text, re.ASCII) and (":" in text or not text.isdigit()):
        numbers = text.rpartition(":")[2].split(",")
        if len(set(numbers)) == len(numbers):
            return text
        raise argparse.ArgumentTypeError("name each card once")
    with suppress(argparse.ArgumentTypeError):
        return device(text)
    raise argparse.ArgumentTypeError(
        "use auto, emu, axengine, a card's index such as 0, several such as 0,1, or all; emulated ones are emu:0,1"
    )


def cards(text: str) -> tuple[int, ...]:
    try:
        indexes = tuple(int(part) for part in text.split(","))
    except ValueError:
        indexes = ()
    if len(indexes) < 2 or len(set(indexes)) < len(indexes) or min(indexes) < 0:
        raise argparse.ArgumentTypeError("use the indexes of two or more different cards, such as 0,1")
    return indexes


def port(text: str) -> int:
    if text.isascii() and text.isdigit() and int(text) < 65536:
        return int(text)
    raise argparse.ArgumentTypeError("use a number from 0 (any free port) to 65535")


def seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1e7:
        raise argparse.ArgumentTypeError("use a number of seconds above 0")
    return value


def count(text: str, most: int | None = None, *, least: int = 1) -> int:
    if text.isascii() and text.isdigit() and least <= int(text) <= (most or 10**6 - 1):
        return int(text)
    bounds = f"above {least - 1}" if most is None else f"from {least} to {most}"
    raise argparse.ArgumentTypeError(f"use a whole number {bounds}")


def heat(text: str) -> tuple[float, float, float]:
    try:
        warn, throttle, pause = map(float, text.split(","))
    except ValueError:
        warn = throttle = pause = 0.0
    if not 0 < warn <= throttle < pause < 120:
        raise argparse.ArgumentTypeError("use three growing temperatures below 120, such as 75,80,85")
    return warn, throttle, pause


def rate(text: str) -> tuple[int | None, int | None]:
    requests, _, tokens = text.partition(",")
    if not all(part.isascii() and part.isdigit() and len(part) < 10 for part in (requests, tokens or "0")):
        raise argparse.ArgumentTypeError("use requests a minute, or requests,tokens, such as 60 or 60,40000")
    return int(requests) or None, int(tokens or "0") or None


def store_limit(text: str) -> tuple[int, int]:
    number, comma, mib = text.partition(",")
    return count(number), count(mib) << 20 if comma else Settings().store_limit[1]


def kib(text: str) -> int:
    return count(text) * 1024


def origin(text: str) -> str:
    from .http.addresses import ANY, parse_origin

    try:
        if text != ANY:
            parse_origin(text)
        return text
    except ValueError:
        raise argparse.ArgumentTypeError(
            "use scheme://host or scheme://host:port, as a browser's address bar begins, or *"
        ) from None


def host_name(text: str) -> str:
    from .http.addresses import parse_authority

    try:
        return parse_authority(text).host
    except ValueError:
        raise argparse.ArgumentTypeError("use a host name, such as models.example.org") from None


def image_host(text: str) -> str:
    from .http.addresses import parse_authority

    try:
        parse_authority(text)
        return text
    except ValueError:
        raise argparse.ArgumentTypeError("use a host name, such as images.example.org, or HOST:PORT") from None


def rows(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError("use whole numbers with commas, such as 0,128,256") from None

"""What a chat may ask of each answer: options of the command line, and fields of /set. The server knows the bounds."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

EFFORTS = {"on": "high", "off": "none", "minimal": "minimal", "low": "low", "medium": "medium", "high": "high"}


def _think(text: str) -> str | int:
    if text in EFFORTS:
        return text
    if text.isascii() and text.isdigit():
        return int(text)
    raise argparse.ArgumentTypeError(f"use {', '.join(EFFORTS)}, or a number of tokens")


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError("use a whole number") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError("use a number") from None


@dataclass(frozen=True, slots=True)
class Setting:
    """`parse` raises argparse.ArgumentTypeError. `sign`: what stands for a value in help texts."""

    parse: Callable[[str], Any]
    sign: str
    text: str


SETTINGS = {
    "temperature": Setting(_number, "X", "0: always the likeliest token; higher: more varied"),
    "top_p": Setting(_number, "X", "only the likeliest tokens that together have this chance"),
    "top_k": Setting(_whole, "N", "only so many of the likeliest tokens"),
    "min_p": Setting(_number, "X", "only tokens with this share of the likeliest one's chance"),
    "repetition_penalty": Setting(_number, "X", "above 1: what was there already becomes less likely"),
    "presence_penalty": Setting(_number, "X", "above 0: what was answered already becomes less likely, once"),
    "frequency_penalty": Setting(_number, "X", "the same for each time"),
    "seed": Setting(_whole, "N", "the same number gives the same answer"),
    "max_tokens": Setting(_whole, "N", "the longest answer"),
    "stop": Setting(str, "TEXT", "an answer ends before it"),
    "think": Setting(_think, "HOW", "on, off, minimal, low, medium, high, or so many tokens; for models that reason"),
}


def request_fields(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings by name as fields of a chat request."""
    fields = dict(settings)
    think = fields.pop("think", None)
    if isinstance(think, int):
        fields["thinking_budget"] = think
    elif think is not None:
        fields["reasoning_effort"] = EFFORTS[think]
    return fields

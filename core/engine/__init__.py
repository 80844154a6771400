"""The life of a request on the card: admitted, planned into passes, sampled, its text handed on."""

from .engine import Engine

__all__ = ["Engine"]

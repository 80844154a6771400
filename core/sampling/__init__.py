"""Logits to a token, exactly."""

from .sampler import Sampler

__all__ = ["Sampler"]

"""Rows of K and V: who holds which, which tokens they stand for, where they should lie."""

from .cache_bank import CacheBank
from .radix_cache import RadixCache
from .row_pool import RowPool

__all__ = ["CacheBank", "RadixCache", "RowPool"]

"""What the tests of the prefix tree do and look at."""

from __future__ import annotations

from contextlib import closing

from axpress.core.kv_cache.radix_cache import Node, Priority, RadixCache, Tokens
from axpress.core.kv_cache.row_pool import Rows

Path = tuple[bytes, tuple[int, ...]]


def check(tree: RadixCache) -> None:
    tree.pool.check_integrity()
    tree.check_integrity()


def insert(
    tree: RadixCache, tokens: Tokens, rows: Tokens, cache_salt: bytes = b"", priority: Priority = Priority.NORMAL
) -> Rows:
    """A sequence that computes these tokens and ends: the rows that stand for them from now on."""
    with closing(tree.cursor(cache_salt, priority=priority)) as cursor:
        return cursor.extend(tokens, rows)


def paths(tree: RadixCache) -> dict[Path, int]:
    """Every prefix in the tree, with the row of its last token."""
    found: dict[Path, int] = {}
    todo: list[tuple[Node, tuple[int, ...]]] = [(root, ()) for root in tree.roots.values()]
    for node, before in todo:
        for token, row in zip(node.tokens, node.rows, strict=True):
            before = (*before, token)
            found[node.cache_salt, before] = row
        todo.extend((child, before) for child in node.children.values())
    return found


def num_nodes(tree: RadixCache) -> int:
    return len(tree._nodes())

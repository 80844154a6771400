"""What the tests of the prefix tree look at."""

from __future__ import annotations

from axpress.core.kv_cache.radix_cache import Node, RadixCache

Path = tuple[bytes, tuple[int, ...]]


def check(tree: RadixCache) -> None:
    tree.pool.check_integrity()
    tree.check_integrity()


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

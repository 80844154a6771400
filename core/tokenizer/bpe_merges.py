"""The merges of a byte-pair vocabulary that is stored without them: they follow from the order of its tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

Pair = tuple[str, str]


def every_merge(ids: Mapping[str, int], scores: Sequence[float] | None = None) -> list[Pair]:
    """All ways to put a token together from two others, those of the best token first: of the highest score, or the
    lowest id. Ways to one token are in the order of the converters that made the published tokenizer.json files."""
    ways = []
    for token, token_id in ids.items():
        pairs = sorted(_pairs(token, ids), key=lambda pair: (ids[pair[0]], ids[pair[1]]))
        ways += [(token_id if scores is None else -scores[token_id], pair) for pair in pairs]
    if scores is None:
        ways.sort(key=lambda way: way[0])
    else:
        ways.sort(key=lambda way: (way[0], -len(way[1][0]), -len(way[1][1])))
    return [pair for _, pair in ways]


def own_merges(ids: Mapping[str, int]) -> list[Pair]:
    """The merge that made each token, where ids are in the order of the merges: what the merges before it make of the
    token is its two parts."""
    ranks: dict[Pair, int] = {}
    for token in sorted((t for t in ids if len(t) > 1), key=ids.__getitem__):
        pairs = _pairs(token, ids)
        if len(pairs) > 1:
            parts = _merged(token, ranks)
            pairs = [(parts[0], parts[1])] if len(parts) == 2 else []
        for pair in pairs:
            ranks[pair] = len(ranks)
    return list(ranks)


def _pairs(token: str, ids: Mapping[str, int]) -> list[Pair]:
    """The two tokens that `token` can be cut into, for each cut where both exist."""
    cuts = [cut for cut in range(1, len(token)) if token[:cut] in ids]
    return [(token[:cut], token[cut:]) for cut in cuts if token[cut:] in ids]


def _merged(token: str, ranks: Mapping[Pair, int]) -> list[str]:
    """The token's characters after the merges known so far, down to two parts."""
    parts = list(token)
    while len(parts) > 2:
        pairs = list(pairwise(parts))
        best = min(pairs, key=lambda pair: ranks.get(pair, len(ranks)))
        if best not in ranks:
            break
        at = pairs.index(best)
        parts[at : at + 2] = [best[0] + best[1]]
    return parts

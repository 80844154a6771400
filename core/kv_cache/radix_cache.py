"""Which row holds a token after which other tokens: a radix tree over all conversations of a bank.

    root of a salt -- [system prompt] -- [question A] -- [answer A] an edge holds the tokens of its node and their rows;
                                     \\- [question B]                the tree holds one reference on each of its rows

A row's K and V depend on nothing but its token and those before it, so a row found here stands for computing it again,
bit for bit. A sequence follows its tokens with a Cursor. What lies before a cursor stays; the rest goes when rows are
needed: leaves first, from their ends, background before normal entries, least recently used before others. Plain
bookkeeping for one thread, like the pool.

How leaves are kept in order: a node's age (priority, then last use) only ever grows, and a parent takes over the age of
its children when they go. So a heap entry is never younger than its node, and one that is older is put back when it
comes up: using a prefix costs nothing in the heap."""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np

from .row_pool import IntegrityError, RowPool, Rows

Tokens = Sequence[int] | np.ndarray
Ints = array  # array("i"): grows in place, compares and copies as bytes, and gives single numbers fast


class Priority(IntEnum):
    """Whose entries go first when rows are needed."""

    LOW = 0
    NORMAL = 1


@dataclass(slots=True, eq=False)
class Node:
    """One edge and what follows it. `tokens` and `rows` are as long as each other, empty only in a root."""

    parent: Node | None
    tokens: Ints
    rows: Ints
    priority: int
    used: int  # tick of the last use of the whole edge; of a child's, only once that child is gone
    cache_salt: bytes
    children: dict[int, Node] = field(default_factory=dict)  # by the first token of their edge
    cursors: list[Cursor] = field(default_factory=list)
    queued: bool = False  # whether the heap has an entry for it

    @property
    def age(self) -> tuple[int, int]:
        """Lower goes first."""
        return self.priority, self.used

    @property
    def pinned(self) -> int:
        """Tokens of the edge that a cursor stands on or behind."""
        return max((c.offset for c in self.cursors), default=0)

    def inherit(self, priority: int, used: int) -> None:
        """Whoever used a child used its parent."""
        self.priority, self.used = max(self.priority, priority), max(self.used, used)


@dataclass(frozen=True, slots=True)
class Match:
    """The longest known prefix: `rows` int32 [num_tokens]. Hold them before anything is evicted, or open a cursor."""

    num_tokens: int
    rows: Rows


class RadixCache:
    """Token ids -> rows of `pool`, token by token. A salt has a tree of its own: tenants do not see each other's
    prefixes."""

    def __init__(self, pool: RowPool) -> None:
        self.pool = pool
        self.num_rows = 0
        self.tick = 0  # counts uses; see `live_since` of evict
        self.roots: dict[bytes, Node] = {}
        self._heap: list[tuple[int, int, int, Node]] = []
        self._serial = 0  # orders heap entries of one age; nodes have no order

    def match(self, tokens: Tokens, cache_salt: bytes = b"", *, touch: bool = True) -> Match:
        """The longest prefix of `tokens` that has rows. `touch` counts as a use; without it nothing changes (to compare
        banks)."""
        if (root := self.roots.get(cache_salt)) is None:
            return Match(0, np.empty(0, np.int32))
        node, offset, rows = _walk(root, 0, _ints(tokens))
        if touch and offset:
            self._use(self._cut(node, offset), 0)
        return Match(len(rows), _rows(rows))

    def cursor(self, cache_salt: bytes = b"", *, tokens: Tokens = (), priority: Priority = Priority.NORMAL) -> Cursor:
        """A cursor behind the longest known prefix of `tokens`, whose rows are `cursor.matched`. Close it in the
        end."""
        if (root := self.roots.get(cache_salt)) is None:
            root = self.roots[cache_salt] = Node(None, array("i"), array("i"), priority, 0, cache_salt)
        node, offset, rows = _walk(root, 0, _ints(tokens))
        return Cursor(self, node, offset, priority, rows)

    def evict(self, num_rows: int, *, priority: Priority = Priority.NORMAL, live_since: int = 0) -> int:
        """Frees `num_rows` rows, or as many as it can; returns how many. The order is the module's.

        A row that anyone but the tree holds stays, and what comes before it, for freeing it would gain nothing. Entries
        of a higher priority than `priority` (the asker's) stay too if they were used at tick `live_since` or later."""
        freed, held = 0, []
        while freed < num_rows and self._heap:
            *age, _, node = heapq.heappop(self._heap)
            node.queued = False
            if node.children or not node.tokens:
                continue  # no leaf any more (queued again once it is one), or merged into its child
            if tuple(age) != node.age:
                self._push(node)
            elif node.priority > priority and node.used >= live_since:
                held.append(node)
                break  # all others are of that priority and were used later
            elif count := self._num_droppable(node, num_rows - freed):
                freed += self._drop(node, count)
            elif node.pinned < len(node.tokens):  # else its cursor queues it when it leaves
                held.append(node)
        for node in held:
            self._push(node)
        return freed

    def relocate(self, where: Rows) -> None:
        """What lay in row `r` lies in `where[r]`; the tree's references go along."""
        for node in self._nodes():
            if node.rows:
                node.rows = _array(where[node.rows])

    def check_integrity(self) -> None:
        """Raises IntegrityError where tree, cursors, heap and pool disagree. Costs a walk over all nodes."""
        nodes = self._nodes()
        rows = [row for node in nodes for row in node.rows]
        _check(len(rows) == self.num_rows, f"the tree has {len(rows)} rows and counted {self.num_rows}")
        _check(len(set(rows)) == len(rows), "a row stands for two tokens of the tree")
        _check(bool((self.pool.counts[rows] > 0).all()), "the tree has a row that is free")
        queued = [entry for entry in self._heap if entry[3].tokens]  # others: merged into their child
        _check(len({id(entry[3]) for entry in self._heap}) == len(self._heap), "a node is queued twice")
        _check(all(e[3].queued and e[:2] <= e[3].age for e in queued), "a node is queued as younger than it is")
        _check({e[3] for e in queued} == {n for n in nodes if n.queued}, "the heap has other nodes than the tree")
        depths: dict[Node | None, int] = {None: 0}  # tokens up to the end of a node
        for node in nodes:
            depths[node] = depths[node.parent] + len(node.tokens)
            self._check_node(node, depths[node.parent])

    def _check_node(self, node: Node, depth: int) -> None:
        _check(len(node.tokens) == len(node.rows), "an edge has other numbers of tokens and rows")
        _check(all(c._tree is self and c.node is node for c in node.cursors), "a cursor is pinned where it is not")
        _check(
            all((c.offset > 0) == bool(node.tokens) and c.offset <= len(node.tokens) for c in node.cursors),
            "a cursor is off its edge",
        )
        _check(all(c.num_tokens == depth + c.offset for c in node.cursors), "a cursor has lost count")
        for token, child in node.children.items():
            _check(
                child.parent is node and child.tokens[:1] == array("i", [token]),
                "a child is filed under another token or parent",
            )
            _check(child.cache_salt == node.cache_salt, "a child has another salt")
        if node.parent is None:
            _check(
                bool(node.children or node.cursors) and self.roots.get(node.cache_salt) is node,
                "a root is empty or lost",
            )
        elif not node.children:
            _check(node.queued or node.pinned == len(node.tokens), "a leaf can never be evicted")

    def _nodes(self) -> list[Node]:
        """All nodes, parents before children."""
        found = list(self.roots.values())
        for node in found:
            found.extend(node.children.values())
        return found

    def _use(self, node: Node, priority: int) -> None:
        self.tick += 1
        node.inherit(priority, self.tick)

    def _push(self, node: Node) -> None:
        self._serial += 1
        node.queued = True
        heapq.heappush(self._heap, (node.priority, node.used, self._serial, node))

    def _settle(self, node: Node) -> None:
        """To be called where a node lost a child or a cursor: queues what became evictable and forgets empty roots."""
        if node.parent is None and not node.children and not node.cursors:
            del self.roots[node.cache_salt]
        elif not node.children and not node.queued and node.pinned < len(node.tokens):  # never a root: it has no tokens
            self._push(node)

    def _cut(self, node: Node, offset: int) -> Node:
        """The node whose edge ends at `offset` of this one: itself, or a new one that takes over the first part of its
        edge."""
        if offset == len(node.tokens):
            return node
        assert node.parent is not None
        upper = Node(node.parent, node.tokens[:offset], node.rows[:offset], node.priority, node.used, node.cache_salt)
        upper.parent.children[upper.tokens[0]] = upper  # type: ignore[union-attr]
        del node.tokens[:offset], node.rows[:offset]
        upper.children[node.tokens[0]] = node
        node.parent = upper
        for cursor in tuple(node.cursors):
            if cursor.offset <= offset:
                cursor._move(upper, cursor.offset)
            else:
                cursor.offset -= offset
        return upper

    def _num_droppable(self, node: Node, limit: int) -> int:
        """Rows at the end of a leaf's edge, at most `limit`, that only the tree holds and no cursor pins."""
        counts, count = self.pool.counts, 0
        for row in reversed(node.rows[max(node.pinned, len(node.rows) - limit) :]):
            if counts[row] > 1:
                break
            count += 1
        return count

    def _drop(self, node: Node, count: int) -> int:
        """Takes `count` tokens off a leaf's end, and the leaf with its last. The caller has popped it from the heap."""
        freed = self.pool.release(_rows(node.rows[-count:]))
        self.num_rows -= count
        if count < len(node.tokens):
            del node.tokens[-count:], node.rows[-count:]
            self._settle(node)
            return freed
        parent = node.parent
        assert parent is not None
        del parent.children[node.tokens[0]]
        del node.tokens[:], node.rows[:]
        parent.inherit(*node.age)
        self._settle(parent)
        if len(parent.children) == 1 and parent.parent is not None:
            self._merge(parent, *parent.children.values())
        return freed

    def _merge(self, parent: Node, child: Node) -> None:
        """Makes one edge of two, so that forgotten branches leave no chain of short edges. Not where the parent
        outlives the child."""
        if parent.priority > child.priority or parent.used > child.used:
            return
        above = parent.parent
        assert above is not None
        for cursor in child.cursors:
            cursor.offset += len(parent.tokens)
        for cursor in tuple(parent.cursors):
            cursor._move(child, cursor.offset)
        child.tokens, child.rows = parent.tokens + child.tokens, parent.rows + child.rows
        child.parent = above
        above.children[child.tokens[0]] = child
        # a heap entry of it is skipped by that
        parent.tokens, parent.rows, parent.children = array("i"), array("i"), {}


class Cursor:
    """Where a sequence stands in the tree: all tokens before it, `num_tokens`, are kept until it moves on or is
    closed."""

    __slots__ = ("_tree", "matched", "node", "num_tokens", "offset", "priority")

    def __init__(self, tree: RadixCache, node: Node, offset: int, priority: Priority, rows: Ints) -> None:
        self._tree: RadixCache | None = tree
        self.node, self.offset, self.priority = node, offset, priority
        self.matched: Rows = _rows(rows)
        self.num_tokens = len(rows)
        node.cursors.append(self)

    def append(self, token: int, row: int) -> int:
        """`extend` by one token: the row that holds it from now on. About a microsecond at the end of a
        conversation."""
        tree = self._tree
        if tree is None or not self._at_open_end():
            return int(self.extend((token,), (row,))[0])
        tree.pool.hold_row(row)
        self.node.tokens.append(token)
        self.node.rows.append(row)
        self.offset += 1
        self.num_tokens += 1
        tree.num_rows += 1
        return row

    def extend(self, tokens: Tokens, rows: Tokens) -> Rows:
        """Moves on by `tokens`, of which `rows[i]` (held by the caller) holds the i-th; returns the rows to use from
        now on, int32.

        Where the tree has a token already, its row is kept and returned in place of the caller's: hold that one and
        release your own. Of a token that is new the tree takes a reference on the caller's row."""
        if self._tree is None:
            raise IntegrityError("a closed cursor is extended")
        if len(tokens) != len(rows):
            raise IntegrityError(f"{len(tokens)} tokens come with {len(rows)} rows")
        if len(tokens) == 1 and self._at_open_end():
            return np.array((self.append(int(tokens[0]), int(rows[0])),), np.int32)
        new, given = _ints(tokens), _ints(rows)
        node, offset, known = _walk(self.node, self.offset, new)
        if known:  # the node left behind has children or is the same: nothing to settle
            self._move(node, offset)
            self.num_tokens += len(known)
        if len(known) < len(new):
            self._grow(new[len(known) :], given[len(known) :])
        return _rows(known + given[len(known) :])

    def close(self) -> None:
        """Ends the pin and counts as a use of all that it protected. Closing twice does nothing."""
        if (tree := self._tree) is None:
            return
        node = self.node
        if self.offset:
            node = tree._cut(node, self.offset)
            tree._use(node, self.priority)
        self._tree = None
        node.cursors.remove(self)
        tree._settle(node)

    def _at_open_end(self) -> bool:
        """Whether the next token is new to the tree and may join this edge."""
        node = self.node
        return (
            self.offset == len(node.tokens)
            and not node.children
            and node.priority == self.priority
            and node.parent is not None
        )

    def _move(self, node: Node, offset: int) -> None:
        if node is not self.node:
            self.node.cursors.remove(self)
            node.cursors.append(self)
            self.node = node
        self.offset = offset

    def _grow(self, tokens: Ints, rows: Ints) -> None:
        """Adds tokens that the tree does not have here: to this edge where it ends a leaf of the same priority, else as
        a child."""
        tree = self._tree
        assert tree is not None
        tree.pool.hold(_rows(rows))
        tree.num_rows += len(rows)
        self.num_tokens += len(rows)
        node = self.node
        if node.tokens:
            node = tree._cut(node, self.offset)
            tree._use(node, self.priority)
        if node.children or not node.tokens or node.priority > self.priority:
            child = Node(node, tokens, rows, self.priority, tree.tick, node.cache_salt)
            node.children[tokens[0]] = child
            return self._move(child, len(tokens))
        node.tokens.extend(tokens)
        node.rows.extend(rows)
        self.offset += len(tokens)


def _walk(node: Node, offset: int, tokens: Ints) -> tuple[Node, int, Ints]:
    """Follows `tokens` from `offset` of a node's edge: where they lead, as (node, offset), and the rows passed on the
    way."""
    rows = array("i")
    data, size, done = tokens.tobytes(), len(tokens), 0
    if offset < len(node.tokens) and size:
        done = _common(node.tokens[offset : offset + size], tokens)
        rows.extend(node.rows[offset : offset + done])
        offset += done
    while done < size and offset == len(node.tokens):
        if (child := node.children.get(tokens[done])) is None:
            break
        node = child
        if data.startswith(node.tokens, 4 * done):  # type: ignore[arg-type]  # any buffer will do
            offset = len(node.tokens)
            rows.extend(node.rows)
        else:
            offset = _common(node.tokens, tokens[done : done + len(node.tokens)])
            rows.extend(node.rows[:offset])
        done += offset
    return node, offset, rows


def _common(a: Ints, b: Ints) -> int:
    """How many tokens two edges have in common from their start."""
    size = min(len(a), len(b))
    if a[:size] == b[:size]:
        return size
    return int((np.frombuffer(a, np.int32, size) != np.frombuffer(b, np.int32, size)).argmax())


def _ints(values: Tokens) -> Ints:
    if isinstance(values, np.ndarray):
        return _array(values)
    return values if isinstance(values, array) and values.typecode == "i" else array("i", values)


def _array(values: np.ndarray) -> Ints:
    return array("i", values.astype(np.int32, copy=False).tobytes())


def _rows(values: Ints) -> Rows:
    """A copy: an array that NumPy looks into cannot grow."""
    return np.array(np.frombuffer(values, np.int32)) if values else np.empty(0, np.int32)


def _check(good: bool, complaint: str) -> None:
    if not good:
        raise IntegrityError(f"prefix tree: {complaint}")

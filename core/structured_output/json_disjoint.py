"""Whether two JSON schemas can be satisfied by the same value: where not, their `oneOf` is an `anyOf`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Find = Callable[[str], Any]
"""What a `$ref` leads to."""

MAX_STEPS = 20_000  # of looking at pairs; beyond, they count as overlapping
MAX_LEVELS = 20  # of properties within properties, and of references

_TYPES: dict[type, str] = {
    bool: "boolean", int: "number", float: "number", str: "string", list: "array", dict: "object", type(None): "null",
}  # fmt: skip


def all_disjoint(schemas: Sequence[Any], find: Find) -> bool:
    """True if no value satisfies two of the schemas, as far as types, constants, enumerations, ranges and required
    properties tell.

    False where it is not certain.
    """
    look = _Look(find)
    return all(look.disjoint(a, b, 0) for i, a in enumerate(schemas) for b in schemas[:i])


class _Look:
    def __init__(self, find: Find) -> None:
        self._find = find
        self._steps = 0

    def disjoint(self, a: Any, b: Any, level: int) -> bool:
        self._steps += 1
        if self._steps > MAX_STEPS or level > MAX_LEVELS:
            return False
        a, b = self._resolved(a), self._resolved(b)
        if a is False or b is False:
            return True
        if not isinstance(a, Mapping) or not isinstance(b, Mapping):
            return False
        values, others = _values(a), _values(b)
        if values is not None and others is not None:
            return not any(_same(x, y) for x in values for y in others)
        if values is not None or others is not None:
            constants, schema = (values, b) if values is not None else (others, a)
            assert constants is not None
            return not any(_kind(x) in _kinds(schema) for x in constants)
        kinds = _kinds(a) & _kinds(b)
        return all(
            (kind == "object" and self._objects(a, b, level)) or (kind == "number" and _ranges(a, b)) for kind in kinds
        )

    def _resolved(self, schema: Any) -> Any:
        """Follows a `$ref` that stands alone, but for remarks."""
        for _ in range(MAX_LEVELS):
            if (
                not isinstance(schema, Mapping)
                or "$ref" not in schema
                or set(schema) - {"$ref", "title", "description"}
            ):
                break
            schema = self._find(schema["$ref"])
        return schema

    def _objects(self, a: Mapping[str, Any], b: Mapping[str, Any], level: int) -> bool:
        """Whether a property that both require cannot be the same in both, or one requires what the other forbids."""
        own, others = (schema.get("properties", {}) for schema in (a, b))
        needed, wanted = (set(schema.get("required", ())) for schema in (a, b))
        if any(
            self.disjoint(own[name], others[name], level + 1) for name in needed & wanted & own.keys() & others.keys()
        ):
            return True
        return _forbids(a, wanted - own.keys()) or _forbids(b, needed - others.keys())


def _forbids(schema: Mapping[str, Any], names: set[str]) -> bool:
    return bool(names) and schema.get("additionalProperties") is False and not schema.get("patternProperties")


def _values(schema: Mapping[str, Any]) -> list[Any] | None:
    """All the values that it can have, where it lists them."""
    if "const" in schema:
        return [schema["const"]]
    return list(schema["enum"]) if isinstance(schema.get("enum"), list) else None


def _kind(value: Any) -> str:
    return _TYPES.get(type(value), "other")


def _kinds(schema: Mapping[str, Any]) -> set[str]:
    told = schema.get("type", [*_TYPES.values()])
    return {"number" if kind == "integer" else kind for kind in ([told] if isinstance(told, str) else told)}


def _same(a: Any, b: Any) -> bool:
    """Equal as JSON: 1 and 1.0 are, true and 1 are not; lists and objects count as equal to be safe."""
    if isinstance(a, list | dict) or isinstance(b, list | dict):
        return type(a) is type(b)
    return _kind(a) == _kind(b) and a == b


def _ranges(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Whether the numbers of one all lie below those of the other."""
    return _below(a, b) or _below(b, a)


def _below(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    high, open_high = min(
        (a.get("maximum", math.inf), False), (a.get("exclusiveMaximum", math.inf), True), key=lambda x: (x[0], not x[1])
    )
    low, open_low = max(
        (b.get("minimum", -math.inf), False), (b.get("exclusiveMinimum", -math.inf), True), key=lambda x: (x[0], x[1])
    )
    return high < low or (high == low and (open_high or open_low) and math.isfinite(high))

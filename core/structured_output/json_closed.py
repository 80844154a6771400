"""Objects of a JSON schema that name their properties, and do not say whether there may be others, have no others.

Left open, such an object lets a model go on inventing keys. What is written still satisfies the schema as it was given;
one that asks for more ("additionalProperties": true, or a schema) gets more. An object stays open where something else
is said of the same value: there a property of the one would be an additional one of the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

OF_OBJECTS = frozenset(("properties", "required", "minProperties", "maxProperties"))
OF_THE_VALUE = OF_OBJECTS | {
    "patternProperties", "additionalProperties", "allOf", "anyOf", "oneOf", "$ref", "enum", "const"
}  # fmt: skip


def close_objects(places: Mapping[str, Any]) -> None:
    """Closes them in place. `places`: all prepared schemas by reference."""
    shared = _shared(places)
    for place, schema in places.items():
        _close(schema, place not in shared)


def _shared(places: Mapping[str, Any]) -> set[str]:
    """The references whose value something else is said of, too, in one place at least."""
    shared: set[str] = set()
    before = -1
    while before != len(shared):
        before = len(shared)
        for place, schema in places.items():
            shared |= {reference for reference, alone in _references(schema, place not in shared) if not alone}
    return shared


def _references(schema: Any, alone: bool) -> Iterator[tuple[str, bool]]:
    """Each reference in a schema, and whether nothing else is said of its value. `alone`: the same of the schema."""
    if isinstance(schema, dict):
        if "$ref" in schema:
            yield schema["$ref"], alone and _said(schema) == {"$ref"}
        for part, part_alone in _parts(schema, alone):
            yield from _references(part, part_alone)


def _said(schema: Mapping[str, Any]) -> frozenset[str]:
    """The keywords that say something of an object itself."""
    return OF_THE_VALUE & schema.keys()


def _parts(schema: Mapping[str, Any], alone: bool) -> Iterator[tuple[Any, bool]]:
    """The schemas within one, each with whether nothing else is said of its value."""
    inner = alone and _said(schema) <= OF_OBJECTS | {"additionalProperties"}  # else more may be said of its parts, too
    for key in ("items", "additionalProperties"):
        if key in schema:
            yield schema[key], inner
    for key in ("properties", "patternProperties"):
        for part in schema.get(key, {}).values():
            yield part, inner
    for part in schema.get("prefixItems", ()):
        yield part, inner
    for part in schema.get("anyOf", ()):
        yield part, alone and _said(schema) == {"anyOf"}
    every = schema.get("allOf", ())
    for part in every:
        yield part, alone and _said(schema) == {"allOf"} and len(every) == 1
    for part in schema.get("oneOf", ()):
        yield part, False  # closed, it would let more through that another one forbids


def _close(schema: Any, alone: bool) -> None:
    if not isinstance(schema, dict):
        return
    for part, part_alone in _parts(schema, alone):
        _close(part, part_alone)
    named = schema.get("properties")
    if not alone or named is None or not _said(schema) <= OF_OBJECTS:
        return
    if named.keys() >= set(schema.get("required", ())) and len(named) >= schema.get("minProperties", 0):
        schema["additionalProperties"] = False

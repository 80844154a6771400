"""Random JSON schemas with everything that structured output promises, and patterns whose matches are judged alike by
everybody."""

from __future__ import annotations

import random
from typing import Any

NAMES = [
    "id",
    "name",
    "größe",
    "tags",
    "a/b",
    "x~y",
    'quo"te',
    "back\\slash",
    "new\nline",
    "kind",
    "value",
    "items",
    "",
    "日本",
]
PATTERNS = [
    "^[a-z]{1,6}$",
    "^(red|green|blue)$",
    "^[A-Z][a-z]*[0-9]{2}$",
    "ab",
    "^x[0-9]*",
    "^\\d{3}-\\d{4}$",
    "[.]$",
    "^$",
]
PATTERNS += ["^(é|ü){1,3}$", "^[^a-z]{2}$", "^(a|b)+c$"]
FORMATS = ["date", "ipv4", "ipv6", "uuid", "email", "date-time", "time", "hostname", "duration", "x-unknown"]
NOTES = {
    "title": "A title",
    "description": "Says something",
    "default": 3,
    "examples": ["x"],
    "$comment": "none",
    "x-extra": {"not": {}},
}


def random_schema(seed: int) -> dict[str, Any]:
    """The schema of this seed, as OpenAI's API wants them: an object at the top."""
    return _Maker(random.Random(seed)).root()


class _Maker:
    def __init__(self, rnd: random.Random) -> None:
        self.rnd = rnd
        self.definitions: dict[str, Any] = {}

    def root(self) -> dict[str, Any]:
        rnd = self.rnd
        for name in rnd.sample(["node", "pair", "odd/name"], rnd.randrange(0, 3)):
            self.definitions[name] = True  # may be referred to from now on
            self.definitions[name] = self.object(2, recursive=rnd.choice([None, name]))
        schema = self.object(0)
        if self.definitions:
            schema[rnd.choice(["$defs", "definitions"])] = self.definitions
            text = {"$defs": "#/$defs/", "definitions": "#/definitions/"}[
                "$defs" if "$defs" in schema else "definitions"
            ]
            _fill(schema, text)
        return schema

    def any(self, depth: int) -> Any:
        rnd = self.rnd
        makers = [self.string, self.string, self.number, self.integer, self.constant, self.enum, self.simple]
        if depth < 4:
            makers += [self.object, self.array, self.any_of, self.all_of, self.one_of, self.tuple]
            makers += [self.reference] * bool(self.definitions)
        schema = rnd.choice(makers)(depth)
        if isinstance(schema, dict) and rnd.random() < 0.2:
            schema = {**dict(rnd.sample(sorted(NOTES.items(), key=str), 2)), **schema}
        return schema

    def object(self, depth: int, recursive: str | None = None) -> dict[str, Any]:
        rnd = self.rnd
        names = rnd.sample(NAMES, rnd.randrange(1, 5))
        schema: dict[str, Any] = {"type": "object", "properties": {name: self.any(depth + 1) for name in names}}
        schema["required"] = names if rnd.random() < 0.6 else rnd.sample(names, rnd.randrange(0, len(names) + 1))
        if recursive:
            schema["properties"]["next"] = {"anyOf": [{"type": "null"}, {"REF": recursive}]}
        if rnd.random() < 0.85:
            schema["additionalProperties"] = False
        else:
            schema["additionalProperties"] = rnd.choice(
                [{"type": "integer", "minimum": 0, "maximum": 9}, {"type": "boolean"}]
            )
            if rnd.random() < 0.5:
                schema |= {"required": names, "maxProperties": len(names) + rnd.randrange(0, 3)}
        if rnd.random() < 0.1:
            schema["patternProperties"] = {"^p_[a-z]{1,3}$": {"type": "null"}}
        return schema

    def array(self, depth: int) -> dict[str, Any]:
        rnd = self.rnd
        least = rnd.randrange(0, 3)
        return {
            "type": "array",
            "items": self.any(depth + 1),
            "minItems": least,
            "maxItems": least + rnd.randrange(0, 3),
        }

    def tuple(self, depth: int) -> dict[str, Any]:
        prefix = [self.any(depth + 1) for _ in range(self.rnd.randrange(1, 3))]
        return {
            "type": "array",
            "prefixItems": prefix,
            "items": self.rnd.choice([False, {"type": "null"}]),
            "maxItems": len(prefix) + 1,
        }

    def any_of(self, depth: int) -> dict[str, Any]:
        return {"anyOf": [self.any(depth + 1) for _ in range(self.rnd.randrange(1, 4))]}

    def all_of(self, depth: int) -> dict[str, Any]:
        return {
            "allOf": [
                {"type": "integer", "minimum": self.rnd.randrange(-50, 5)},
                {"maximum": self.rnd.randrange(5, 500)},
            ]
        }

    def one_of(self, depth: int) -> dict[str, Any]:
        kinds = self.rnd.sample(["cat", "dog", "cow"], 2)
        return {"oneOf": [self._tagged(kind, depth) for kind in kinds]}

    def _tagged(self, kind: str, depth: int) -> dict[str, Any]:
        properties = {"kind": {"type": "string", "const": kind}, kind: self.any(depth + 2)}
        return {"type": "object", "properties": properties, "required": ["kind", kind], "additionalProperties": False}

    def reference(self, depth: int) -> dict[str, Any]:
        return {"REF": self.rnd.choice(sorted(self.definitions))}

    def string(self, depth: int) -> dict[str, Any]:
        rnd = self.rnd
        schema: dict[str, Any] = {"type": "string"}
        kind = rnd.randrange(10)
        if kind < 5:
            least = rnd.randrange(0, 4)
            schema |= {"minLength": least, "maxLength": least + rnd.randrange(0, 9)}
        elif kind < 7:
            schema |= {"pattern": rnd.choice(PATTERNS), "maxLength": 20}
        elif kind < 9:
            schema["format"] = rnd.choice(FORMATS)
        return schema

    def integer(self, depth: int) -> dict[str, Any]:
        rnd = self.rnd
        low = rnd.randrange(-300, 300)
        high = low + rnd.choice([0, 1, 7, 50, 12345])
        schema: dict[str, Any] = {"type": "integer"}
        exclusive = {"exclusiveMinimum": low - 1, "exclusiveMaximum": high + 1}
        schema |= rnd.choice([{"minimum": low, "maximum": high}, exclusive, {"minimum": low}])
        if rnd.random() < 0.2:
            schema = {"type": "integer", "minimum": -100, "maximum": 100, "multipleOf": rnd.choice([2, 3, 5, 7])}
        return schema

    def number(self, depth: int) -> dict[str, Any]:
        rnd = self.rnd
        low = rnd.choice([-1.5, 0, 0.25, 3, -1000, 1e-3])
        bounds = rnd.choice(
            [
                {},
                {"minimum": low},
                {"minimum": low, "maximum": low + 2.5},
                {"exclusiveMinimum": low, "maximum": low + 100},
            ]
        )
        return {"type": "number", **bounds}

    def constant(self, depth: int) -> dict[str, Any]:
        values = [None, True, 5, -0.5, "text", 'with "quotes"\n', "", [1, "a"], {"k": [None]}, 1e21, 10**15]
        return {"const": self.rnd.choice(values)}

    def enum(self, depth: int) -> dict[str, Any]:
        values = ["a", "b", "ab", "ba\\", 1, 2.5, None, False, "ünï", {"x": 1}, []]
        return {"enum": self.rnd.sample(values, self.rnd.randrange(1, 6))}

    def simple(self, depth: int) -> Any:
        several = [{"type": ["boolean", "null"]}, {"type": ["integer", "null"], "maximum": 7}]
        return self.rnd.choice([{"type": "boolean"}, {"type": "null"}, *several])


def _fill(schema: Any, where: str) -> None:
    """Writes the references."""
    if isinstance(schema, dict):
        if "REF" in schema:
            schema["$ref"] = where + schema.pop("REF").replace("~", "~0").replace("/", "~1")
        for value in schema.values():
            _fill(value, where)
    elif isinstance(schema, list):
        for value in schema:
            _fill(value, where)

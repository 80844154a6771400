"""Objects that name their properties have no others, unless the schema asks for them or something else is said too."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest

from axpress.core.structured_output.json_schema import prepare

A: dict[str, Any] = {"type": "object", "properties": {"a": {"type": "integer"}}}
B: dict[str, Any] = {"type": "object", "properties": {"b": {"type": "integer"}}}
MORE = {"a": 1, "invented": 2}


def allows(schema: Any, value: Any) -> bool:
    return jsonschema.Draft202012Validator(prepare(schema, "schema")).is_valid(value)


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        (A, {"a": 1}, MORE),
        ({**A, "required": ["a"]}, {"a": 1}, MORE),
        ({"type": "object", "properties": {}}, {}, MORE),
        ({"type": "array", "items": A}, [{"a": 1}], [MORE]),
        ({"type": "object", "properties": {"x": A}}, {"x": {"a": 1}}, {"x": MORE}),
        ({"$ref": "#/$defs/A", "$defs": {"A": A}}, {"a": 1}, MORE),
        ({"anyOf": [A, {"type": "null"}], "default": None}, {"a": 1}, MORE),
        ({"allOf": [{"$ref": "#/$defs/A"}], "title": "T", "$defs": {"A": A}}, {"a": 1}, MORE),
        ({"type": "object", "properties": {"again": {"$ref": "#"}}}, {"again": {}}, {"again": MORE}),
    ],
)
def test_no_other_properties(schema: Any, good: Any, bad: Any) -> None:
    assert allows(schema, good) and not allows(schema, bad)


@pytest.mark.parametrize(
    ("schema", "good"),
    [
        ({"type": "object"}, MORE),
        ({**A, "additionalProperties": True}, MORE),
        ({**A, "additionalProperties": {"type": "integer"}}, MORE),
        ({**A, "patternProperties": {"^i": {"type": "integer"}}}, MORE),
        ({**A, "required": ["invented"]}, MORE),
        ({**A, "minProperties": 2}, MORE),
        ({**A, "const": MORE}, MORE),
        ({"allOf": [A, B]}, {"a": 1, "b": 2}),
        ({**A, "allOf": [B]}, {"a": 1, "b": 2}),
        ({**A, "anyOf": [B, {"required": ["a"]}]}, {"a": 1, "b": 2}),
        ({**A, "$ref": "#/$defs/B", "$defs": {"B": B}}, {"a": 1, "b": 2}),
        (
            {"type": "object", "properties": {"x": {"$ref": "#/$defs/B"}, "y": {"allOf": [{"$ref": "#/$defs/B"}, A]}},
             "$defs": {"B": B}},
            {"y": {"a": 1, "b": 2}},
        ),
        (
            {"allOf": [{"$ref": "#/$defs/U"}, A], "$defs": {"U": {"anyOf": [{"$ref": "#/$defs/B"}]}, "B": B}},
            {"a": 1, "b": 2},
        ),
        ({"allOf": [{"properties": {"x": A}}, {"properties": {"x": B}}]}, {"x": {"a": 1, "b": 2}}),
        ({"properties": {"x": A}, "const": {"x": MORE}}, {"x": MORE}),
        ({"patternProperties": {"^x": A}, "properties": {"xx": B}, "type": "object"}, {"xx": {"a": 1, "b": 2}}),
    ],
)  # fmt: skip
def test_others_stay_where_they_are_asked_for_or_belong_to_something_else(schema: Any, good: Any) -> None:
    assert allows(schema, good)

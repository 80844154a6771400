"""oneOf is honoured where no value fits two alternatives; that is decided here, against what jsonschema says of
values."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from axpress.core.structured_output.json_disjoint import all_disjoint

DEFINITIONS = {
    "Cat": {
        "type": "object",
        "properties": {"kind": {"const": "cat"}, "lives": {"type": "integer"}},
        "required": ["kind", "lives"],
    },
    "Dog": {"type": "object", "properties": {"kind": {"const": "dog"}}, "required": ["kind"]},
    "Loop": {"$ref": "#/$defs/Loop"},
}


def find(pointer: str) -> object:
    return DEFINITIONS[pointer.rsplit("/", 1)[1]]


@pytest.mark.parametrize(
    ("schemas", "apart"),
    [
        ([{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}], True),
        ([{"const": 1}, {"const": 2}], True),
        ([{"const": 1}, {"const": 1.0}], False),
        ([{"const": True}, {"const": 1}], True),
        ([{"enum": ["a", "b"]}, {"enum": ["b", "c"]}], False),
        ([{"type": "integer", "maximum": 3}, {"type": "number", "minimum": 5}], True),
        ([{"type": "integer", "maximum": 5}, {"type": "integer", "minimum": 5}], False),
        ([{"type": "number", "exclusiveMaximum": 5}, {"type": "number", "minimum": 5}], True),
        ([{"type": "string"}, {"type": ["integer", "null"]}, {"type": "array"}], True),
        ([{"type": "integer"}, {"type": "number"}], False),
        ([{"type": "string"}, {}], False),
        ([{"type": "string"}, True], False),
        ([{"type": "string"}, False], True),
        ([{"$ref": "#/$defs/Loop"}, {"$ref": "#/$defs/Loop"}], False),
        (
            [
                {"type": "object", "properties": {"a": {}}, "additionalProperties": False},
                {"type": "object", "properties": {"b": {}}, "required": ["b"]},
            ],
            True,
        ),
        (
            [
                {"type": "object", "properties": {"kind": {"const": 1}}},
                {"type": "object", "properties": {"kind": {"const": 2}}},
            ],
            False,
        ),
        ([{"type": "string"}, {"type": "integer"}, {"const": "x"}], False),
    ],
)
def test_what_cannot_overlap(schemas: list[object], apart: bool) -> None:
    assert all_disjoint(schemas, find) == apart
    assert all_disjoint(schemas[::-1], find) == apart


VALUES = st.sampled_from(
    [
        None,
        True,
        False,
        0,
        1,
        2,
        1.0,
        2.5,
        "a",
        "b",
        "",
        [],
        [1],
        {},
        {"k": 1},
        {"k": 2},
        {"k": "a", "l": None},
        {"l": 1},
    ]
)
BOUNDS = st.sampled_from(["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"])
PLAIN = st.one_of(
    st.builds(lambda v: {"const": v}, VALUES),
    st.builds(lambda v: {"enum": v}, st.lists(VALUES, min_size=1, max_size=3)),
    st.builds(
        lambda t: {"type": t}, st.sampled_from(["null", "boolean", "integer", "number", "string", "array", "object"])
    ),
    st.builds(lambda k, v: {"type": "number", k: v}, BOUNDS, st.integers(0, 2)),
    st.just({}),
    st.booleans(),
)
NAMES = st.sampled_from(["k", "l"])
SCHEMAS = st.recursive(
    PLAIN,
    lambda inner: st.fixed_dictionaries(
        {
            "type": st.just("object"),
            "properties": st.dictionaries(NAMES, inner, max_size=2),
            "required": st.lists(NAMES, max_size=2),
        },
        optional={"additionalProperties": st.booleans()},
    ),
    max_leaves=4,
)


@settings(max_examples=400, deadline=None)
@given(SCHEMAS, SCHEMAS, VALUES)
def test_no_value_fits_two_that_are_said_to_be_apart(a: object, b: object, value: object) -> None:
    if all_disjoint([a, b], find):
        assert not (Draft202012Validator(a).is_valid(value) and Draft202012Validator(b).is_valid(value))


def test_a_hostile_schema_is_given_up_in_time() -> None:
    schema: object = {"const": 1}
    for _ in range(40):
        schema = {"type": "object", "properties": {"a": schema, "b": schema}, "required": ["a", "b"]}
    assert not all_disjoint([schema, schema], find)

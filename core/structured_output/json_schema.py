"""A JSON schema made ready for the grammar: what can be guaranteed is kept, what means nothing is dropped, the rest is
refused by name.

The rules are those of draft 2020-12. `title`, `description`, `default`, `examples` and unknown keywords are
annotations: they never decide whether JSON is valid. So is a `format` that JSON schema does not define; of those it
defines, FORMATS are enforced and the others refused. `$ref` goes to places in the same schema."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

import orjson

from ..errors import RequestError
from .json_closed import close_objects
from .json_disjoint import all_disjoint

MAX_TEXT = 128 * 1024  # bytes of a schema as JSON
MAX_DEPTH = 100  # levels of JSON within one definition
MAX_LEVELS = 4000  # levels of all definitions together: the compiler goes down one within another
MAX_OPTIONAL = 1000  # properties of one object that may be left out: the parser follows all of them at once
MAX_ITEMS = 10_000  # that an array can be made to have
# alternatives of each definition times the references to it: the parser looks at them within one token
MAX_BRANCHES = 100_000
EXACT = 2**53  # integers beyond are not compared exactly

FORMATS = frozenset(("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"))
_DAY = (
    r"(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"
    r"|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))"
)
_YEAR = r"(?:[1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])"
_LEAP_YEAR = r"(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"
_DATE = rf"(?:{_YEAR}-{_DAY}|{_LEAP_YEAR}-02-29)"
_TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
# every one is a real day and second
EXACT_FORMATS = {"date": f"^{_DATE}$", "time": f"^{_TIME}$", "date-time": f"^{_DATE}T{_TIME}$"}
REFUSED_FORMATS = frozenset(
    (
        "idn-email",
        "idn-hostname",
        "uri-reference",
        "iri",
        "iri-reference",
        "uri-template",
        "json-pointer",
        "relative-json-pointer",
        "regex",
    )
)
COUNTS = ("minProperties", "maxProperties", "minItems", "maxItems", "minLength", "maxLength")
NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
ONE_SCHEMA = ("items", "additionalProperties")
SCHEMA_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
SCHEMA_MAPS = ("properties", "patternProperties")
REFUSED = frozenset(
    (
        "not",
        "if",
        "then",
        "else",
        "dependentRequired",
        "dependentSchemas",
        "dependencies",
        "propertyNames",
        "contains",
        "minContains",
    )
) | {"maxContains", "unevaluatedItems", "unevaluatedProperties", "additionalItems", "$dynamicRef", "$recursiveRef"}
SCALARS = frozenset(("string", "number", "integer", "boolean", "null"))
TYPES = SCALARS | {"array", "object"}


def prepare(schema: Mapping[str, Any] | bool, field: str, what: str = "the JSON schema") -> dict[str, Any]:
    """A schema in which everything is honoured, and whose objects have no unnamed properties unless it asks for them:
    `$ref`s lead to "#" and "#/$defs/0", "1", ...

    Raises RequestError that names the keyword and its place; `field` is its param, `what` the schema's name in the
    sentence."""
    return _Preparation(schema, field, what).result()


class _Preparation:
    def __init__(self, schema: Mapping[str, Any] | bool, field: str, what: str) -> None:
        self._root, self._field, self._what = schema, field, what
        self._targets: dict[str, str] = {}  # pointers in the schema as given -> references in the result
        self._levels = 0
        self._deepest = 0

    def result(self) -> dict[str, Any]:
        self._check_size()
        root = self._definition(self._root, "#")
        out: dict[str, Any] = root if isinstance(root, dict) else {} if root else {"enum": []}
        definitions: dict[str, Any] = {}
        while len(definitions) < len(self._targets):
            pointer = list(self._targets)[len(definitions)]
            definitions[str(len(definitions))] = self._definition(self._find(pointer), pointer)
        places = {"#": out, **{f"#/$defs/{name}": one for name, one in definitions.items()}}
        close_objects(places)
        self._check_branches(places)
        ending = _ending(places)
        if "#" not in ending:
            raise self._error("no JSON can satisfy it: what it requires never ends, or contradicts itself", "#")
        kept: dict[str, Any] = _pruned({**out, "$defs": definitions} if definitions else out, ending)
        return kept

    def _error(self, text: str, place: str) -> RequestError:
        shown = place if len(place) <= 200 else place[:200] + "..."
        return RequestError(f"{self._what} cannot be honoured: {text} (at {shown}).", self._field, "invalid_schema")

    def _check_size(self) -> None:
        try:
            size = len(orjson.dumps(self._root))
        except (TypeError, ValueError, RecursionError) as error:
            raise self._error(f"it is nested too deeply, or not JSON ({error})", "#") from error
        if size > MAX_TEXT:
            raise self._error(f"it has {size} bytes; at most {MAX_TEXT} are compiled", "#")

    def _definition(self, schema: Any, place: str) -> Any:
        self._deepest = 0
        out = self._schema(schema, place, 1)
        self._levels += self._deepest
        if self._levels > MAX_LEVELS:
            raise self._error(f"its definitions have more than {MAX_LEVELS} levels in all", place)
        return out

    def _check_branches(self, places: Mapping[str, Any]) -> None:
        references = Counter(one for schema in places.values() for one in _referred(schema))
        if too_many_branches(references, {place: list(_begun(schema)) for place, schema in places.items()}):
            raise self._error("it has too many references to definitions with many alternatives", "#")

    def _schema(self, schema: Any, place: str, depth: int) -> Any:
        self._deepest = max(self._deepest, depth)
        if depth > MAX_DEPTH:
            raise self._error(f"it is nested more than {MAX_DEPTH} levels deep", place)
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, Mapping):
            raise self._error(f"a schema is an object, true or false, not {_shown(schema)}", place)
        out: dict[str, Any] = {}
        for key, value in schema.items():
            self._keyword(out, key, value, f"{place}/{key}", depth)
        self._check_object(out, place)
        return out

    def _keyword(self, out: dict[str, Any], key: str, value: Any, place: str, depth: int) -> None:
        if key in REFUSED or (key == "uniqueItems" and value is not False):
            raise self._error(f"'{key}' is not supported", place)
        if key == "$id" and place != "#/$id":
            raise self._error("'$id' is supported at the top only", place)
        if key == "$ref":
            out[key] = self._reference(value, place)
        elif key in ONE_SCHEMA:
            if isinstance(value, list):
                raise self._error(f"'{key}' is a list; in draft 2020-12 that is 'prefixItems'", place)
            out[key] = self._schema(value, place, depth + 1)
        elif key in SCHEMA_LISTS:
            if not isinstance(value, list) or not value:
                raise self._error(f"'{key}' must be a list of schemas, and not an empty one", place)
            made = [self._schema(one, f"{place}/{i}", depth + 2) for i, one in enumerate(value)]
            if key == "oneOf" and all_disjoint(value, self._find):
                out["allOf"] = [*out.get("allOf", ()), {"anyOf": made}]
            else:
                out[key] = (out.get(key, []) if key == "allOf" else []) + made
        elif key in SCHEMA_MAPS:
            if not isinstance(value, Mapping):
                raise self._error(f"'{key}' must be an object of schemas", place)
            out[key] = {name: self._schema(one, f"{place}/{_escaped(name)}", depth + 2) for name, one in value.items()}
        elif key in NUMBERS:
            out[key] = self._number(key, value, place)
        elif key in ("const", "enum"):
            if key == "enum" and not isinstance(value, list):
                raise self._error(f"'enum' must be a list, not {_shown(value)}", place)
            self._check_data(value, place, depth)
            out[key] = value
        elif key == "format":
            if not isinstance(value, str):
                raise self._error(f"'format' must be a string, not {_shown(value)}", place)
            if value in REFUSED_FORMATS:
                raise self._error(
                    f"the format '{value}' is not supported; supported are {', '.join(sorted(FORMATS))}", place
                )
            if value in EXACT_FORMATS:
                out["allOf"] = [*out.get("allOf", ()), {"pattern": EXACT_FORMATS[value]}]
            elif value in FORMATS:
                out[key] = value
        elif key in COUNTS or key in ("type", "required", "pattern"):
            self._check_plain(key, value, place)
            out[key] = value

    def _check_plain(self, key: str, value: Any, place: str) -> None:
        if key in COUNTS:
            good, wanted = (
                isinstance(value, int) and not isinstance(value, bool) and value >= 0,
                "a whole number from 0 on",
            )
        elif key == "type":
            kinds = [value] if isinstance(value, str) else value
            good = isinstance(kinds, list) and bool(kinds) and all(isinstance(k, str) and k in TYPES for k in kinds)
            wanted = f"one or more of {', '.join(sorted(TYPES))}"
        elif key == "required":
            good, wanted = isinstance(value, list) and all(isinstance(name, str) for name in value), "a list of names"
        else:
            good, wanted = isinstance(value, str), "a regular expression"
        if not good:
            raise self._error(f"'{key}' must be {wanted}, not {_shown(value)}", place)

    def _number(self, key: str, value: Any, place: str) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._error(f"'{key}' must be a number, not {_shown(value)}", place)
        if isinstance(value, int) and abs(value) > EXACT:
            raise self._error(f"'{key}' is {value}; whole numbers beyond 2^53 are not compared exactly", place)
        return value

    def _check_data(self, value: Any, place: str, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise self._error(f"it is nested more than {MAX_DEPTH} levels deep", place)
        self._deepest = max(self._deepest, depth)
        if isinstance(value, int) and abs(value) > EXACT:
            raise self._error(f"{value} is beyond 2^53, where whole numbers are not compared exactly", place)
        for one in value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ():
            self._check_data(one, place, depth + 1)

    def _check_object(self, out: dict[str, Any], place: str) -> None:
        """Combinations of keywords whose parts are each supported."""
        named, required = out.get("properties", {}), out.get("required", ())
        if len(named) > MAX_OPTIONAL and len(named.keys() - set(required)) > MAX_OPTIONAL:
            raise self._error(f"more than {MAX_OPTIONAL} properties may be left out; list them in 'required'", place)
        least = out.get("minProperties", 0)
        if least > len(named) + 1:
            raise self._error(
                f"'minProperties' is {least} with {len(named)} in 'properties': other names might repeat", place
            )
        if out.get("minItems", 0) > MAX_ITEMS:
            raise self._error(f"'minItems' is {out['minItems']}; at most {MAX_ITEMS} are supported", place)

    def _reference(self, pointer: Any, place: str) -> str:
        if not isinstance(pointer, str) or not (pointer == "#" or pointer.startswith("#/")):
            raise self._error(
                f"'$ref' is {_shown(pointer)}; references go to places in the same schema, as in '#/$defs/name'", place
            )
        if pointer == "#":
            return "#"
        self._find(pointer, place)
        return self._targets.setdefault(pointer, f"#/$defs/{len(self._targets)}")

    def _find(self, pointer: str, place: str = "#") -> Any:
        """What a pointer leads to in the schema as given."""
        found: Any = self._root
        for part in pointer[2:].split("/"):
            part = unquote(part).replace("~1", "/").replace("~0", "~")
            try:
                found = found[int(part)] if isinstance(found, list) and part.isdecimal() else found[part]
            except (LookupError, ValueError, TypeError):
                raise self._error(f"'$ref' leads to {_shown(pointer)}, which is not there", place) from None
        return found


def too_many_branches(references: Mapping[str, int], begun: Mapping[str, Sequence[str]]) -> bool:
    """Whether a parser would have too much to look at in one place. `references`: how often each definition is referred
    to; `begun`: the ways in which each can begin, by name of a definition or "" where there is none."""
    total = 0
    for name, count in references.items():
        seen, waiting = {name}, [name]
        while waiting:
            ways = begun.get(waiting.pop(), ())
            total += count * max(1, len(ways))
            if total > MAX_BRANCHES:
                return True
            more = {one for one in ways if one and one not in seen}
            seen |= more
            waiting += more
    return False


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:80] + "..."


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _ending(places: Mapping[str, Any]) -> set[str]:
    """The references that some finite JSON can satisfy: the least fixed point. `places`: all prepared schemas by
    reference."""
    users: dict[str, list[str]] = {}
    for place, schema in places.items():
        for reference in set(_referred(schema)):
            users.setdefault(reference, []).append(place)
    ending: set[str] = set()
    waiting = list(places)
    while waiting:
        place = waiting.pop()
        if place not in ending and _ends(places[place], ending):
            ending.add(place)
            waiting += users.get(place, ())
    return ending


def _referred(schema: Any) -> Iterator[str]:
    """The references in a prepared schema; what stands in data may be among them."""
    if isinstance(schema, dict):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"]
        for one in schema.values():
            yield from _referred(one)
    elif isinstance(schema, list):
        for one in schema:
            yield from _referred(one)


def _begun(schema: Any) -> Iterator[str]:
    """The ways in which a value of a prepared schema can begin: a reference, or "" for one written out here."""
    if not isinstance(schema, dict):
        return
    if "$ref" in schema:
        yield schema["$ref"]
    for key in ("allOf", "anyOf", "oneOf"):
        for one in schema.get(key, ()):
            yield ""
            yield from _begun(one)


def _pruned(schema: Any, ending: set[str]) -> Any:
    """The schema without what could be begun and never ended: `false` in its place."""
    if isinstance(schema, bool) or not _ends(schema, ending):
        return schema is True
    out = dict(schema)
    for key in out:
        if key in ONE_SCHEMA:
            out[key] = _pruned(out[key], ending)
        elif key in SCHEMA_LISTS:
            out[key] = [_pruned(one, ending) for one in out[key]]
        elif key in SCHEMA_MAPS or key == "$defs":
            out[key] = {name: _pruned(one, ending) for name, one in out[key].items()}
    return out


def _ends(schema: Any, ending: set[str]) -> bool:
    """Whether finite JSON satisfies `schema`, given the references of which that is known."""
    if isinstance(schema, bool):
        return schema
    if "$ref" in schema and schema["$ref"] not in ending:
        return False
    if not all(_ends(one, ending) for one in schema.get("allOf", ())):
        return False
    if any(not any(_ends(one, ending) for one in schema[key]) for key in ("anyOf", "oneOf") if key in schema):
        return False
    if "enum" in schema or "const" in schema:
        return "const" in schema or bool(schema["enum"])
    types = schema.get("type", ["string"])
    return any(_type_ends(kind, schema, ending) for kind in ([types] if isinstance(types, str) else types))


def _type_ends(kind: Any, schema: Mapping[str, Any], ending: set[str]) -> bool:
    if kind == "array":
        prefix, least = schema.get("prefixItems", []), schema.get("minItems", 0)
        needed = [*prefix[:least], *([schema["items"]] if "items" in schema and least > len(prefix) else [])]
        return all(_ends(one, ending) for one in needed)
    if kind == "object":
        named, other = schema.get("properties", {}), schema.get("additionalProperties", True)
        required = schema.get("required", ())
        return all(
            _ends(named.get(name, other if not schema.get("patternProperties") else True), ending) for name in required
        )
    return kind in SCALARS

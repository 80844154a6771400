"""`python -m axpress.server.docs.field_table` writes docs/compat.md: what becomes of every field of every request, from
the schemas themselves."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

from ..schema.fields import RequestFields, Strict
from .openapi import common_first
from .routes import ROUTES

COMMAND = "python -m axpress.server.docs.field_table"
INTRODUCTION = f"""# What becomes of each field

Written by `{COMMAND}` from the classes that read the requests; do not edit.

**obeyed**: the answer is as the field says. **accepted**: nothing follows from it here, and why. **refused**: known,
not supported here, and answered with an error that names it, as every field is that stands in no table. null means "not
given" for each field that may be absent. `a.b` is field b of the object a, `a[].b` of each object in the list a. What
values a field takes: /docs, /openapi.json.
"""

Row = tuple[str, str, str]
"""Field, what becomes of it, remark."""


def text() -> str:
    """The whole page."""
    parts = [INTRODUCTION]
    paths: dict[type[RequestFields], list[str]] = {}
    for route in ROUTES:
        if route.request is not None:
            paths.setdefault(route.request, []).append(f"{route.method} {route.path}")
    for request, (path, *others) in paths.items():
        also = f"Also {', '.join(others)}.\n\n" if others else ""
        parts.append(f"## {path}\n\n{also}{_table(request)}")
    return "\n".join(parts)


def _table(request: type[RequestFields]) -> str:
    lines = ["| field | | remark |", "| --- | --- | --- |"]
    merged: dict[str, tuple[dict[str, None], dict[str, None]]] = {}
    for name, fate, remark in rows(request):  # one name may stand in several kinds of object
        fates, remarks = merged.setdefault(name, ({}, {}))
        fates[fate] = None
        remarks[remark] = None
    for name, (fates, remarks) in merged.items():
        lines.append(f"| `{name}` | {' or '.join(fates)} | {_cell(' '.join(filter(None, remarks)))} |")
    return "\n".join(lines) + "\n"


def rows(request: type[Strict], prefix: str = "", inside: tuple[type, ...] = ()) -> Iterator[Row]:
    """What becomes of each field of a class, and of those of the objects in it."""
    harmless: dict[str, str] = getattr(request, "harmless", {})
    for name in request.model_fields if prefix else common_first(request.model_fields):
        field = request.model_fields[name]
        remark = " ".join((field.description or "").split())
        spelled = prefix + (field.alias or name)
        if name in harmless:
            yield spelled, "accepted", " ".join(filter(None, [_sentence(harmless[name]), remark]))
            continue
        yield spelled, "obeyed", remark
        for kind, step in _objects(field.annotation):
            if kind not in inside:
                yield from rows(kind, f"{spelled}{step}.", (*inside, request, kind))
    for name, missing in getattr(request, "refused", {}).items():
        yield prefix + name, "refused", f"This server has no {missing}."


def _objects(annotation: Any) -> Iterator[tuple[type[Strict], str]]:
    """The classes of objects that a field may hold, each with how to get there: "" or "[]"."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _objects(get_args(annotation)[0])
    elif origin is list:
        yield from ((kind, "[]" + step) for kind, step in _objects(get_args(annotation)[0]))
    elif origin in (Union, types.UnionType):
        for kind in get_args(annotation):
            yield from _objects(kind)
    elif isinstance(annotation, type) and issubclass(annotation, Strict):
        yield annotation, ""


def _sentence(reason: str) -> str:
    return reason[:1].upper() + reason[1:] + "."


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def target() -> Path:
    """docs/compat.md of the source tree that this runs from."""
    return Path(__file__).resolve().parents[2] / "docs" / "compat.md"


def main() -> int:
    """Write the page where this source tree keeps it."""
    path = target()
    if not (path.parents[1] / "pyproject.toml").exists():
        print("run this in the source tree of axpress: an installed package has no docs folder", file=sys.stderr)
        return 1
    path.parent.mkdir(exist_ok=True)
    path.write_text(text())
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""docs/compat.md says what the schemas say."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import pytest
from repository import ROOT

from axpress.server.docs import field_table as compat
from axpress.server.docs.routes import ROUTES
from axpress.server.schema.fields import RequestFields, Strict


def test_the_page_is_the_one_that_would_be_written_now() -> None:
    path = ROOT / "docs" / "compat.md"
    assert path.read_text() == compat.text(), f"docs/compat.md is out of date; run: {compat.COMMAND}"


@pytest.mark.parametrize("route", [route for route in ROUTES if route.request], ids=lambda route: route.path)
def test_every_field_of_every_request_has_a_row_with_its_fate(route: Any) -> None:
    section = next(
        part for part in compat.text().split("\n## ") if f"{route.method} {route.path}" in part.partition("| field")[0]
    )
    rows = {cells[1].strip(): cells[2].strip() for line in section.splitlines() if len(cells := line.split("|")) >= 4}
    for name in route.request.model_fields:
        assert rows[f"`{name}`"] == ("accepted" if name in route.request.harmless else "obeyed"), name
    for name in route.request.refused:
        assert rows[f"`{name}`"] == "refused", name


class Inner(Strict):
    """An object."""

    c: int
    """Text with a | in it."""
    again: list[Inner] | None = None


class Outer(RequestFields):
    """A request."""

    harmless: ClassVar[dict[str, str]] = {"b": "of no use"}
    refused: ClassVar[dict[str, str]] = {"z": "zeds"}

    a: Annotated[list[Inner], "any"] | Inner | None = None
    b: bool | None = None
    """More about it."""


def test_rows_of_nested_fields() -> None:
    assert list(dict.fromkeys(compat.rows(Outer))) == [
        ("a", "obeyed", ""),
        ("a[].c", "obeyed", "Text with a | in it."),
        ("a[].again", "obeyed", ""),
        ("a.c", "obeyed", "Text with a | in it."),
        ("a.again", "obeyed", ""),
        ("b", "accepted", "Of no use. More about it."),
        ("z", "refused", "This server has no zeds."),
    ]

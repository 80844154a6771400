"""The pages in docs/: those that are made from the code are as it would be now, and docs/errors.md has every code."""

from __future__ import annotations

import ast
import re
import shlex
import sys
from collections.abc import Iterator

import pytest
from repository import ROOT
from server_process import RunningServer

from axpress.core.errors import FailureKind
from axpress.server import cli, exit_codes
from axpress.server.http import errors
from axpress.server.schema import fields

sys.path.insert(0, str(ROOT / "tools"))
import follow_page
import reference_pages as pages

DOCS = ROOT / "docs"
ERRORS = (DOCS / "errors.md").read_text()


def test_the_command_lines_page_is_the_one_that_would_be_written_now() -> None:
    assert (DOCS / "cli.md").read_text() == pages.cli_page(), f"out of date; run: {pages.COMMAND}"


def test_the_metrics_page_is_the_one_that_would_be_written_now(server: RunningServer) -> None:
    assert (DOCS / "metrics.md").read_text() == pages.metrics_page(pages.exposed_by(server)), (
        f"out of date; run: {pages.COMMAND}"
    )


def constant(call: ast.Call, position: int, name: str) -> object:
    """A literal argument of a call; None where it is none."""
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    value = call.args[position] if len(call.args) > position else given.get(name)
    return value.value if isinstance(value, ast.Constant) else None


def codes_in_the_source() -> Iterator[tuple[int, str]]:
    """Status and code of each error that is raised with both written out."""
    for path in [*(ROOT / "server").rglob("*.py"), *(ROOT / "core").rglob("*.py")]:
        for call in ast.walk(ast.parse(path.read_text())):
            name = call.func.id if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) else ""
            if name == "HttpError":
                status, code = constant(call, 0, "status"), constant(call, 9, "code")
            elif name.endswith(("RequestError", "ContextOverflow")):
                status, code = 400, constant(call, 2, "code")
            else:
                continue
            if isinstance(status, int) and isinstance(code, str):
                yield status, code
    yield from ((status, code) for status, (_, code) in errors._SANIC_TEXT.items())
    yield from ((failure.status, failure.code) for failure in errors.FAILURES.values())
    yield from ((400, code) for code in (*fields._CODES.values(), "invalid_type", "invalid_value"))
    yield 400, "context_length_exceeded"


def test_every_error_code_stands_in_the_page_and_no_other() -> None:
    rows = {(int(status), code) for status, code in re.findall(r"^\| (\d{3}) \| `(\w+)` \|", ERRORS, re.MULTILINE)}
    assert rows == set(codes_in_the_source())


@pytest.mark.parametrize("kind", FailureKind)
def test_every_kind_of_failure_stands_with_its_status_and_code(kind: FailureKind) -> None:
    failure = errors.FAILURES[kind]
    assert f"| {failure.status} | `{failure.code}` | {kind.name} |" in ERRORS


def test_exit_codes_stand_in_the_page() -> None:
    known = {value for name, value in vars(exit_codes).items() if name.isupper()}
    section = ERRORS.partition("## Exit codes")[2].partition("\n## ")[0]
    assert known <= {int(code) for code in re.findall(r"^\| (\d+) \|", section, re.MULTILINE)}


def test_the_steps_without_a_card_are_found_and_the_command_line_takes_them() -> None:
    steps = "".join(follow_page.blocks((DOCS / "on-your-pi.md").read_text()))
    assert "axpress pull smollm2-135m" in steps and "dtparam" not in steps and "sudo ~/axpress" not in steps
    commands = [shlex.split(line)[1:] for line in steps.splitlines() if line.startswith("axpress ")]
    for words in commands:
        assert words == ["--version"] or cli._parser().parse_args(words)
    assert len(commands) > 6

"""What holds an answer to the form that its request asks for: the grammar, and which requests cannot have one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from axpress.core.errors import RequestError

from .generation_spec import GenerationSpec

if TYPE_CHECKING:
    from axpress.core.request import Constraint
    from axpress.core.structured_output.grammar_compiler import GrammarCompiler
    from axpress.core.structured_output.output_spec import OutputSpec, ToolFormat


def make_constraint(
    spec: GenerationSpec, output: OutputSpec, grammars: GrammarCompiler
) -> Callable[[], Constraint] | None:
    """What holds the answer to its form; None where any text will do. Raises RequestError for what no grammar can be
    made of."""
    _check_stop(spec.stop, output.tool_format)
    budget = spec.thinking_budget if output.thinking is not None else None
    if output.body is None and not output.tools and budget is None:
        return None
    if spec.ignore_eos:
        text = (
            "'ignore_eos' does not go with tools, a form of the answer or a bound on reasoning, which say where the"
            " answer may end."
        )
        raise RequestError(text, "ignore_eos", "unsupported_parameter")
    return grammars.compile(output, thinking_budget=budget)


def _check_stop(stop_strings: tuple[str, ...], calls: ToolFormat | None) -> None:
    """Raises RequestError for a stop string that would cut every call."""
    if calls is None:
        return
    parts = (calls.begin, calls.before_arguments, calls.end, calls.between)
    for stop in stop_strings:
        if any(stop in part for part in parts):
            text = (
                f"'stop': {stop[:64]!r} is part of how this model writes calls, so that it could call nothing. Leave it"
                " or the tools out."
            )
            raise RequestError(text, "stop", "invalid_value")

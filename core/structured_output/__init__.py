"""Answers that obey a form: JSON schemas, regular expressions, tools; compiled, then followed token by token."""

from .grammar_compiler import GrammarCompiler
from .output_spec import OutputSpec

__all__ = ["GrammarCompiler", "OutputSpec"]

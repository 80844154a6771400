"""Structured output: shapes of answers as grammars, compiled once, and followed token by token."""

from __future__ import annotations

from axpress.core.shape import Body, JsonObject, JsonSchema, Lark, OneOf, Regex, Shape, Thinking, ToolFormat, ToolRule

__all__ = ["Body", "JsonObject", "JsonSchema", "Lark", "OneOf", "Regex", "Shape", "Thinking", "ToolFormat", "ToolRule"]

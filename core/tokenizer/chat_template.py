"""Chat templates in Hugging Face's Jinja dialect: messages in, text and control tokens out, within fixed bounds.

The dialect is what transformers documents for `apply_chat_template`: trim_blocks and lstrip_blocks, loop controls, the
`generation` tag, `tojson` without HTML escapes, `raise_exception`, `strftime_now`, the names of the special tokens,
message keys whose value is null left out, and `reasoning_content` filled from `thinking` or `reasoning`. Templates come
with the model, never from a client. What the client sent is rebuilt from plain JSON types and guarded (see guard.py).
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from datetime import datetime
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from ..errors import PackageError, RequestError
from .template_guard import ANY_NONCHARACTER, NONCHARACTERS, ControlToken, Guard, ends_open

MAX_CHARACTERS = 8 << 20
MAX_ITERATIONS = 2_000_000
MAX_SECONDS = 10.0
MAX_DEPTH = 64
# Words that templates build control tokens from ('<|' + role + '|>'): the only client strings that may.
ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
RESERVED = frozenset(
    {
        "messages",
        "add_generation_prompt",
        "chat_template",
        "raise_exception",
        "strftime_now",
        "namespace",
        "range",
        "dict",
    }
)
_REASONING = ("reasoning_content", "thinking", "reasoning")

CHATML = (
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + (message.content or '') +"
    " '<|im_end|>\\n' }}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)


class _Budget:
    """What one rendering may still use."""

    def __init__(self) -> None:
        self.characters = MAX_CHARACTERS
        self.iterations = MAX_ITERATIONS
        self.deadline = time.monotonic() + MAX_SECONDS

    def spend(self, characters: int = 0, iterations: int = 0) -> None:
        """Raises jinja2.TemplateError when a bound is passed."""
        self.characters -= characters
        self.iterations -= iterations
        if self.characters < 0:
            raise jinja2.TemplateError(f"the rendered prompt is longer than {MAX_CHARACTERS} characters")
        if self.iterations < 0 or time.monotonic() > self.deadline:
            raise jinja2.TemplateError(f"rendering takes more than {MAX_ITERATIONS} loop steps or {MAX_SECONDS:.0f} s")


_budget: ContextVar[_Budget] = ContextVar("axpress_template_budget")


class _Generation(Extension):
    """`{% generation %}...{% endgeneration %}` marks answers for training; for us its body is plain output."""

    tags = {"generation"}  # noqa: RUF012 - as the base class declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Dict:
    """`dict(...)` without the type's attributes, so that a template cannot reach the interpreter through it."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox with bounds on loops, repetition and joined text."""

    intercepted_binops = frozenset({"*", "**"})

    def __init__(self, guard: Guard) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
        self.guard = guard
        self.concat = self._concat  # type: ignore[method-assign]
        self.filters["tojson"] = self._tojson
        self.filters["_bounded"] = _bounded
        self.globals.update(
            raise_exception=_raise_exception, strftime_now=_strftime_now, dict=_Dict(), namespace=Namespace
        )

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        for loop in tree.find_all(nodes.For):
            loop.iter = nodes.Filter(loop.iter, "_bounded", [], [], None, None, lineno=loop.lineno)
        return tree

    def _concat(self, parts: Iterable[str]) -> str:
        text = self.guard.join(parts)
        budget = _budget.get(None)
        if budget is not None:
            budget.spend(characters=len(text))
        return text

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        sizes = [
            len(v) if isinstance(v, (str, list, tuple)) else abs(v)
            for v in (left, right)
            if isinstance(v, (str, list, tuple, int))
        ]
        if len(sizes) == 2 and (sizes[0] * sizes[1] > MAX_CHARACTERS if operator == "*" else sizes[1] > 64):
            raise jinja2.TemplateError(f"the template computes something too large with {operator}")
        return super().call_binop(context, operator, left, right)

    def _tojson(
        self,
        value: Any,
        ensure_ascii: bool = False,
        indent: Any = None,
        separators: Any = None,
        sort_keys: bool = False,
    ) -> str:
        text = json.dumps(value, ensure_ascii=False, indent=indent, separators=separators, sort_keys=sort_keys)
        if ensure_ascii:  # but not the marks
            text = re.sub(r"[^\x00-\x7f]", lambda m: m[0] if m[0] == self.guard.mark else json.dumps(m[0])[1:-1], text)
        return self.guard.join([text])


@jinja2.pass_context  # keeps Jinja from working it out at compile time
def _bounded(_context: Any, items: Any) -> list[Any]:
    """What a `for` iterates over, as a list, paid from the budget."""
    out = list(items)
    budget = _budget.get(None)
    if budget is not None:
        budget.spend(iterations=len(out) + 1)
    return out


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(format: str) -> str:
    return datetime.now().strftime(format)


class ChatTemplate:
    """The templates of one model and the control tokens that they may write.

    `templates`: source by name ("default", perhaps "tool_use"); `names`: bos_token and so on, as templates read them.
    Raises PackageError, naming `origin`, if a template does not compile.
    """

    def __init__(
        self, templates: Mapping[str, str], control: Sequence[ControlToken], names: Mapping[str, Any], origin: str
    ) -> None:
        self._templates = dict(templates)
        self._control = tuple(control)
        self._names = dict(names)
        self._compiled: dict[tuple[str, str], tuple[Guard, jinja2.Template]] = {}
        for name in self._templates:
            try:
                self._compile(name, NONCHARACTERS[0])
            except jinja2.TemplateSyntaxError as error:
                raise PackageError(
                    f"{origin}: the chat template {name!r} does not compile: {error} (line {error.lineno})"
                ) from error

    def _compile(self, name: str, mark: str) -> tuple[Guard, jinja2.Template]:
        key = (name, mark)
        if key not in self._compiled:
            source = self._templates[name]
            tree = _Environment(Guard((), mark, False)).parse(source)
            literals = [n.data for n in tree.find_all(nodes.TemplateData)]
            literals += [n.value for n in tree.find_all(nodes.Const) if isinstance(n.value, str)]
            literals += [n for n in self._names.values() if isinstance(n, str)]
            guard = Guard(self._control, mark, ends_open(literals, self._control))
            self._compiled[key] = guard, _Environment(guard).from_string(source)
        return self._compiled[key]

    def render(
        self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool, extra: Mapping[str, Any]
    ) -> list[str | ControlToken]:
        """The prompt as parts: plain text, and the control tokens that the template wrote. `extra`: more variables.

        Raises RequestError (param "messages" or the name of an extra) if the template refuses the messages, a bound is
        passed, or a value is not plain JSON or not valid Unicode.
        """
        clashes = [k for k in extra if k in RESERVED or k in self._names or k.startswith("_")]
        if clashes:
            raise RequestError(f"the chat template's variable {clashes[0]!r} cannot be set by a request", clashes[0])
        used: set[str] = set()
        chat = [_aliased(m) for m in _checked(list(messages), "messages", used)]
        values = {name: _checked(value, name, used) for name, value in extra.items()}
        mark = next(
            (c for c in NONCHARACTERS if c not in used and not any(c in t for t in self._templates.values())), None
        )
        if mark is None:
            raise RequestError(
                "the messages use every one of the noncharacters U+FDD0 to U+FDEF; remove them", "messages"
            )
        use_tools = bool(extra.get("tools")) and "tool_use" in self._templates
        guard, template = self._compile("tool_use" if use_tools else "default", mark)
        chat = [_guarded(m, guard) | {k: v for k, v in m.items() if k == "role" and v in ROLES} for m in chat]
        values = {"tools": None, "documents": None} | {k: _guarded(v, guard) for k, v in values.items()}
        variables = self._names | values | {"messages": chat, "add_generation_prompt": add_generation_prompt}
        return guard.parse(self._run(template, variables, mark))

    def _run(self, template: jinja2.Template, variables: dict[str, Any], mark: str) -> str:
        budget = _Budget()
        token = _budget.set(budget)
        blocks = []
        try:
            for block in template.generate(variables):
                budget.spend(characters=len(block))
                blocks.append(block)
        except Exception as error:  # a template is a program: whatever it raises, the messages did not fit it
            reason = str.replace(str(error), mark, "")[:500] or type(error).__name__
            raise RequestError(f"the model's chat template refused these messages: {reason}", "messages") from error
        finally:
            _budget.reset(token)
        return "".join(blocks)


def _aliased(message: Any) -> dict[str, Any]:
    """A message without null fields, its reasoning under each name that templates read."""
    if not isinstance(message, dict):
        raise RequestError("each message must be an object with role and content", "messages")
    message = {k: v for k, v in message.items() if v is not None}
    reasoning = next((message[k] for k in _REASONING if k in message), None)
    if reasoning is None:
        return message
    return {"thinking": reasoning, **message, "reasoning_content": reasoning}


def check_text(text: str, param: str, used: set[str] | None = None) -> str:
    """`text` itself; RequestError if it holds half of a surrogate pair. Collects its noncharacters in `used`."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            bad = ord(text[error.start])
            raise RequestError(
                f"{param} holds the lone surrogate U+{bad:04X}, which is not a character; remove it", param
            ) from error
        if used is not None:
            used.update(ANY_NONCHARACTER.findall(text))
    return text


def _checked(value: Any, param: str, used: set[str], depth: int = 0) -> Any:
    """A copy of `value` made of plain JSON types only; RequestError for anything else."""
    if depth > MAX_DEPTH:
        raise RequestError(f"{param} is nested deeper than {MAX_DEPTH} levels", param)
    if isinstance(value, str):
        return check_text(str.__str__(value), param, used)
    if value is None or type(value) in (bool, int, float):
        return value
    if isinstance(value, Mapping):
        return {check_text(str(k), param, used): _checked(v, param, used, depth + 1) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_checked(v, param, used, depth + 1) for v in value]
    raise RequestError(f"{param} holds a {type(value).__name__}, which a chat template cannot show", param)


def _guarded(value: Any, guard: Guard) -> Any:
    if isinstance(value, str):
        return guard.protect(value)
    if isinstance(value, dict):
        return {guard.protect(k): _guarded(v, guard) for k, v in value.items()}
    if isinstance(value, list):
        return [_guarded(v, guard) for v in value]
    return value

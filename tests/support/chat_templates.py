"""Small chat templates of our own, in the manner of models that call functions or reason; and tokenizers that have
them."""

from __future__ import annotations

import json
from pathlib import Path

from axpress.core.model_files.hollow_tokenizer import write_tokenizer
from axpress.core.tokenizer.tokenizer import Tokenizer

_TURNS = """
{%- for message in messages %}
    {%- if message.role == 'tool' %}
        {{- '<|im_start|>user\\n<tool_response>\\n' + message.content + '\\n</tool_response><|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' }}
        {%- if message.reasoning_content and loop.last %}{{- '<think>\\n' + message.reasoning_content + '\\n</think>\\n\\n' }}{%- endif %}
        {{- message.content }}
        {%- for call in message.tool_calls or [] %}
            {%- if not loop.first or message.content %}{{- '\\n' }}{%- endif %}
            CALL
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}OPENING{%- endif %}"""
_TOOLS = """
{%- if tools %}
    {{- '<|im_start|>system\\nFunctions:' }}
    {%- for tool in tools %}{{- '\\n' + tool | tojson }}{%- endfor %}
    {{- '<|im_end|>\\n' }}
{%- endif %}"""
_TEXT_CALL = """{{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
            {%- if call.function.arguments is string %}{{- call.function.arguments }}
            {%- else %}{{- call.function.arguments | tojson }}{%- endif %}
            {{- '}\\n</tool_call>' }}"""
_OBJECT_CALL = """{{- '<tool_call>{"name": "' + call.function.name + '", "arguments": ' }}
            {{- call.function.arguments | tojson }}{{- '}</tool_call>' }}"""
_XML_CALL = """{{- '<tool_call>\\n<function=' + call.function.name + '>\\n' }}
            {%- for key, value in call.function.arguments | items %}
                {{- '<parameter=' + key + '>' ~ value ~ '</parameter>\\n' }}
            {%- endfor %}
            {{- '</function>\\n</tool_call>' }}"""
_SWITCH = "{%- if enable_thinking is defined and not enable_thinking %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}"
_RELUCTANT = """{%- if enable_thinking is defined and enable_thinking %}{{- '<think>\\n' }}
    {%- else %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}"""


def _template(call: str, opening: str, tools: str = _TOOLS) -> str:
    return tools + _TURNS.replace("CALL", call).replace("OPENING", opening)


QWEN = _template(_TEXT_CALL, _SWITCH)
"""Functions, calls in lines, arguments as they are; thinks unless it is told not to."""
DENSE = _template(_OBJECT_CALL, "")
"""Functions, calls without newlines, arguments as objects; never thinks."""
XML = _template(_XML_CALL, _RELUCTANT)
"""Calls in another form; thinks, in a block that the prompt opens, only when it is told to."""
ALWAYS = _template("", "{{- '<think>\\n' }}", "")
"""No functions; always thinks, in a block that the prompt opens."""
PLAIN = _template("", "", "")
"""Neither."""
STERN = """{%- for message in messages %}
    {%- if message.role not in ['user', 'assistant'] %}{{- raise_exception('only user and assistant') }}{%- endif %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""
"""Neither, and no system messages."""


def set_template(directory: Path, template: str) -> None:
    """Give the tokenizer in `directory` this chat template."""
    path = directory / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": template}))


def text_with(template: str, directory: Path) -> Tokenizer:
    """A small tokenizer in `directory` with this template."""
    directory.mkdir()
    write_tokenizer(directory, 600)
    set_template(directory, template)
    return Tokenizer.open(directory)


def random_package(directory: Path, template: str) -> Path:
    """A package in `directory` of a tiny random model that talks in this template, about 2,000 tokens of context."""
    from tiny_models import Tiny, write_checkpoint

    from axpress.core.model_files.convert import convert

    write_checkpoint(Tiny("qwen3", layers=2), directory / "hf")
    set_template(directory / "hf", template)
    return convert(
        directory / "hf", directory / "package", rows=2047, chunk=128, history=[0, 128, 256, 512, 1024], progress=False
    )


SEEING = _template(_TEXT_CALL, _SWITCH).replace(
    "{{- message.content }}",
    """{%- if message.content is string %}{{- message.content }}
        {%- else %}{%- for part in message.content %}
            {%- if part.type == 'image' %}{{- '<|vision_start|><|image_pad|><|vision_end|>' }}
            {%- else %}{{- part.text }}{%- endif %}
        {%- endfor %}{%- endif %}""",
)
"""As QWEN, with pictures in Qwen-VL's manner."""
LISTING = """{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' }}
    {%- for part in message.content %}{%- if part.type == 'image' %}{{- '<|image_pad|>' }}
        {%- elif part.type == 'text' %}{{- part.text }}{%- endif %}{%- endfor %}{{- '<|im_end|>\\n' }}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""
"""Knows contents as lists only, in SmolVLM2's manner."""

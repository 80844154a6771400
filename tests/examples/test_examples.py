"""The examples do what they say, against the demo model."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from repository import ROOT
from server_process import RunningServer

EXAMPLES = ROOT / "examples"


def run(server: RunningServer, name: str, *arguments: str) -> str:
    """What an example prints."""
    environment = {
        **os.environ,
        "OPENAI_BASE_URL": server.url + "/v1",
        "AZURE_OPENAI_ENDPOINT": server.url,
        "OPENAI_API_KEY": "none",
    }
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def said(server: RunningServer, messages: list[dict[str, str]]) -> str:
    text: str = server.post({"messages": messages, "temperature": 0, "max_tokens": 200})[2]["choices"][0]["message"][
        "content"
    ]
    return text


def test_every_example_is_tested() -> None:
    text = Path(__file__).read_text()
    assert [path.name for path in EXAMPLES.glob("*.py") if f'"{path.name}"' not in text] == []


def test_what_the_readme_names_is_there_and_in_source_distributions() -> None:
    packed = (ROOT / "MANIFEST.in").read_text().split()
    links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / "README.md").read_text())
    assert "docs/page.png" in links and "examples" in links
    assert [link for link in links if not (ROOT / link).exists() or link.split("/")[0] not in packed] == []


@pytest.mark.parametrize("page", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "csrc/emu/README.md"])
def test_files_that_a_page_names_are_there(page: str) -> None:
    """Also folders and patterns like tests/server/test_hostile_*.py."""
    rooms = "core|server|csrc|tests|tools|bench|docs|examples"
    named = set(re.findall(rf"(?<![\w./-])(?:{rooms})/[\w./*-]*[\w*]", (ROOT / page).read_text()))
    assert named and [name for name in sorted(named) if not any(ROOT.glob(name))] == []


def test_azure_by_its_endpoint_alone(server: RunningServer) -> None:
    messages = [{"role": "system", "content": "You are a helpful assistant."}, {"role": "user", "content": "Hello!"}]
    assert run(server, "azure_chat.py") == said(server, messages) + "\n"


def test_openai_stream(server: RunningServer) -> None:
    text = run(server, "openai_stream.py", "What is 7 + 5?")
    assert text.startswith(said(server, [{"role": "user", "content": "What is 7 + 5?"}]) + "\n\n")
    assert re.search(r"\d+ tokens read, \d+ written at \d+\.\d tokens/s \(emulated\) \(axpress-toy\)\n$", text)


def test_tools(server: RunningServer) -> None:
    lines = run(server, "tools.py").splitlines()
    assert re.fullmatch(
        r"get_weather\(\{'city': '(Lagos|Oslo|Paris)', 'unit': '(celsius|fahrenheit)'\}\) -> -?\d+ °[CF]", lines[0]
    )
    assert len(lines) > 1 and not lines[-1].startswith("get_weather")


def test_structured(server: RunningServer) -> None:
    form = r"city='(Lagos|Oslo|Paris)' celsius=(-3|14|31) umbrella=(True|False)"
    assert re.fullmatch(f"chat completions: {form}\nresponses:        {form}\n", run(server, "structured.py"))

"""Three servers behind a real LiteLLM proxy with the file of deploy/litellm, addresses changed: one is killed, one is
drained, one card fails, while OpenAI's client asks with its own retries. The cards are emulated."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from proxied_load import free_port, listening, lose_nothing
from repository import ROOT
from server_process import RunningServer, hollow_package

PROGRAM = os.environ.get("AXPRESS_TEST_LITELLM", "")
pytestmark = pytest.mark.skipif(not PROGRAM, reason="AXPRESS_TEST_LITELLM is not the path of a litellm program")
KEY = "sk-a-master-key"


@contextmanager
def proxy(servers: list[RunningServer], directory: Path) -> Iterator[str]:
    """LiteLLM before these servers: its address."""
    text, port = (ROOT / "deploy/litellm/config.yaml").read_text(), free_port()
    for number, server in enumerate(servers, 11):
        text, found = re.subn(rf"http://192.0.2.{number}:8000", server.url, text)
        assert found == 1
    (directory / "config.yaml").write_text(text)
    keys = {"AXPRESS_API_KEY": "none", "LITELLM_MASTER_KEY": KEY}
    nobody_outside = {"NO_PROXY": "*", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    command = [PROGRAM, "--config", "config.yaml", "--host", "127.0.0.1", "--port", str(port)]
    with listening(command, port, directory, **keys, **nobody_outside) as address:
        yield address


def test_no_request_is_lost(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    lose_nothing(hollow_package(tmp_path / "model"), lambda servers: proxy(servers, tmp_path), KEY, "chat")

"""Fixtures of the tests of OpenAI's dialect."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest
from server_process import RunningServer, openai_client


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[openai.OpenAI]:
    """OpenAI's own client of the file's `server`."""
    with openai_client(server) as client:
        yield client

"""Three servers behind a real HAProxy with the file of deploy/haproxy, addresses changed: one is killed, one drained,
one card fails, while OpenAI's client asks with its own retries. The cards are emulated."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from proxied_load import ask, free_port, hollow_server, listening, lose_nothing
from repository import ROOT
from server_process import RunningServer, hollow_package

pytestmark = pytest.mark.skipif(not shutil.which("haproxy"), reason="haproxy is not installed (apt install haproxy)")
FOLDER = ROOT / "deploy" / "haproxy"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return hollow_package(tmp_path_factory.mktemp("haproxy"))


@contextmanager
def proxy(servers: list[RunningServer], directory: Path) -> Iterator[str]:
    """HAProxy before these servers: its address."""
    port = free_port()
    text = (FOLDER / "haproxy.cfg").read_text()
    for number, server in enumerate(servers, 1):
        text, found = re.subn(rf"(server pi{number}) \S+", rf"\1 127.0.0.1:{server.port}", text)
        assert found == 1
    text = text.replace("bind :8080", f"bind 127.0.0.1:{port}")
    text = re.sub(r"stats socket .*", "", text)
    text = text.replace("/etc/haproxy/503.http", str(FOLDER / "503.http"))
    (directory / "haproxy.cfg").write_text(text)
    with listening(["haproxy", "-f", "haproxy.cfg"], port, directory) as address:
        yield address


def test_no_request_is_lost(package: tuple[Path, Path], tmp_path: Path) -> None:
    lose_nothing(package, lambda servers: proxy(servers, tmp_path))


def who_answered(servers: list[RunningServer], before: list[int]) -> int:
    """The server that made more tokens than `before`."""
    until = time.monotonic() + 30
    while time.monotonic() < until:  # an answer is counted a moment after its end
        for number, server in enumerate(servers):
            if server.stats()["generated_tokens"] > before[number]:
                return number
    raise AssertionError("nobody answered")


def test_a_conversation_stays_where_its_beginning_is_cached(package: tuple[Path, Path], tmp_path: Path) -> None:
    with ExitStack() as stack:
        servers = [stack.enter_context(hollow_server(package)) for _ in range(3)]
        url = stack.enter_context(proxy(servers, tmp_path))
        with openai.OpenAI(base_url=url + "/v1", api_key="none") as client:
            where = []
            for number in range(9):
                messages: list[Any] = [{"role": "system", "content": "be brief"}]
                for turn in range(3):
                    messages.append({"role": "user", "content": f"question {turn} of conversation {number}"})
                    before = [server.stats()["generated_tokens"] for server in servers]
                    reply = client.chat.completions.create(model="default", messages=messages, max_tokens=4)
                    messages.append({"role": "assistant", "content": reply.choices[0].message.content})
                    where.append(who_answered(servers, before))
        chosen = [set(where[3 * number : 3 * number + 3]) for number in range(9)]
        assert all(len(servers_of_one) == 1 for servers_of_one in chosen), chosen
        assert len(set(where)) > 1


def test_nobody_there_is_told_in_the_shape_of_an_error(package: tuple[Path, Path], tmp_path: Path) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(hollow_server(package))
        url = stack.enter_context(proxy([server] * 3, tmp_path))
        assert server.stop() == 0
        client = stack.enter_context(openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=0))
        with pytest.raises(openai.InternalServerError, match="no server behind this address") as told:
            ask(client, 1, stream=False)
        assert told.value.status_code == 503 and told.value.response.headers["retry-after"] == "5"
        assert json.loads(told.value.response.text)["error"]["code"] == "no_server"

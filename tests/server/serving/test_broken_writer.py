"""A fault of ours in the middle of a stream: the client is told, the answer is stopped, others go on."""

from __future__ import annotations

import json
import sys

import pytest
from server_process import RunningServer

FAULTY = """
import sys
from axpress.server.openai import chat_stream
from axpress.server.cli import main

encode = chat_stream.ChatStream.encode

def fails(self, index, deltas):
    self.times = getattr(self, "times", 0) + 1
    if self.times == TIMES:
        raise KeyError("a test's")
    return encode(self, index, deltas)

chat_stream.ChatStream.encode = fails
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("times", [1, 4])
def test_a_stream_that_cannot_be_written_ends_with_an_error(times: int) -> None:
    class Faulty(RunningServer):
        command = (sys.executable, "-c", FAULTY.replace("TIMES", str(times)), "serve")

    with Faulty(check=False) as server:
        body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1500, "ignore_eos": True}
        asked = json.dumps({**body, "stream": True}).encode()
        with server.cut_short(750):  # its rows are free, long before its last token would have come
            status, _, raw = server.request("POST", "/v1/chat/completions", asked, {"content-type": "application/json"})
        events = [one.removeprefix("data: ") for one in raw.decode().strip().split("\n\n")]
        assert status == 200 and events[-1] == "[DONE]"
        assert json.loads(events[-2])["error"]["code"] == "internal_error"
        assert server.post({**body, "max_tokens": 3})[0] == 200
        server.wait(lambda: "could not be written" in server.log and "a test's" in server.log, 30, "told in the log")

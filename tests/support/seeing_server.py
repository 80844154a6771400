"""`axpress serve` of a model of text as if it had Qwen3-VL's eyes: what is asked of the server, not what is seen."""

from __future__ import annotations

import sys

import numpy as np
from server_process import RunningServer

from axpress.core.vision import EncoderInput, adapter_for
from axpress.server import cli
from axpress.server.serving import served_model


class SeeingServer(RunningServer):
    """As RunningServer, of a package whose template shows pictures."""

    command = (sys.executable, __file__, "serve")


if __name__ == "__main__":
    served_model.eyes_of = lambda _: adapter_for("qwen3_vl", EncoderInput((16, 512, 3), np.dtype(np.uint8)))
    sys.exit(cli.main())

"""`llm` with the server in extra-openai-models.yaml: an answer, and one by a schema"""
# /// script
# dependencies = ["llm"]
# ///

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

with tempfile.TemporaryDirectory() as folder:
    address = os.environ["AXPRESS_URL"] + "/v1"
    settings = f"- model_id: axpress\n  model_name: default\n  api_base: {address}\n  supports_schema: true\n"
    Path(folder, "extra-openai-models.yaml").write_text(settings)
    environment = {**os.environ, "LLM_USER_PATH": folder}

    def ask(*options: str) -> str:
        command = [str(Path(sys.executable).parent / "llm"), "-m", "axpress", "--key", "none", *options]
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout

    assert len(ask("Tell me a short story.")) > 20
    schema = {"type": "object", "properties": {"city": {"enum": ["Oslo", "Paris"]}}, "required": ["city"]}
    answer = ask("--schema", json.dumps(schema), "The weather in Oslo?")
    assert json.loads(answer)["city"] in ("Oslo", "Paris"), answer

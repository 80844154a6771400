"""`aider --message` in a new folder: it answers, and counts tokens sent and received"""
# /// script
# dependencies = ["aider-chat"]
# ///

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

with tempfile.TemporaryDirectory() as folder:
    environment = {**os.environ, "HOME": folder, "OPENAI_API_KEY": "none"}
    environment["OPENAI_API_BASE"] = os.environ["AXPRESS_URL"] + "/v1"
    switches = ["--no-git", "--yes-always", "--no-check-update", "--no-show-model-warnings", "--no-analytics"]
    asked = ["--model", "openai/default", "--chat-mode", "ask", "--map-tokens", "0", "--message", "What is 7 + 5?"]
    command = [str(Path(sys.executable).parent / "aider"), *switches, *asked]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=300)
    counted = re.search(r"Tokens: [\d.k]+ sent, ([\d.k]+) received", done.stdout)
    assert done.returncode == 0 and counted and counted[1] != "0", done.stdout + done.stderr

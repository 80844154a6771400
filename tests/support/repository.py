"""Where this checkout lies, and how patient its tests are."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The folder that has core, csrc, server and tests in it."""

PATIENCE = float(os.environ.get("AXPRESS_TEST_PATIENCE", "1"))
"""How many times slower than usual this machine may be: what guards against hanging waits so much longer."""

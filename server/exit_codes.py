"""How the process ends, for supervisors. Values of sysexits.h, which systemd's `status` names too."""

from __future__ import annotations

CONFIGURATION = 78
"""Files or settings are wrong: starting again cannot help before somebody has corrected them."""

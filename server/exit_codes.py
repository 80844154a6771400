"""How the process ends, for supervisors. Values of sysexits.h, which systemd's `status` names too."""

from __future__ import annotations

CARD = 75
"""The card could not be brought back in this process, or an engine stopped for an error of its own: whoever started it
is to start it again."""
CONFIGURATION = 78
"""Files or settings are wrong: starting again cannot help before somebody has corrected them."""

"""python -m axpress.server: the same as the axpress command."""

import sys

from .cli import main

sys.exit(main())

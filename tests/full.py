"""Whether the tests take everything one by one, for hours, or in groups and samples, as in CI."""

import os

# LAZYJAX_FULL=1 python -m pytest -n 2
FULL = bool(os.environ.get("LAZYJAX_FULL"))

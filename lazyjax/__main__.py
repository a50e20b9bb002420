"""`python -m lazyjax`: a tour of the library on the colours of two photographs (see `lazyjax.tour`)."""

import sys

from .tour import main

if __name__ == "__main__":
    sys.exit(main())

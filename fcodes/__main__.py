"""`python -m fcodes`."""

import sys

from fcodes.cli import main

sys.exit(main())

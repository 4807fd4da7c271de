"""`python -m switch` is `switch`."""

import sys

from switch.cli import main

sys.exit(main())

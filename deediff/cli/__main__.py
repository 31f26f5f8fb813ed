"""`python -m deediff.cli`, the same as `deediff`."""

import sys

from deediff.cli import main

sys.exit(main())

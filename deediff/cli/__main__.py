"""`python -m deediff.cli`, the same as `deediff`."""

import sys

from deediff.cli.entry import main

sys.exit(main())

"""`python -m kagglehms`."""

import sys

from kagglehms.cli import main

sys.exit(main())

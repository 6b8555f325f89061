"""`python -m kagglehms`."""

import sys

from kagglehms.cli.commands import main

sys.exit(main())

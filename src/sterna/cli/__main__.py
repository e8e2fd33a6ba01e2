"""`python -m sterna.cli`."""

import sys

from sterna.cli.main import main

sys.exit(main())

"""`python -m sterna.server` is `sternad`."""

import sys

from sterna.server.main import main

sys.exit(main())

"""`python -m vila_engine` is the vila-engine command."""

import sys

from vila_engine.cli import main

sys.exit(main())

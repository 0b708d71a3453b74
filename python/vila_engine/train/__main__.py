"""`python -m vila_engine.train STEP RUN`: the same as `vila-engine train STEP RUN`."""

import sys

from .commands import main

if __name__ == "__main__":
    sys.exit(main())

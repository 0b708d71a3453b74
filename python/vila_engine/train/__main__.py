"""`python -m vila_engine.train RUN_DIR`: trains the demo model from the data packages alone, or goes on with it."""

from __future__ import annotations

import argparse
from pathlib import Path

from .stages import run_plan, run_stage


def main() -> None:
    """Runs all stages of `RUN_DIR/plan.json` (written with defaults if missing), or the one that is named."""
    parser = argparse.ArgumentParser(prog="python -m vila_engine.train", description=__doc__)
    parser.add_argument("run", type=Path, help="folder of the run; settings are in its plan.json")
    parser.add_argument("--stage", help="only this stage: vision, language, align, pretrain or sft")
    arguments = parser.parse_args()
    if arguments.stage:
        run_stage(arguments.stage, arguments.run)
    else:
        run_plan(arguments.run)


if __name__ == "__main__":
    main()

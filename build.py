"""Bundle library and weights into dist/: a Kaggle dataset, and the kernels that run it (see kagglehms/deploy/)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from kagglehms.deploy.bundle import build, describe
from kagglehms.errors import EXIT_INTERRUPTED, EXIT_OK, HMSError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code (see kagglehms/errors.py)."""
    parser = argparse.ArgumentParser(prog="build.py", description="Bundle library and weights for Kaggle.")
    parser.add_argument(
        "--runs", type=Path, default=Path("runs"), help="folder of `kagglehms train` (default: runs)"
    )
    parser.add_argument(
        "--dist", type=Path, default=Path("dist"), help="where the result goes (default: dist)"
    )
    parser.add_argument(
        "--recipes", nargs="+", metavar="NAME", help="runs to take, in this order (default: all)"
    )
    parser.add_argument(
        "--folds", nargs="+", type=int, metavar="K", help="folds of each run (default: all finished)"
    )
    parser.add_argument(
        "--owner", metavar="NAME", help="Kaggle user name (default: that of the Kaggle client)"
    )
    parser.add_argument("--blend", metavar="NAME", help="combine recipes by this blend (default: plain mean)")
    given = parser.parse_args(argv)
    try:
        print(
            describe(
                build(given.runs, given.dist, given.recipes, given.folds, given.owner, blend=given.blend)
            )
        )
    except HMSError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; what stood in --dist before is there still, or nothing", file=sys.stderr)
        return EXIT_INTERRUPTED
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())

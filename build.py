"""Bundle library and weights into dist/: a Kaggle dataset, and the kernels that run it (see kagglehms/deploy/)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from kagglehms.deploy.bundle import build, describe
from kagglehms.deploy.push import kaggle, push
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
    parser.add_argument(
        "--push",
        nargs="*",
        metavar="KERNEL",
        help="then check, upload what changed, push these kernels (default: infer; `dataset`: none), wait, fetch",
    )
    parser.add_argument(
        "--no-follow", action="store_true", help="do not wait for the pushed kernels and fetch nothing"
    )
    parser.add_argument(
        "--outputs",
        type=Path,
        default=Path("outputs"),
        help="where outputs are fetched to (default: outputs)",
    )
    parser.add_argument(
        "--session-limit", type=int, metavar="SECONDS", help="Kaggle stops the kernels after so long"
    )
    given = parser.parse_args(argv)
    try:
        print(
            describe(
                build(given.runs, given.dist, given.recipes, given.folds, given.owner, blend=given.blend)
            ),
            flush=True,
        )
        if given.push is not None:
            names = [name for name in given.push or ["infer"] if name != "dataset"]
            push(given.dist, names, kaggle(), given.outputs, not given.no_follow, given.session_limit)
    except HMSError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(
            "interrupted; --dist holds a whole bundle or none, and the same command goes on", file=sys.stderr
        )
        return EXIT_INTERRUPTED
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())

"""Bundle library and weights into dist/: a Kaggle dataset, and the kernels that run it (see kagglehms/rehearsal/)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

try:
    from kagglehms.console import discard_output, open_streams
    from kagglehms.errors import (
        EXIT_FAILURE,
        EXIT_INTERRUPTED,
        EXIT_OK,
        EXIT_OUTPUT_CLOSED,
        HMSError,
        UsageError,
    )
    from kagglehms.kaggle.fetch import make_output_folder
    from kagglehms.kaggle.push import push
    from kagglehms.kaggle.service import kaggle
    from kagglehms.packing.build import build, describe
    from kagglehms.packing.half_precision import HeldOut
except ModuleNotFoundError as error:
    print(f"error: {error.name} is not installed for {sys.executable}; pip install -e .", file=sys.stderr)
    sys.exit(2)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code (see kagglehms/errors.py)."""
    open_streams()
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
    parser.add_argument("--half", action="store_true", help="store weights in half precision")
    parser.add_argument(
        "--data",
        type=Path,
        metavar="FOLDER",
        help="with --half: the competition's folder, to measure the change",
    )
    parser.add_argument("--store", type=Path, metavar="FOLDER", help="with --half: its store, likewise")
    parser.add_argument(
        "--wheels",
        nargs="*",
        metavar="PACKAGE",
        help="bring along what the kernels import and Kaggle's image lacks, and these packages (default: nothing)",
    )
    parser.add_argument(
        "--library-only", action="store_true", help="no weights: what the kernels prepare and train need"
    )
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
        if (given.data is None) != (given.store is None) or (given.store is not None and not given.half):
            raise UsageError(
                "--data and --store belong together, and to --half: they measure what it changes"
            )
        if given.push is not None and not given.no_follow:
            make_output_folder(given.outputs)
        built = build(
            given.runs,
            given.dist,
            given.recipes,
            given.folds,
            given.owner,
            blend=given.blend,
            half=given.half,
            held_out=HeldOut(given.data, given.store) if given.store else None,
            wheels=given.wheels,
            library_only=given.library_only,
        )
        print(describe(built), flush=True)
        if given.push is not None:
            names = [name for name in given.push or ["infer"] if name != "dataset"]
            push(given.dist, names, kaggle(), given.outputs, not given.no_follow, given.session_limit)
    except HMSError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        discard_output()
        return EXIT_OUTPUT_CLOSED
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_FAILURE
    except KeyboardInterrupt:
        print(
            "interrupted; --dist holds a whole bundle or none, and the same command goes on", file=sys.stderr
        )
        return EXIT_INTERRUPTED
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())

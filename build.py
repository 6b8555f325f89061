"""Bundle library and weights for Kaggle: `kagglehms build`, which a checkout need not be installed for."""

from __future__ import annotations

import importlib.util
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `kagglehms build` and return its exit code."""
    try:
        from kagglehms.cli.commands import main as kagglehms
    except ModuleNotFoundError as error:
        print(f"error: {error.name} is not installed for {sys.executable}; pip install -e .", file=sys.stderr)
        return 2
    return kagglehms(["build", *(sys.argv[1:] if arguments is None else arguments)])


def make_package() -> None:
    """Run PyPA's `build`, which `python -m build` means: in this folder Python finds this file instead of it."""
    here = Path(__file__).resolve().parent
    sys.path = [entry for entry in sys.path if Path(entry).resolve() != here]
    found = importlib.util.find_spec("build")
    if (
        found is None or found.submodule_search_locations is None
    ):  # nothing, or the script of another checkout
        sys.exit(f"error: build is not installed for {sys.executable}; pip install build")
    runpy.run_module("build", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    if __spec__ is None:  # run as a script, and not by `python -m`
        sys.exit(main())
    make_package()

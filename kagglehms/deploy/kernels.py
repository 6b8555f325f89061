"""What the scripts in `kernels/` call, once they have made the library of the bundle importable."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

import kagglehms
from kagglehms.deploy.mounts import find_competition
from kagglehms.errors import EXIT_FAILURE, HMSError
from kagglehms.inference.supervisor import supervise
from kagglehms.inference.task import TIME_LIMIT_S, Task

TIME_LIMIT_VARIABLE = "KAGGLEHMS_TIME_LIMIT_S"
"""Environment variable with another limit than a kernel's own, for a rehearsal."""


def infer(root: Path, bundle: Path, digest: str, scratch: Path) -> int:
    """Score the test set of the mounted competition with the models of the mounted bundle.

    Args:
        root: `/kaggle`, or the folder that stands for it in a rehearsal.
        bundle: where the bundle is mounted.
        digest: of the bundle that this kernel was built with; any other is refused.
        scratch: a folder for what is not output.

    Returns:
        0 when nothing failed; what went wrong has been printed. `working/submission.csv` below `root` is the
        output either way, `working/scored-run.json` says what it is made of.
    """
    _say_library()
    try:
        competition = find_competition(root)
        print(f"competition {competition}", flush=True)
        task = Task(
            bundle=str(bundle),
            competition=str(competition),
            out=str(root / "working"),
            digest=digest,
            limit_s=time_limit_s(TIME_LIMIT_S),
            scratch=str(scratch),
        )
        return supervise(task)
    except HMSError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    except Exception:
        traceback.print_exc()
        return EXIT_FAILURE


def time_limit_s(usual_s: float) -> float:
    """Seconds that a kernel gives itself: `usual_s`, or what a rehearsal says."""
    return float(os.environ.get(TIME_LIMIT_VARIABLE) or usual_s)


def _say_library() -> None:
    print(f"kagglehms {kagglehms.__version__} from {Path(kagglehms.__file__).parent}", flush=True)

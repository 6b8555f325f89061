"""What the scripts in `kernels/` call, once they have made the library of the bundle importable."""

from __future__ import annotations

import sys
from pathlib import Path

import kagglehms
from kagglehms.deploy.mounts import find_competition
from kagglehms.errors import HMSError
from kagglehms.inference.manifest import read_manifest, verify


def infer(root: Path, bundle: Path, digest: str) -> int:
    """Score the test set of the mounted competition with the models of the mounted bundle.

    Args:
        root: `/kaggle`, or the folder that stands for it in a rehearsal.
        bundle: where the bundle is mounted.
        digest: of the bundle that this kernel was built with; any other is refused.

    Returns:
        The exit code; what went wrong has been printed as one line. `working/submission.csv` below `root` is
        the output.
    """
    print(f"kagglehms {kagglehms.__version__} from {Path(kagglehms.__file__).parent}", flush=True)
    try:
        manifest = read_manifest(bundle)
        verify(bundle, manifest, digest)
        print(f"bundle {bundle}: {len(manifest.models)} model(s), digest {digest[:12]} verified", flush=True)
        competition = find_competition(root)
        print(f"competition {competition}", flush=True)

        from kagglehms.inference.submission import run_scored  # imports torch: only once all of this holds

        return run_scored(bundle, competition, root / "working")
    except HMSError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_code

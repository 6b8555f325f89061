"""Score the test set offline: submit the sample first, then better predictions with the library in the bundle."""

import contextlib
import os
import sys
import tempfile
import zipfile
from pathlib import Path

OWNER = "your-kaggle-username"  # `kagglehms build` fills in these three
BUNDLE = "kagglehms-bundle"
DIGEST = "0000000000000000000000000000000000000000000000000000000000000000"

root = Path(os.environ.get("KAGGLEHMS_KAGGLE_ROOT", "/kaggle"))  # only a rehearsal names another folder
# /kaggle/working becomes the output, and HOME may be read-only.
scratch = Path(tempfile.mkdtemp(prefix="kagglehms-"))
os.environ["NUMBA_CACHE_DIR"] = str(scratch / "numba")
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"


def unpack_library() -> Path:
    """Make the library in the bundle importable, and return the folder in which the bundle is mounted."""
    # Each place by its name: listing /kaggle/input takes minutes.
    places = [root / "input" / BUNDLE, root / "input/datasets" / OWNER / BUNDLE]
    mounted = [place for place in places if any(place.glob("kagglehms-*.whl"))]
    if not mounted:
        sys.exit(
            f"error: no library in {places[0]} or {places[1]}; add the dataset {OWNER}/{BUNDLE} to the inputs"
        )
    try:
        for wheel in sorted(mounted[0].glob("*.whl")):  # the library, and packages that the image lacks
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(scratch / "library")  # Numba cannot cache code imported from a zip file
    except Exception as error:
        sys.exit(f"error: bad library in {mounted[0]}: {error!r}; upload the bundle again")
    sys.path.insert(0, str(scratch / "library"))
    return mounted[0]


os.environ["HF_HUB_OFFLINE"] = "1"  # a scored kernel has no internet

submission = root / "working/submission.csv"
with contextlib.suppress(OSError):  # no more than a spare, until the library writes a better one
    for pattern in ("input/*/sample_sub*.csv", "input/competitions/*/sample_sub*.csv"):
        for sample in root.glob(pattern):
            submission.write_bytes(sample.read_bytes())

try:
    bundle = unpack_library()
    from kagglehms.kernel.entry import infer

    code = infer(root, bundle, DIGEST, scratch)
except (Exception, SystemExit) as error:
    code = 1
    reason = str(error) if isinstance(error, SystemExit) else f"error: bad library in the bundle: {error!r}"
    with contextlib.suppress(OSError):
        print(reason, file=sys.stderr)
if os.environ.get("KAGGLE_IS_COMPETITION_RERUN") and submission.exists():
    code = 0  # Kaggle throws away the submission of a scored run that ends with any other code
sys.exit(code)

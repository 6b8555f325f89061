"""Train recipes until the session's time is up; the next session continues from the output of this one."""

import os
import sys
import tempfile
import zipfile
from pathlib import Path

OWNER = "your-kaggle-username"  # `kagglehms build` fills in these three
BUNDLE = "kagglehms-bundle"
DIGEST = "0000000000000000000000000000000000000000000000000000000000000000"

RECIPES = ["mosaic-xloss", "mosaic-xloss-stats"]  # any names that `kagglehms ladder` lists, in this order
OPTIONS: dict = {}  # of `kagglehms train`, such as {"epochs": 1, "time_limit": "8h"}

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


os.environ["HF_HUB_OFFLINE"] = "0"  # the first weights come from the hub

bundle = unpack_library()
from kagglehms.kernel.entry import train  # noqa: E402  importable only now

sys.exit(train(root, bundle, DIGEST, scratch, OWNER, RECIPES, OPTIONS))

"""Score the test set offline: submit the sample first, then better predictions with the library in the bundle."""

import contextlib
import hashlib
import io
import json
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


def checked_wheels(place: Path) -> dict[str, bytes]:
    """Return the wheels of the bundle that is mounted in `place`, unless it is not the one this kernel was built with.

    The digest is that of all that the manifest says, but for the commit; see `kagglehms.bundle.manifest`.
    """
    try:
        manifest = json.loads((place / "manifest.json").read_bytes())
        stated = str(manifest.pop("digest"))
        del manifest["library"]["commit"]
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"manifest.json is broken ({error!r:.200})") from error
    if hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest() != DIGEST:
        what = "its manifest was changed" if stated == DIGEST else f"stale version, digest {stated[:12]}"
        raise ValueError(f"{what}; this kernel was built with {DIGEST[:12]}")
    wheels = {
        name: (place / name).read_bytes() for name in (manifest["library"]["wheel"], *manifest["wheels"])
    }
    changed = [
        name
        for name in wheels
        if hashlib.sha256(wheels[name]).hexdigest() != manifest["files"][name]["sha256"]
    ]
    changed += sorted(path.name for path in place.glob("*.whl") if path.name not in wheels)
    if changed:
        raise ValueError(f"not of the manifest: {', '.join(changed)}")
    return wheels


def unpack_library() -> Path:
    """Make the library in the bundle importable, and return the folder in which the bundle is mounted."""
    # Each place by its name: listing /kaggle/input takes minutes.
    places = [root / "input" / BUNDLE, root / "input/datasets" / OWNER / BUNDLE]
    used, refused = None, []
    for place in (place for place in places if any(place.glob("*.whl"))):
        try:
            wheels = checked_wheels(place)  # the library, and packages that the image lacks
            for content in wheels.values() if used is None else ():
                with zipfile.ZipFile(
                    io.BytesIO(content)
                ) as archive:  # Numba cannot cache code inside a zip file
                    archive.extractall(scratch / "library")
            used = used or place
        except Exception as error:
            refused.append(f"bad library in {place}: {error}")
    if used is not None:
        with contextlib.suppress(OSError):
            for reason in refused:
                print(f"note: {reason}; {used} is used", file=sys.stderr)
        sys.path.insert(0, str(scratch / "library"))
        return used
    if refused:
        sys.exit(f"error: {'; '.join(refused)}; upload the bundle again, or push both again")
    sys.exit(
        f"error: no library in {places[0]} or {places[1]}; add the dataset {OWNER}/{BUNDLE} to the inputs"
    )


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

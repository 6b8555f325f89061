"""Decode every recording of the competition once; the store is the output of this kernel."""

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


os.environ["HF_HUB_OFFLINE"] = "1"  # no weights are needed here

bundle = unpack_library()
from kagglehms.kernel.entry import prepare  # noqa: E402  importable only now

sys.exit(prepare(root, bundle, DIGEST))

"""`kagglehms doctor`: what this machine can do and why, and for every problem its cure.

Nothing is changed, nothing is sent anywhere, and of credentials nothing is kept but whether the client can read them.
"""

from __future__ import annotations

import os
import platform
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kagglehms.data.competition import SLUG, Competition, unpacking
from kagglehms.device import choose_device
from kagglehms.environment import available_cpus
from kagglehms.errors import HMSError, UsageError
from kagglehms.kaggle.credentials import credentials
from kagglehms.kaggle.image import kaggle_image
from kagglehms.kernel.mounts import LAYOUTS, competition_mount
from kagglehms.rehearsal.isolation import how_to_allow_namespaces, namespaces_unavailable
from kagglehms.rehearsal.launcher import lacking

if TYPE_CHECKING:
    from packaging.requirements import Requirement

    from kagglehms.data.records import Records

State = Literal["ok", "note", "stop"]
"""`stop` would end a command of the user's; a `note` is worth knowing."""

TABLES = ("train.csv", "test.csv")
PLACES = ("hms", SLUG, "data", "data/hms", f"data/{SLUG}", ".", "demo/competition")
"""Where a download is looked for when nobody says where it is."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: of what.
        state: whether it stops the user.
        finding: what is so, and why.
        cure: what to do about it; empty where nothing needs to be done.
    """

    name: str
    state: State
    finding: str
    cure: str = ""


def diagnose(
    data: Path | None = None,
    store: Path = Path("store"),
    watch: Callable[[Iterable[Any], int], Iterable[Any]] = lambda items, total: items,
) -> list[Check]:
    """Look at everything.

    Args:
        data: the competition's folder; None looks for it.
        store: where `kagglehms prepare` put or will put the store.
        watch: wraps the checks as they are made, given their number, to show progress.
    """
    competition = find_data(data)
    steps: Sequence[Callable[[], Iterable[Check]]] = (
        check_python,
        check_packages,
        check_device,
        check_features,
        lambda: check_data(data, competition),
        lambda: check_store(store, competition),
        check_isolation,
        check_client,
    )
    return [check for step in watch(steps, len(steps)) for check in step()]


def find_data(given: Path | None, here: Path = Path()) -> Path | None:
    """The competition's folder: the one that is given, or the first place that holds one of its tables."""
    mounts = [Path("/kaggle/input") / competition_mount(SLUG, layout) for layout in LAYOUTS]
    places = [given] if given else [*(here / place for place in PLACES), *mounts]
    return next((place for place in places if any((place / name).is_file() for name in TABLES)), None)


def check_python() -> Iterator[Check]:
    image = ", ".join(kaggle_image().python)
    found = (
        f"{platform.python_version()} on {platform.system()} {platform.machine()}, {available_cpus()} cores"
    )
    yield Check("python", "ok", f"{found} (Kaggle's image: {image})")


def check_packages() -> Iterator[Check]:
    """Every package that the project declares: there, new enough, and how it compares with Kaggle's image."""
    image = {name: (p.lowest, p.highest) for name, p in kaggle_image().distributions().items()}
    bad: list[str] = []
    other: list[str] = []
    same: list[str] = []
    for requirement in _requirements():
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            bad.append(f"{requirement} is not installed")
            continue
        if not requirement.specifier.contains(found, prereleases=True):
            bad.append(f"{requirement.name} is {found}, needed is {requirement.specifier}")
        compared = _beside_image(found, *image.get(requirement.name, ("", "")))
        (other if compared else same).append(f"{requirement.name} {found}{compared}")
    if bad:
        yield Check("packages", "stop", "; ".join(bad), "pip install -e . in the project's folder")
    yield Check("packages", "ok", f"{len(same) + len(other)} of the project's packages: {', '.join(same)}")
    if other:
        cure = "nothing, as long as `kagglehms preflight` and the rehearsal pass: no weights depend on it"
        yield Check("other than on Kaggle", "note", ", ".join(other), cure)


def _requirements() -> list[Requirement]:
    from packaging.requirements import Requirement

    parsed = [Requirement(text) for text in requires("kagglehms") or []]
    return [r for r in parsed if r.marker is None or r.marker.evaluate({"extra": ""})]


def _beside_image(found: str, lowest: str, highest: str) -> str:
    """How a version differs from those of the image, in words; empty where it does not or none was noted."""
    from packaging.version import Version

    if not lowest or Version(lowest) <= Version(found) <= Version(highest):
        return ""
    return f" (there {lowest}–{highest})" if lowest != highest else f" (there {lowest})"


def check_device() -> Iterator[Check]:
    try:
        device = choose_device()
    except Exception as error:  # a driver that does not fit can raise almost anything
        cure = "install a torch that fits this machine: https://pytorch.org/get-started/locally"
        yield Check("device", "stop", f"torch fails ({type(error).__name__}: {error})", cure)
        return
    finding = device.reason.removeprefix("device: ")
    cure = (
        "train the small backbones here and the large ones on Kaggle or another GPU"
        if device.name == "cpu"
        else ""
    )
    yield Check("device", "note" if cure else "ok", f"{finding}; dtype {device.amp or 'float32'}", cure)


def check_features() -> Iterator[Check]:
    """Compute one mel image, and see whether compiled code did it."""
    import numpy as np

    try:
        from kagglehms.features import PlainPathWarning, mel_images
    except HMSError as error:  # a setting with which Numba cannot be imported
        yield Check("features", "stop", str(error), "correct the variable, or unset it")
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        images = mel_images(np.zeros((1, 10_000, 20), np.float32))
    plain = [str(w.message) for w in caught if issubclass(w.category, PlainPathWarning)]
    if not np.isfinite(images).all():
        yield Check(
            "features", "stop", "a mel image is not finite", "pip install -e . in the project's folder"
        )
    elif plain:
        yield Check(
            "features", "note", f"plain NumPy, many times slower: {plain[0]}", "pip install 'numba>=0.60'"
        )
    else:
        yield Check("features", "ok", "compiled by Numba for this processor")


def check_data(given: Path | None, found: Path | None) -> Iterator[Check]:
    get = f"kaggle competitions download -c {SLUG} && unzip -q {SLUG}.zip -d hms"
    if found is None:
        if given is not None:
            state = "has no train.csv and no test.csv" if given.is_dir() else "no such folder"
            cure = unpacking(given / "train.csv", given) or f"give the unpacked download, or get it: {get}"
            yield Check("data", "stop", f"{given}: {state}", cure)
        else:
            finding = (
                f"none found (looked in {', '.join(PLACES)} and /kaggle/input); `kagglehms demo` needs none"
            )
            yield Check("data", "note", finding, f"{get}; then --data hms")
        return
    try:
        yield from _check_tables(Competition(found))
    except HMSError as error:
        yield Check("data", "stop", str(error), "download it again, or give another --data")


def _check_tables(competition: Competition) -> Iterator[Check]:
    where = competition.root
    missing_tables = [name for name in TABLES if not (where / name).is_file()]
    if missing_tables:
        yield Check(
            "data",
            "note",
            f"{where}: lacks {', '.join(missing_tables)}",
            unpacking(where / missing_tables[0], where) or "unpack the whole download",
        )
    if not competition.train_csv.is_file():
        return
    records = _records(competition)
    wanted = [competition.eeg(i) for i in sorted(set(records.eeg_ids.tolist()))]
    wanted += [competition.spectrogram(i) for i in sorted(set(records.spectrogram_ids.tolist()))]
    missing = [path for path in wanted if not path.is_file()]
    if missing:
        finding = f"{where}: {len(missing)} of {len(wanted)} recordings of train.csv are missing, first {missing[0]}"
        yield Check("data", "stop", finding, "the download is not complete: unpack it again")
    else:
        yield Check(
            "data", "ok", f"{where}: {len(records):,} records, {len(wanted):,} recordings, none missing"
        )


def _records(competition: Competition) -> Records:
    from kagglehms.data.records import read_records

    return read_records(competition.train_csv)


def check_store(store: Path, data: Path | None) -> Iterator[Check]:
    from kagglehms.data.store import INDEX, JOURNAL, Store

    make = f"kagglehms prepare --data {data or 'hms'} --store {store}"
    needed = _recordings_bytes(data) if data else 0
    if (store / INDEX).is_file():
        try:
            opened = Store(store)
        except HMSError as error:
            yield Check("store", "stop", str(error), f"delete {store}, then {make}")
            return
        held = f"{len(opened.entries):,} recordings, fingerprint {opened.fingerprint[:12]}"
        yield Check("store", "ok", f"{store}: {held}")
        needed = 0
    elif (store / JOURNAL).is_file():
        yield Check("store", "note", f"{store}: unfinished", f"{make} (it goes on where it stopped)")
    else:
        yield Check("store", "note", f"{store}: none yet", make if data else f"with the data at hand: {make}")
    free = shutil.disk_usage(_existing(store)).free
    finding = f"{_size(free)} free at {_existing(store).resolve()}"
    if needed > free:
        cure = "free space, or give a --store on another disk"
        yield Check("disk", "stop", f"{finding}; the store needs up to {_size(needed)}", cure)
    else:
        more = f"; the store needs up to {_size(needed)}" if needed else ""
        yield Check("disk", "ok", f"{finding}{more}")


def _recordings_bytes(data: Path) -> int:
    """Bytes of the training recordings: half precision takes no more than the packed files do."""
    folders = (data / "train_eegs", data / "train_spectrograms")
    entries = (entry for folder in folders if folder.is_dir() for entry in os.scandir(folder))
    return sum(entry.stat().st_size for entry in entries if entry.is_file())  # no link without a target


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.1f} MB"


def _existing(path: Path) -> Path:
    return next(parent for parent in (path, *path.absolute().parents) if parent.exists())


def check_isolation() -> Iterator[Check]:
    """Run `true` as a rehearsal would run a kernel."""
    if missing := lacking():
        finding = f"none on {platform.system()}, whose Python lacks {missing}"
        yield Check(
            "rehearsal", "note", finding, "rehearse on Linux or macOS, or in the Windows Subsystem for Linux"
        )
        return
    why_not = namespaces_unavailable()
    if why_not is None:
        finding = "namespaces: a rehearsal has a real /kaggle, read-only input and no network"
        yield Check("rehearsal", "ok", finding)
    else:
        cure = f"nothing: the weaker guard is used; or {how_to_allow_namespaces()}"
        yield Check("rehearsal", "note", f"no namespaces here ({why_not})", cure)


def check_client() -> Iterator[Check]:
    """The Kaggle client and whether it can use the credentials that are there. What they are is nobody's concern."""
    from kagglehms.kaggle.stamping import PLACEHOLDER_OWNER, find_owner

    create = "https://www.kaggle.com/settings → API → Create New Token, put into ~/.kaggle"
    found = credentials()
    usable, broken = ([one for one in found if bool(one.fault) is wrong] for wrong in (False, True))
    for one in broken:
        cure = f"save it as UTF-8 without a byte order mark, or make a new one: {create}"
        yield Check("credentials", "note" if usable else "stop", f"{one.place} {one.fault}", cure)
    if not found:
        yield Check("credentials", "note", "none: nothing can be downloaded or pushed", create)
    if not usable:
        return
    try:
        owner, _ = find_owner()
    except UsageError as error:
        yield Check("credentials", "stop", str(error), create)
        return
    known = "" if owner == PLACEHOLDER_OWNER else f", user {owner}"
    yield Check("credentials", "ok", f"present in {', '.join(one.place for one in usable)}{known}")
    for path in [one.path for one in usable if one.path is not None]:
        if os.name == "posix" and path.stat().st_mode & 0o077:
            yield Check("credentials", "note", f"{path} can be read by others", f"chmod 600 {path}")

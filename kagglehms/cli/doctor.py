"""Check what this machine can do, and say why, and what to do about what it cannot: `kagglehms doctor`.

Nothing is changed, nothing is sent anywhere, and all that is kept of credentials is whether the client can read them.
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

from kagglehms.cli.data_folder import DOWNLOAD, PLACES, TABLES, find_data, named_data
from kagglehms.data.competition import Competition, unpacking
from kagglehms.device import choose_device
from kagglehms.environment import available_cpus
from kagglehms.errors import HMSError, UsageError
from kagglehms.kaggle.credentials import credentials
from kagglehms.kaggle.image import kaggle_image
from kagglehms.rehearsal.isolation import how_to_allow_namespaces, namespaces_unavailable
from kagglehms.rehearsal.launcher import lacking

if TYPE_CHECKING:
    from packaging.requirements import Requirement

    from kagglehms.kaggle.credentials import Found

State = Literal["ok", "note", "stop"]
"""`stop` would end a command in an error; a `note` is worth knowing."""

_INSTALL = "install the project again: pip install -e . in its folder"
_NEW_TOKEN = "`kaggle auth login`, or a token of https://www.kaggle.com/settings in ~/.kaggle"


@dataclass(frozen=True)
class Check:
    """One check of the machine.

    Attributes:
        name: what was checked.
        state: whether it would end a command in an error.
        finding: what was found, and why.
        fix: what to do about it; empty where nothing needs to be done.
    """

    name: str
    state: State
    finding: str
    fix: str = ""


def diagnose(
    data: Path | None = None,
    store: Path = Path("store"),
    watch: Callable[[Iterable[Any], int], Iterable[Any]] = lambda items, total: items,
) -> list[Check]:
    """Make all checks.

    Args:
        data: the competition's folder; None looks for it, see `find_data`.
        store: folder of the store, made or to be made.
        watch: function that wraps the checks as they are made, given their number, to show progress.
    """
    named, found = named_data(data), find_data(data)
    steps: Sequence[Callable[[], Iterable[Check]]] = (
        check_python,
        check_packages,
        check_device,
        check_features,
        lambda: check_data(named, found),
        lambda: check_store(store, found),
        lambda: check_disk(store, found),
        check_isolation,
        check_credentials,
    )
    return [check for step in watch(steps, len(steps)) for check in step()]


# Software


def check_python() -> Iterator[Check]:
    """Compare the version of Python with those of Kaggle's image."""
    image = ", ".join(kaggle_image().python)
    machine = f"{platform.system()} {platform.machine()}, {available_cpus()} cores"
    yield Check("python", "ok", f"{platform.python_version()} on {machine} (Kaggle's image: {image})")


def check_packages() -> Iterator[Check]:
    """Check that every package of the project is there and new enough, and compare it with Kaggle's image."""
    bad: list[str] = []
    same: list[str] = []
    other: list[str] = []
    for requirement in _requirements():
        problem, found = _installed(requirement)
        if problem:
            bad.append(problem)
            continue
        difference = _difference_from_image(requirement.name, found)
        (other if difference else same).append(f"{requirement.name} {found}{difference}")
    if bad:
        yield Check("packages", "stop", "; ".join(bad), _INSTALL)
    yield Check("packages", "ok", f"{len(same) + len(other)} of the project's packages: {', '.join(same)}")
    if other:
        fix = "nothing, as long as `kagglehms preflight` and the rehearsal pass: no weights depend on it"
        yield Check("other than on Kaggle", "note", ", ".join(other), fix)


def _requirements() -> list[Requirement]:
    from packaging.requirements import Requirement

    parsed = [Requirement(text) for text in requires("kagglehms") or []]
    return [r for r in parsed if r.marker is None or r.marker.evaluate({"extra": ""})]


def _installed(requirement: Requirement) -> tuple[str, str]:
    """Return what is wrong with a package, or nothing, and its version."""
    try:
        found = version(requirement.name)
    except PackageNotFoundError:
        return f"{requirement} is not installed", ""
    if requirement.specifier.contains(found, prereleases=True):
        return "", found
    return f"{requirement.name} is {found}, needed is {requirement.specifier}", found


def _difference_from_image(name: str, found: str) -> str:
    """Return in words how a version differs from those of the image; empty if it does not or none is known."""
    from packaging.version import Version

    package = kaggle_image().distributions().get(name)
    if package is None or not package.lowest:
        return ""
    lowest, highest = package.lowest, package.highest
    if Version(lowest) <= Version(found) <= Version(highest):
        return ""
    return f" (there {lowest}–{highest})" if lowest != highest else f" (there {lowest})"


# Computing


def check_device() -> Iterator[Check]:
    """Choose the device as training would."""
    try:
        device = choose_device()
    except Exception as error:  # a driver that does not fit can raise almost anything
        fix = "install a torch that fits this machine: https://pytorch.org/get-started/locally"
        yield Check("device", "stop", f"torch fails ({type(error).__name__}: {error})", fix)
        return
    finding = f"{device.reason.removeprefix('device: ')}; dtype {device.amp or 'float32'}"
    if device.name == "cpu":
        fix = "train the small backbones here and the large ones on Kaggle or another GPU"
        yield Check("device", "note", finding, fix)
    else:
        yield Check("device", "ok", finding)


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
        yield Check("features", "stop", "a mel image is not finite", _INSTALL)
    elif plain:
        finding = f"plain NumPy, many times slower: {plain[0]}"
        yield Check("features", "note", finding, "pip install 'numba>=0.60'")
    else:
        yield Check("features", "ok", "compiled by Numba for this processor")


# Data


def check_data(named: Path | None, found: Path | None) -> Iterator[Check]:
    """Check the competition's tables, and that all recordings are there.

    Args:
        named: folder that `--data` or KAGGLEHMS_DATA names.
        found: the same folder if it holds a table; where none is named, one that was found.
    """
    if found is not None:
        try:
            yield from _check_competition(Competition(found))
        except HMSError as error:
            yield Check("data", "stop", str(error), "download it again, or give another --data")
    elif named is not None:
        state = "has no train.csv and no test.csv" if named.is_dir() else "no such folder"
        fix = unpacking(named / "train.csv", named) or f"give the unpacked download, or get it: {DOWNLOAD}"
        yield Check("data", "stop", f"{named}: {state}", fix)
    else:
        finding = f"none found (looked in {', '.join(PLACES)} and /kaggle/input); `kagglehms demo` needs none"
        yield Check("data", "note", finding, DOWNLOAD)


def _check_competition(competition: Competition) -> Iterator[Check]:
    where = competition.root
    absent = [name for name in TABLES if not (where / name).is_file()]
    if absent:
        fix = unpacking(where / absent[0], where) or "unpack the whole download"
        yield Check("data", "note", f"{where}: lacks {', '.join(absent)}", fix)
    if competition.train_csv.is_file():
        yield _check_recordings(competition)


def _check_recordings(competition: Competition) -> Check:
    from kagglehms.data.records import read_records

    records = read_records(competition.train_csv)
    wanted = [competition.eeg(i) for i in sorted(set(records.eeg_ids.tolist()))]
    wanted += [competition.spectrogram(i) for i in sorted(set(records.spectrogram_ids.tolist()))]
    missing = [path for path in wanted if not path.is_file()]
    if not missing:
        held = f"{len(records):,} records, {len(wanted):,} recordings, none missing"
        return Check("data", "ok", f"{competition.root}: {held}")
    count = f"{len(missing)} of {len(wanted)} recordings of train.csv are missing, first {missing[0]}"
    return Check(
        "data", "stop", f"{competition.root}: {count}", "the download is not complete: unpack it again"
    )


def check_store(store: Path, data: Path | None) -> Iterator[Check]:
    """Read the store, if there is one, and compare its checksums."""
    from kagglehms.data.store import INDEX, JOURNAL, Store

    make = f"kagglehms prepare --data {data or 'hms'} --store {store}"
    if (store / INDEX).is_file():
        try:
            opened = Store(store)
            opened.verify()
        except HMSError as error:
            yield Check("store", "stop", " ".join(str(error).split()), f"delete {store}, then {make}")
            return
        held = (
            f"{len(opened.entries):,} recordings, all checksums right, fingerprint {opened.fingerprint[:12]}"
        )
        yield Check("store", "ok", f"{store}: {held}")
    elif (store / JOURNAL).is_file():
        yield Check("store", "note", f"{store}: unfinished", f"{make} (it continues where it stopped)")
    else:
        fix = make if data else f"once the data are there: {make}"
        yield Check("store", "note", f"{store}: none yet", fix)


def check_disk(store: Path, data: Path | None) -> Iterator[Check]:
    """Check that the disk has room for the store, unless it is finished."""
    from kagglehms.data.store import INDEX

    needed = 0 if data is None or (store / INDEX).is_file() else _recordings_bytes(data)
    folder = next(path for path in (store, *store.absolute().parents) if path.exists())
    free = shutil.disk_usage(folder).free
    finding = f"{_size(free)} free at {folder.resolve()}"
    finding += f"; the store needs up to {_size(needed)}" if needed else ""
    if needed > free:
        yield Check("disk", "stop", finding, "free space, or give a --store on another disk")
    else:
        yield Check("disk", "ok", finding)


def _recordings_bytes(data: Path) -> int:
    """Return the bytes of the training recordings: half precision takes no more than the packed files do."""
    folders = (data / "train_eegs", data / "train_spectrograms")
    entries = (entry for folder in folders if folder.is_dir() for entry in os.scandir(folder))
    return sum(entry.stat().st_size for entry in entries if entry.is_file())  # no link without a target


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.1f} MB"


# Kaggle


def check_isolation() -> Iterator[Check]:
    """Check how a rehearsal can be isolated."""
    if missing := lacking():
        finding = f"none on {platform.system()}, whose Python lacks {missing}"
        fix = "rehearse on Linux or macOS, or in the Windows Subsystem for Linux"
        yield Check("rehearsal", "note", finding, fix)
        return
    why_not = namespaces_unavailable()
    if why_not is None:
        finding = "namespaces: a rehearsal has a real /kaggle, read-only input and no network"
        yield Check("rehearsal", "ok", finding)
    else:
        fix = f"nothing: the weaker guard is used; or {how_to_allow_namespaces()}"
        yield Check("rehearsal", "note", f"no namespaces here ({why_not})", fix)


def check_credentials() -> Iterator[Check]:
    """Check whether the Kaggle client can use the credentials that are there, without looking at what they are."""
    found = credentials()
    usable = [one for one in found if not one.fault]
    for one in found:
        if one.fault:
            fix = f"save it as UTF-8 without a byte order mark, or make a new one: {_NEW_TOKEN}"
            yield Check("credentials", "note" if usable else "stop", f"{one.place} {one.fault}", fix)
    if not found:
        yield Check("credentials", "note", "none: nothing can be downloaded or pushed", _NEW_TOKEN)
    if usable:
        yield from _check_usable(usable)


def _check_usable(usable: Sequence[Found]) -> Iterator[Check]:
    from kagglehms.kaggle.stamping import PLACEHOLDER_OWNER, find_owner

    try:
        owner, _ = find_owner()
    except UsageError as error:
        yield Check("credentials", "stop", str(error), _NEW_TOKEN)
        return
    user = "" if owner == PLACEHOLDER_OWNER else f", user {owner}"
    yield Check("credentials", "ok", f"present in {', '.join(one.place for one in usable)}{user}")
    for path in [one.path for one in usable if one.path is not None]:
        if os.name == "posix" and path.stat().st_mode & 0o077:
            yield Check("credentials", "note", f"{path} can be read by others", f"chmod 600 {path}")

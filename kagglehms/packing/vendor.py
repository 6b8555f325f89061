"""Fetches wheels of packages that Kaggle's image lacks into the bundle; the project's own kernels need none.

pip fetches them for the Python and the platform of the image in use, whatever runs here, and they are held to its
versions: the highest recorded, since the older ones are its predecessor's, for which wheels of another Python would be
needed. Their requirements are followed here instead of by pip's resolver, so that packages of the image are never
added and torch is never replaced.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from email.parser import Parser
from pathlib import Path
from typing import TYPE_CHECKING

from kagglehms.environment import CHILDREN_PRINT, safe_environment
from kagglehms.errors import RunError, UsageError
from kagglehms.kaggle.image import Image, kaggle_image
from kagglehms.kaggle.scripts import LIBRARY, Wheel, reached, read_wheel

if TYPE_CHECKING:
    from packaging.requirements import Requirement

_PIP_S = 900.0
_MOST_VERSIONS = 10
"""Versions of a package that are tried until one fits the image."""


def lacking(scripts: Sequence[Path], library: Wheel) -> list[str]:
    """Return the distributions that the kernels import but the image lacks.

    Args:
        scripts: files of the kernels' scripts.
        library: wheel of the library, whose imports count as the scripts' own.
    """
    image = kaggle_image()
    names = {name for script in scripts for name in reached(script.read_text(encoding="utf-8"), library)}
    return sorted(image.absent.get(name, name) for name in names if name not in image.packages)


def vendor(requirements: Sequence[str], folder: Path) -> list[Path]:
    """Fetch wheels, and those that they require and the image lacks.

    Args:
        requirements: requirements as pip takes them, such as `tyro==1.0.1`; with a version the build is reproducible.
        folder: empty folder for the wheels.

    Returns:
        Paths of the wheels.

    Raises:
        UsageError: a text is not a requirement, or a package of the image would be replaced that must not be.
        RunError: no wheel fits the image, or every version of a package requires what the image contradicts.
    """
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    image = kaggle_image()
    try:
        waiting = [(Requirement(text), "--wheels") for text in requirements]
    except InvalidRequirement as error:
        raise UsageError(f"--wheels: {error}; write names as pip takes them, such as tyro==1.0.1") from error
    done: dict[str, Path] = {}
    while waiting:
        wanted, asked_by = waiting.pop(0)
        name = canonicalize_name(wanted.name)
        if name == LIBRARY or name in done or (asked_by != "--wheels" and _on_image(wanted, asked_by, image)):
            continue
        if name in image.never_replace:
            raise UsageError(f"{asked_by} wants {wanted}, which would replace the image's own; do without it")
        done[name], needs = _fitting(wanted, folder, image)
        waiting += [(needed, done[name].name) for needed in needs]
    return sorted(done.values())


def _fitting(wanted: Requirement, folder: Path, image: Image) -> tuple[Path, list[Requirement]]:
    """Fetch the newest wheel whose own requirements the image does not contradict, and return it with these.

    Raises:
        RunError: no wheel fits; the message is about the newest, or about the only one that may be chosen.
    """
    from packaging.specifiers import SpecifierSet

    first: RunError | None = None
    for _ in range(_MOST_VERSIONS):
        try:
            wheel = _download(wanted, folder, image)
        except RunError as error:
            raise first or error from error
        needs = _needs(wheel, wanted, image)
        try:
            for needed in needs:
                _on_image(needed, wheel.name, image)
        except RunError as error:
            first = first or error
            wanted.specifier &= SpecifierSet(f"!={wheel.name.split('-')[1]}")
            wheel.unlink()
            continue
        return wheel, needs
    assert first is not None
    raise first


def _on_image(wanted: Requirement, asked_by: str, image: Image) -> bool:
    """Return whether the image has a package that a wheel requires.

    Raises:
        RunError: the image has it in a version that does not fit; two versions cannot be installed side by side.
    """
    from packaging.utils import canonicalize_name

    package = image.distributions().get(canonicalize_name(wanted.name))
    if package is None:
        return False
    if package.highest and not wanted.specifier.contains(package.highest):
        raise RunError(
            f"{asked_by} wants {wanted}, and the image has {package.highest}; choose another version of it"
        )
    return True


def _download(wanted: Requirement, folder: Path, image: Image) -> Path:
    before = set(folder.glob("*.whl"))
    command = [
        sys.executable,
        "-P",
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-input",
    ]
    command += [
        "--no-deps",
        "--only-binary=:all:",
        "--implementation",
        "cp",
        "--python-version",
        image.python[0],
    ]
    command += [word for platform in image.platforms for word in ("--platform", platform)]
    command += ["--dest", str(folder), str(wanted)]
    try:
        run = subprocess.run(
            command, env=safe_environment() | CHILDREN_PRINT, capture_output=True, encoding="utf-8", errors="replace",
            timeout=_PIP_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RunError(f"{wanted}: pip did not fetch a wheel ({error}); try again") from error
    new = set(folder.glob("*.whl")) - before
    if run.returncode or len(new) != 1:
        said = [line for line in run.stderr.splitlines() if line.startswith("ERROR")] or ["it fetched none"]
        raise RunError(
            f"{wanted}: no wheel for Python {image.python[0]} on {image.platforms[0]} ({said[-1]}); name another "
            "version, or do without it"
        )
    return new.pop()


def _needs(wheel: Path, wanted: Requirement, image: Image) -> list[Requirement]:
    """Return the requirements of a wheel that apply on the image."""
    from packaging.markers import default_environment
    from packaging.requirements import Requirement

    python = image.python[0]
    environment: dict[str, str] = {name: str(value) for name, value in default_environment().items()}
    environment |= {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "sys_platform": "linux",
        "os_name": "posix",
    }
    listed = Parser().parsestr(read_wheel(wheel).metadata).get_all("Requires-Dist", [])
    needed = []
    for item in map(Requirement, listed):
        marker, item.marker = (
            item.marker,
            None,
        )  # evaluated here, because pip would evaluate it without the extra
        extras = ("", *wanted.extras)
        if marker is None or any(marker.evaluate(environment | {"extra": extra}) for extra in extras):
            needed.append(item)
    return needed

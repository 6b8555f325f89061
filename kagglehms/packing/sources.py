"""Find what a bundle is built from: the project's checkout, or what an installed wheel brought along."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path

import kagglehms
from kagglehms.bundle.manifest import CARD
from kagglehms.errors import RunError
from kagglehms.packing.wheel import build_wheel, read_project, repack_wheel

KERNEL_SCRIPTS = "kernel_scripts"
"""Folder of the installed package that holds what the checkout has in `kernels/`, and the card."""


@dataclass(frozen=True)
class Sources:
    """What a bundle is built from.

    Attributes:
        kernels: folder of the kernels' templates, a folder a kernel.
        card: template of the bundle's card.
        license: the project's license.
        checkout: folder of the checkout; None where the library was installed from a wheel.
    """

    kernels: Path
    card: Path
    license: Path
    checkout: Path | None

    def wheel(self) -> tuple[str, bytes]:
        """Return name and content of the library's wheel.

        Raises:
            RunError: see `build_wheel` and `repack_wheel`.
        """
        return build_wheel(self.checkout) if self.checkout is not None else repack_wheel(_installed())

    def commit(self) -> str | None:
        """Return the commit of the sources, with `-dirty` after it if they were changed; None if git cannot say."""
        if self.checkout is None or not (self.checkout / ".git").exists():
            return None
        describe = ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        environment = os.environ | {"GIT_OPTIONAL_LOCKS": "0"}  # look, and leave the index as it is
        try:
            found = subprocess.run(
                ["git", "-C", str(self.checkout), *describe],
                capture_output=True,
                text=True,
                env=environment,
                timeout=30,
                check=True,
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return found.stdout.strip() or None


def find_sources(root: Path | None = None) -> Sources:
    """Return the sources of the running library.

    Args:
        root: a checkout; None takes what was installed with the library, or else the checkout that it runs from.

    Raises:
        RunError: there is no checkout of this version, and the library was not installed from a wheel.
    """
    package = Path(kagglehms.__file__).resolve().parent
    scripts = package / KERNEL_SCRIPTS
    if root is None and scripts.is_dir():
        licenses = [path for path in _installed().files or () if path.name == "LICENSE"]
        return Sources(scripts, scripts / CARD, Path(str(licenses[0].locate())), None)
    root = root or package.parent
    read_project(root)
    return Sources(root / "kernels", root / CARD, root / "LICENSE", root)


def _installed() -> Distribution:
    """Return the distribution that the running library belongs to: there can be another one on the path."""
    running = Path(kagglehms.__file__).resolve()
    for distribution in distributions(name="kagglehms"):
        if Path(str(distribution.locate_file("kagglehms/__init__.py"))).resolve() == running:
            return distribution
    raise RunError(f"{running.parent}: was not installed from a wheel; install it with pip")

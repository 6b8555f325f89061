"""Packs the library as a wheel whose bytes depend only on the sources.

A build tool's wheel also depends on its own release and on the zlib that compresses it (see docs/architecture.md).
Kaggle leaves wheels packed, pip installs them, and the kernel unpacks them, so one small file carries the library.

Source of the format: https://packaging.python.org/en/latest/specifications/binary-distribution-format/
"""

from __future__ import annotations

import base64
import hashlib
import io
import tomllib
import zipfile
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any

import kagglehms
from kagglehms.errors import RunError

_LEFT_OUT = {"__pycache__", ".pyc", ".pyo", ".nbi", ".nbc"}
"""Folders and endings of files that running the library leaves among its sources."""
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip file can hold."""
_MODE = 0o100644 << 16


def wheel_name(version: str) -> str:
    """Return the wheel's file name, from which pip takes name, version and platform."""
    return f"kagglehms-{version}-py3-none-any.whl"


def build_wheel(root: Path) -> tuple[str, bytes]:
    """Pack the library of a checkout.

    Args:
        root: folder of the checkout, with pyproject.toml, LICENSE and the package.

    Returns:
        Name and content of the wheel.

    Raises:
        RunError: the folder is not a checkout, or one of another version than the running library.
    """
    project = read_project(root)
    version = project["version"]
    info = f"kagglehms-{version}.dist-info"
    members = {path.relative_to(root).as_posix(): path.read_bytes() for path in package_files(root)}
    members[f"{info}/METADATA"] = _metadata(project).encode()
    members[f"{info}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: kagglehms\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    members[f"{info}/entry_points.txt"] = _entry_points(project).encode()
    members[f"{info}/licenses/LICENSE"] = (root / "LICENSE").read_bytes()
    members[f"{info}/RECORD"] = _record(members, f"{info}/RECORD").encode()
    return wheel_name(version), _zip(members)


def repack_wheel(installed: Distribution) -> tuple[str, bytes]:
    """Pack the library again from the files that were installed.

    Args:
        installed: distribution of the library.

    Returns:
        Name and content of the wheel.

    Raises:
        RunError: an installed file has been deleted.
    """
    info = f"kagglehms-{installed.version}.dist-info"
    of_the_installer = {f"{info}/{name}" for name in ("INSTALLER", "RECORD", "REQUESTED", "direct_url.json")}
    members: dict[str, bytes] = {}
    for file in sorted(installed.files or (), key=str):
        name = file.as_posix()
        in_the_wheel = name.startswith(("kagglehms/", f"{info}/")) and name not in of_the_installer
        if not in_the_wheel or file.suffix in _LEFT_OUT:
            continue
        path = Path(str(file.locate()))
        try:
            members[name] = path.read_bytes()
        except OSError as error:
            raise RunError(f"{path}: cannot be read ({error.strerror}); install the library again") from error
    members[f"{info}/RECORD"] = _record(members, f"{info}/RECORD").encode()
    return wheel_name(installed.version), _zip(members)


def read_project(root: Path) -> dict[str, Any]:
    """Return the `[project]` table of the checkout at `root`.

    Raises:
        RunError: see `build_wheel`.
    """
    path = root / "pyproject.toml"
    if (
        not path.is_file()
        or not (root / "kagglehms" / "__init__.py").is_file()
        or not (root / "LICENSE").is_file()
    ):
        raise RunError(
            f"{root}: is not a checkout of kagglehms; install it from its checkout with `pip install -e .`"
        )
    project: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
    if project["version"] != kagglehms.__version__:
        raise RunError(
            f"{path}: version {project['version']}, but the library that runs is {kagglehms.__version__}"
            f" ({kagglehms.__file__}); give both the same"
        )
    return project


def package_files(root: Path) -> list[Path]:
    """Return the package's files below `root`, without those that running it has left there."""
    paths = (path for path in sorted((root / "kagglehms").rglob("*")) if path.is_file())
    return [
        path
        for path in paths
        if path.suffix not in _LEFT_OUT
        and not any(part in _LEFT_OUT or part.startswith(".") for part in path.relative_to(root).parts)
    ]


def _metadata(project: dict[str, Any]) -> str:
    lines = [
        "Metadata-Version: 2.4",
        f"Name: {project['name']}",
        f"Version: {project['version']}",
        f"Summary: {project['description']}",
        f"License-Expression: {project['license']}",
        "License-File: LICENSE",
        f"Requires-Python: {project['requires-python']}",
        *(f"Requires-Dist: {requirement}" for requirement in project["dependencies"]),
    ]
    return "\n".join(lines) + "\n"


def _entry_points(project: dict[str, Any]) -> str:
    return "\n".join(
        ["[console_scripts]", *(f"{name} = {where}" for name, where in project["scripts"].items()), ""]
    )


def _record(members: dict[str, bytes], own_name: str) -> str:
    lines = [f"{name},sha256={_urlsafe_sha256(content)},{len(content)}" for name, content in members.items()]
    return "\n".join([*lines, f"{own_name},,", ""])


def _urlsafe_sha256(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def _zip(members: dict[str, bytes]) -> bytes:
    """Pack `members` in the given order, uncompressed, because compressed bytes depend on zlib."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system = 3
            entry.external_attr = _MODE
            archive.writestr(entry, content)
    return buffer.getvalue()

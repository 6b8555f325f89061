"""The machine that a kernel is rehearsed on: Kaggle's folders, the inputs as it mounts them, its environment."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from kagglehms.environment import CHILDREN_PRINT
from kagglehms.files import home
from kagglehms.kaggle.credentials import secret_files
from kagglehms.kaggle.image import kaggle_image
from kagglehms.kernel import protocol, training_session
from kagglehms.kernel.entry import TIME_LIMIT_VARIABLE
from kagglehms.kernel.mounts import ROOT_VARIABLE
from kagglehms.rehearsal import guard
from kagglehms.rehearsal.launching import inherited
from kagglehms.rehearsal.links import OWN_FOLDERS, folders_to_keep, resolve_links
from kagglehms.rehearsal.spec import Bind, Spec
from kagglehms.rehearsal.staged_kernel import StagedKernel

Isolation = Literal["namespaces", "guard"]
WITNESS = "kagglehms-rehearsal-witness.json"

_GUARD_FOLDER = "lib/kagglehms-rehearsal"


@dataclass(frozen=True)
class Budget:
    """What a session may use.

    Attributes:
        time_limit_s: seconds after which the session is killed; None for Kaggle's limit, which the kernel knows.
        disk_bytes: size that /kaggle/working must not exceed.
    """

    time_limit_s: float | None = None
    disk_bytes: int = 20 * 10**9


def lay_out(stage: Path, kernel: StagedKernel, isolation: Isolation, budget: Budget) -> Spec:
    """Make the folders of `/kaggle` below `stage`.

    Args:
        stage: new folder.
        kernel: the kernel and its inputs.
        isolation: how the kernel is kept from the rest of the machine.
        budget: time and disk that it may use.

    Returns:
        How to run the kernel in these folders.
    """
    tree, temporary, view = stage / "kaggle", stage / "tmp", stage / "view"
    for folder in (tree / "src", tree / "input", tree / "working", tree / _GUARD_FOLDER, temporary, view):
        folder.mkdir(parents=True)
    shutil.copyfile(kernel.script, tree / "src/script.py")
    shutil.copyfile(guard.__file__, tree / _GUARD_FOLDER / "sitecustomize.py")
    if isolation == "guard":
        _link_inputs(tree, kernel)
        return _spec(tree, temporary, kernel, budget, _guarded(tree, temporary))
    resolved, targets = resolve_links(kernel.inputs, stage / "resolved")
    isolated = _spec(Path("/kaggle"), Path("/tmp"), kernel, budget, {"HOME": "/nonexistent"})
    return replace(
        isolated,
        new_root=str(view),
        binds=tuple(_binds(tree, temporary, replace(kernel, inputs=resolved))),
        kept=tuple(sorted({*_interpreter_to_keep(), *folders_to_keep(targets)})),
        hidden=tuple(_to_hide()),
    )


def _spec(root: Path, temporary: Path, kernel: StagedKernel, budget: Budget, further: dict[str, str]) -> Spec:
    """Return how to run a kernel that finds `/kaggle` at `root` and `/tmp` at `temporary`."""
    return Spec(
        argv=[sys.executable, str(root / "src/script.py")],
        environment=_environment(root, temporary, kernel, budget) | further,
        folder=str(root / "working"),
        timeout_s=_kaggles_limit_s(kernel) if budget.time_limit_s is None else budget.time_limit_s,
        disk_bytes=budget.disk_bytes,
    )


def _environment(root: Path, temporary: Path, kernel: StagedKernel, budget: Budget) -> dict[str, str]:
    environment = inherited() | {
        "KAGGLE_KERNEL_RUN_TYPE": "Batch",
        **CHILDREN_PRINT,
        "PYTHONPATH": str(root / _GUARD_FOLDER),
        "PYTHONNOUSERSITE": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        guard.WITNESS_VARIABLE: str(temporary / WITNESS),
    }
    if kernel.scored:
        environment["KAGGLE_IS_COMPETITION_RERUN"] = "1"
    if budget.time_limit_s is not None:  # the kernel gives itself the same share of a shorter session
        own_s = protocol.TIME_LIMIT_S if kernel.scored else training_session.TIME_LIMIT_S
        share = own_s / _kaggles_limit_s(kernel)
        environment[TIME_LIMIT_VARIABLE] = f"{share * budget.time_limit_s:.3f}s"
    if not kernel.gpu:
        environment["CUDA_VISIBLE_DEVICES"] = ""
    return environment


def _kaggles_limit_s(kernel: StagedKernel) -> float:
    """Return the seconds after which Kaggle kills a session of a kernel."""
    limits = kaggle_image().limits
    return limits.kernel_seconds if kernel.scored else limits.session_seconds


def _guarded(root: Path, temporary: Path) -> dict[str, str]:
    """Return the variables that stand in for the mounts and namespaces of a real isolation."""
    return {
        "HOME": "/dev/null/home",  # below a device, where not even root can make a folder
        ROOT_VARIABLE: str(root),
        "TMPDIR": str(temporary),
        guard.GUARD_VARIABLE: "1",
    }


def _binds(tree: Path, temporary: Path, kernel: StagedKernel) -> Iterator[Bind]:
    """Yield the mounts of `/kaggle` and `/tmp` in their order."""
    for name in ("src", _GUARD_FOLDER):
        yield Bind(str(tree / name), f"/kaggle/{name}")
    for mount, path in kernel.inputs.items():
        outer = _outer(mount, kernel)
        if outer:  # a mount inside another one needs a folder there
            (kernel.inputs[outer] / mount.removeprefix(f"{outer}/")).mkdir(exist_ok=True)
        yield Bind(str(path.resolve()), f"/kaggle/input/{mount}")
    yield Bind(str(tree / "working"), "/kaggle/working", True)
    yield Bind(str(temporary), "/tmp", True)


def _link_inputs(tree: Path, kernel: StagedKernel) -> None:
    """Make a link to each input in place of a mount."""
    for mount, path in kernel.inputs.items():
        place = tree / "input" / mount
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.is_dir() and _outer(mount, kernel):  # left by an attempt with real mounts
            place.rmdir()
        place.symlink_to(path.resolve(), target_is_directory=True)


def _outer(mount: str, kernel: StagedKernel) -> str | None:
    """Return the mount that `mount` is inside of; None if it is inside of no other."""
    return next((other for other in kernel.inputs if mount.startswith(f"{other}/")), None)


def _interpreter_to_keep() -> Iterator[str]:
    """Yield the interpreter's folders that the kernel would not see because it has a folder of its own there."""
    for folder in sorted({Path(prefix).resolve() for prefix in (sys.prefix, sys.base_prefix)}):
        if any(folder.is_relative_to(own) for own in OWN_FOLDERS):
            yield str(folder)


def _to_hide() -> Iterator[str]:
    """Yield what Kaggle does not have: the library, the client's configuration wherever it is, the hub's tokens."""
    candidates = [Path(entry or ".") / "kagglehms" for entry in sys.path]
    if (own := home()) is not None:
        candidates += [own / ".kaggle", own / ".config/kaggle"]
    # Each file where it really is: the folders hold other things, or links.
    files = [path for path in (*secret_files(), *_hub_tokens()) if path.is_file()]
    yield from sorted({str(path.resolve()) for path in (*candidates, *files) if path.exists()})


def _hub_tokens() -> Iterator[Path]:
    """Yield the files in which the hub's client keeps tokens, by the rules of that client."""
    from huggingface_hub import constants

    yield Path(constants.HF_TOKEN_PATH)
    yield Path(constants.HF_STORED_TOKENS_PATH)

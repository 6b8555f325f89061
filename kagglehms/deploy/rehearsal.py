"""Run a built kernel as Kaggle would, before it costs a push: without network, with everything in Kaggle's places.

Isolation is as real as the machine allows, and the report says which it was:

- `namespaces` (Linux): `/kaggle` is really `/kaggle`, everything but `/kaggle/working`, `/tmp` and `/dev/shm` is
  read-only, there is no network at all, and the library installed here cannot be seen. See `launcher.py`.
- `guard` (anywhere else): the kernel finds a folder instead of `/kaggle` through an environment variable, and
  Python sockets to other machines are refused. Inputs are links, and nothing stops native code. See `guard.py`.
"""

from __future__ import annotations

import codecs
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from kagglehms.data.competition import SLUG, Competition
from kagglehms.deploy import guard, launcher
from kagglehms.deploy.launcher import Bind, Spec
from kagglehms.deploy.mounts import ROOT_VARIABLE, Layout, competition_mount, dataset_mount
from kagglehms.deploy.stamping import KERNEL_METADATA, read_template
from kagglehms.errors import EXIT_FAILURE, EXIT_OK, DataError, HMSError, RunError, UsageError, closest
from kagglehms.inference.manifest import CARD
from kagglehms.inference.marker import MARKER, Marker
from kagglehms.inference.prior import read_rows
from kagglehms.inference.submission import SUBMISSION, read_submission
from kagglehms.runtime import write_bytes

Isolation = Literal["namespaces", "guard"]
LOG = "rehearsal.log"
SESSION_S = 9 * 3600.0
"""The competition's limit for a scored run."""

_PASSED_ON = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
"""What the kernel inherits of the environment; everything else, credentials above all, it does not."""
_RUN_VARIABLES = {"KAGGLE_KERNEL_RUN_TYPE": "Batch", "KAGGLE_IS_COMPETITION_RERUN": "1"}
_WITNESS = "kagglehms-rehearsal-witness.json"
_GUARD_FOLDER = "lib/kagglehms-rehearsal"
_OUTPUTS = (SUBMISSION, MARKER)
_GRACE_S = 10.0


@dataclass(frozen=True)
class RehearsalReport:
    """What a rehearsal found.

    Attributes:
        kernel: its name.
        layout: in which the inputs were mounted.
        isolation: how the kernel was kept from the rest of the machine.
        isolation_note: why it was not better isolated; empty if it was.
        kernel_exit_code: of the kernel; negative if a signal ended it.
        seconds: from its start to its end.
        peak_memory_bytes: largest resident size of any one of its processes.
        library: from where the kernel imported `kagglehms`, as it saw it; None if it did not.
        submission: the file it made, copied out; None if there is none.
        log: everything it printed.
        problems: what would have gone wrong on Kaggle; empty if nothing.
    """

    kernel: str
    layout: Layout
    isolation: Isolation
    isolation_note: str
    kernel_exit_code: int
    seconds: float
    peak_memory_bytes: int
    library: str | None
    submission: Path | None
    log: Path
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.problems

    @property
    def exit_code(self) -> int:
        """For a command that ends in this report."""
        return EXIT_OK if self.ok else EXIT_FAILURE

    @property
    def sentence(self) -> str:
        """The report in one line."""
        note = f" ({self.isolation_note})" if self.isolation_note else ""
        how = (
            f"{self.seconds:.1f} s, peak memory {self.peak_memory_bytes / 2**20:,.0f} MiB, mounts as {self.layout!r}, "
            f"isolated by {self.isolation}{note}; its output is in {self.log}"
        )
        if self.ok:
            return f"kernel {self.kernel} made {self.submission} with the bundle's own library: {how}"
        return f"kernel {self.kernel} FAILED: {'; '.join(self.problems)}: {how}"


@dataclass(frozen=True)
class _Kernel:
    """A built kernel and its inputs: folders by their path below /kaggle/input."""

    name: str
    script: Path
    inputs: dict[str, Path]
    competition: Path
    gpu: bool


def rehearse(
    kernel: str,
    dist: Path,
    competition: Path,
    out: Path,
    layout: Layout = "owner",
    timeout_s: float = SESSION_S,
    isolation: Isolation | None = None,
) -> RehearsalReport:
    """Run the built kernel in a child process, its output passed on while it runs.

    Args:
        kernel: name of a folder of `dist/kernels`.
        dist: what build.py made.
        competition: the competition's folder.
        out: where `submission.csv`, `scored-run.json` and `rehearsal.log` go.
        layout: of the mounts.
        timeout_s: after which the kernel is killed.
        isolation: None takes the best that the machine allows.

    Raises:
        UsageError: no such kernel.
        DataError: no competition there.
        RunError: a bundle that does not fit the kernel, or isolation asked for that cannot be had.
    """
    built = _read_kernel(kernel, dist, competition, layout)
    out.mkdir(parents=True, exist_ok=True)
    for name in _OUTPUTS:
        (out / name).unlink(missing_ok=True)
    note = ""
    for kind in ("namespaces", "guard") if isolation is None else (isolation,):
        with tempfile.TemporaryDirectory(prefix="kagglehms-rehearsal-", ignore_cleanup_errors=True) as stage:
            root = Path(stage).resolve()
            outcome = _launch(_lay_out(root, built, kind, timeout_s), root, out / LOG)
            if "unavailable" in outcome:
                note = f"namespaces are not available: {outcome['unavailable']}"
                continue
            return _report(built, layout, kind, note, outcome, root, out)
    raise RunError(f"{note}; rehearse without asking for them")


def _read_kernel(name: str, dist: Path, competition: Path, layout: Layout) -> _Kernel:
    folder = dist / "kernels" / name
    if not (folder / KERNEL_METADATA).is_file():
        known = sorted(path.parent.name for path in (dist / "kernels").glob(f"*/{KERNEL_METADATA}"))
        hint = closest(name, known) if known else "build one with `python build.py`"
        raise UsageError(f"{dist}: holds no kernel {name!r}; {hint}")
    if not Competition(competition).test_csv.is_file():
        raise DataError(competition / "test.csv", "no such file", "give the competition's folder")
    metadata = read_template(folder / KERNEL_METADATA)
    bundle_id = read_template(dist / "dataset" / CARD)["id"]
    inputs = {}
    for source in metadata.get("dataset_sources", []):
        if source != bundle_id:
            raise RunError(f"{folder}: asks for the dataset {source}, {dist} holds {bundle_id}; build again")
        owner, _, slug = source.partition("/")
        inputs[dataset_mount(owner, slug, layout)] = dist / "dataset"
    for source in metadata.get("competition_sources", []):
        if source != SLUG:
            raise RunError(
                f"{folder}: asks for the competition {source}, this project knows {SLUG}; build again"
            )
        inputs[competition_mount(source, layout)] = competition
    return _Kernel(
        name, folder / metadata["code_file"], inputs, competition, metadata.get("enable_gpu") is True
    )


def _lay_out(stage: Path, kernel: _Kernel, isolation: Isolation, timeout_s: float) -> Spec:
    """Make the folders of `/kaggle` below `stage` and say how to run the kernel in them."""
    tree, temporary, view = stage / "kaggle", stage / "tmp", stage / "view"
    for folder in (tree / "src", tree / "input", tree / "working", tree / _GUARD_FOLDER, temporary, view):
        folder.mkdir(parents=True)
    shutil.copyfile(kernel.script, tree / "src/script.py")
    shutil.copyfile(guard.__file__, tree / _GUARD_FOLDER / "sitecustomize.py")
    isolated = isolation == "namespaces"
    root, temporary_seen = (Path("/kaggle"), Path("/tmp")) if isolated else (tree, temporary)
    binds: list[Bind] = []
    if isolated:
        binds = [Bind(str(tree / name), f"/kaggle/{name}") for name in ("src", _GUARD_FOLDER)]
        binds += [
            Bind(str(path.resolve()), f"/kaggle/input/{mount}") for mount, path in kernel.inputs.items()
        ]
        binds += [Bind(str(tree / "working"), "/kaggle/working", True), Bind(str(temporary), "/tmp", True)]
    else:
        for mount, path in kernel.inputs.items():
            (tree / "input" / mount).parent.mkdir(parents=True, exist_ok=True)
            (tree / "input" / mount).symlink_to(path.resolve(), target_is_directory=True)
    return Spec(
        argv=[sys.executable, str(root / "src/script.py")],
        environment=_environment(root, temporary_seen, isolated, kernel.gpu),
        folder=str(root / "working"),
        timeout_s=timeout_s,
        report=str(stage / "report.json"),
        new_root=str(view) if isolated else None,
        binds=tuple(binds),
        kept=tuple(_needed_below_tmp()),
        hidden=tuple(_to_hide()),
    )


def _environment(root: Path, temporary: Path, isolated: bool, gpu: bool) -> dict[str, str]:
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ} | _RUN_VARIABLES
    environment |= {
        # A path below a device is one that nobody can make, not even root.
        "HOME": "/nonexistent" if isolated else "/dev/null/home",
        "PYTHONPATH": str(root / _GUARD_FOLDER),
        "PYTHONNOUSERSITE": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        guard.WITNESS_VARIABLE: str(temporary / _WITNESS),
    }
    if not isolated:
        environment |= {ROOT_VARIABLE: str(root), "TMPDIR": str(temporary), guard.GUARD_VARIABLE: "1"}
    if not gpu:
        environment["CUDA_VISIBLE_DEVICES"] = ""
    return environment


def _needed_below_tmp() -> Iterator[str]:
    """Yield the interpreter's folders that would vanish behind the kernel's own /tmp."""
    for folder in sorted({Path(prefix).resolve() for prefix in (sys.prefix, sys.base_prefix)}):
        if folder.is_relative_to("/tmp"):
            yield str(folder)


def _to_hide() -> Iterator[str]:
    """Yield the folders of this machine that Kaggle does not have: the library, and the client's credentials."""
    home = Path("~").expanduser()
    candidates = [Path(entry or ".") / "kagglehms" for entry in sys.path]
    candidates += [home / ".kaggle", home / ".config/kaggle"]
    yield from sorted({str(path.resolve()) for path in candidates if path.is_dir()})


def _launch(spec: Spec, stage: Path, log: Path) -> dict[str, Any]:
    """Run `spec`, pass its output on to the terminal and to `log`, and return the launcher's report."""
    path = stage / "spec.json"
    path.write_text(spec.to_json(), encoding="utf-8")
    command = [sys.executable, "-I", "-S", launcher.__file__, str(path)]
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    try:
        assert child.stdout is not None
        with child.stdout as pipe, log.open("wb") as file:
            while chunk := os.read(pipe.fileno(), 1 << 16):
                file.write(chunk)
                file.flush()
                sys.stdout.write(decoder.decode(chunk))
                sys.stdout.flush()
        child.wait()
    finally:
        _end(child)
    try:
        report: dict[str, Any] = json.loads(Path(spec.report).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(
            f"the rehearsal ended without a report (exit code {child.returncode}); see {log}"
        ) from error
    return report


def _end(child: subprocess.Popen[bytes]) -> None:
    """Make sure that the launcher, and with it the kernel, has ended."""
    if child.poll() is None:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_GRACE_S)
    if child.poll() is None:
        child.kill()
        child.wait()


def _report(
    kernel: _Kernel,
    layout: Layout,
    isolation: Isolation,
    note: str,
    outcome: dict[str, Any],
    stage: Path,
    out: Path,
) -> RehearsalReport:
    temporary = Path("/tmp") if isolation == "namespaces" else stage / "tmp"
    library = _witnessed(stage / "tmp" / _WITNESS)
    problems = [*_ending_problems(outcome), *_library_problems(library, temporary, outcome["exit_code"])]
    for name in _OUTPUTS:
        if (stage / "kaggle/working" / name).is_file():
            write_bytes(out / name, (stage / "kaggle/working" / name).read_bytes())
    submission = out / SUBMISSION
    problems += _submission_problems(submission, kernel.competition)
    return RehearsalReport(
        kernel=kernel.name,
        layout=layout,
        isolation=isolation,
        isolation_note=note,
        kernel_exit_code=outcome["exit_code"],
        seconds=outcome["seconds"],
        peak_memory_bytes=outcome["peak_memory_bytes"],
        library=library,
        submission=submission if submission.exists() else None,
        log=out / LOG,
        problems=tuple(problems),
    )


def _ending_problems(outcome: dict[str, Any]) -> Iterator[str]:
    if outcome["timed_out"]:
        yield f"killed after {outcome['seconds']:.0f} s, its time was up"
    elif outcome["exit_code"] != 0:
        yield f"exit code {outcome['exit_code']}"


def _library_problems(library: str | None, temporary: Path, exit_code: int) -> Iterator[str]:
    """The bundle's library can only have run from where the kernel unpacked it, and that was empty before."""
    if library is not None and not Path(library).is_relative_to(temporary):
        yield f"the library at {library} ran instead of the bundle's"
    elif library is None and exit_code == 0:
        yield "the library of the bundle was never imported"


def _submission_problems(submission: Path, competition: Path) -> Iterator[str]:
    if not submission.exists():
        yield f"there is no {SUBMISSION} in /kaggle/working"
        return
    try:
        read_submission(submission, read_rows(Competition(competition)).eeg_ids)
    except HMSError as error:
        yield str(error)
    marker = Marker.read(submission.parent)
    yield from marker.problems if marker else ()


def _witnessed(path: Path) -> str | None:
    try:
        library = json.loads(path.read_text(encoding="utf-8"))["library"]
    except (OSError, ValueError, KeyError):
        return None
    return library if isinstance(library, str) else None

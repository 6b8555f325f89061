"""The rehearsal, on kernels of a few lines that look around and tell what they see."""

from __future__ import annotations

import errno
import io
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kagglehms.cli.commands import main
from kagglehms.data.competition import SLUG, VOTE_COLUMNS
from kagglehms.errors import EXIT_FAILURE, EXIT_OK, EXIT_TERMINATED, DataError, RunError, UsageError
from kagglehms.kernel import protocol, training_session
from kagglehms.kernel.mounts import MOUNT_STYLES, MountStyle, competition_mount, dataset_mount
from kagglehms.rehearsal import launcher, launching, machine, run, scratch
from kagglehms.rehearsal.links import folders_to_keep, resolve_links
from kagglehms.rehearsal.machine import Budget, Isolation
from kagglehms.rehearsal.report import RehearsalReport, projection
from kagglehms.rehearsal.run import rehearse
from kagglehms.rehearsal.spec import IsolationUnavailableError, Outcome, Spec
from kagglehms.timing import seconds_of

PRELUDE = """
import json, os, sys, tempfile
from pathlib import Path

root = Path(os.environ.get("KAGGLEHMS_KAGGLE_ROOT", "/kaggle"))

def tell(**facts):
    print("FACTS " + json.dumps(facts), flush=True)

def library():
    folder = Path(tempfile.mkdtemp())
    (folder / "kagglehms").mkdir()
    (folder / "kagglehms/__init__.py").touch()
    sys.path.insert(0, str(folder))
    import kagglehms

def submit(rows="1,0.5,0.1,0.1,0.1,0.1,0.1\\n2,1,0,0,0,0,0\\n"):
    Path("submission.csv").write_text("eeg_id,{columns}\\n" + rows)
""".replace("{columns}", ",".join(VOTE_COLUMNS))


def _namespaces_work() -> bool:
    from kagglehms.rehearsal.namespaces import _CLONE_NEWNET, _CLONE_NEWNS, _CLONE_NEWUSER

    flags = _CLONE_NEWUSER | _CLONE_NEWNS | _CLONE_NEWNET
    code = f"import ctypes, sys; sys.exit(ctypes.CDLL(None).unshare({flags}) != 0)"
    return (
        sys.platform == "linux" and subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    )


needs_namespaces = pytest.mark.skipif(not _namespaces_work(), reason="this system allows no user namespaces")
BOTH = [pytest.param("namespaces", marks=needs_namespaces), "guard"]


class House:
    """A built kernel, a bundle and a competition, all of them tiny."""

    def __init__(self, folder: Path) -> None:
        self.dist, self.competition, self.out = folder / "dist", folder / "competition", folder / "out"
        (self.dist / "dataset").mkdir(parents=True)
        (self.dist / "dataset/dataset-metadata.json").write_text('{"id": "me/the-bundle"}')
        (self.dist / "dataset/file.txt").write_text("of the bundle")
        self.competition.mkdir()
        (self.competition / "test.csv").write_text("spectrogram_id,eeg_id,patient_id\n7,1,5\n8,2,5\n")

    def kernel(self, script: str, name: str = "look", **metadata: object) -> None:
        folder = self.dist / "kernels" / name
        folder.mkdir(parents=True, exist_ok=True)
        content = {
            "id": f"me/{name}",
            "code_file": "look.py",
            "enable_gpu": True,
            "dataset_sources": ["me/the-bundle"],
            "competition_sources": [SLUG],
        }
        (folder / "kernel-metadata.json").write_text(json.dumps(content | metadata))
        (folder / "look.py").write_text(PRELUDE + textwrap.dedent(script))

    def lifeline(self) -> int:
        """Make a pipe in the bundle, for a kernel to write to and hold; return the end to read from."""
        os.mkfifo(self.dist / "dataset/alive")
        return os.open(self.dist / "dataset/alive", os.O_RDONLY | os.O_NONBLOCK)

    def rehearse(self, name: str = "look", **options: Any) -> RehearsalReport:
        return rehearse(name, self.dist, self.competition, self.out, **options)

    def facts(self) -> Any:
        lines = (self.out / "rehearsal.log").read_text().splitlines()
        return json.loads(next(line for line in lines if line.startswith("FACTS ")).removeprefix("FACTS "))


HOLD = """
import time
held = os.open(root / "input/datasets/me/the-bundle/alive", os.O_WRONLY)
os.write(held, b"alive")
print("ready", flush=True)
time.sleep(600)
"""


def assert_was_alive_and_is_dead(lifeline: int) -> None:
    """A pipe ends when the last process that could write to it is gone."""
    assert os.read(lifeline, 100) == b"alive"
    assert select.select([lifeline], [], [], 20)[0], "something still holds the pipe"
    assert os.read(lifeline, 1) == b""
    os.close(lifeline)


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


@pytest.mark.parametrize("isolation", BOTH)
@pytest.mark.parametrize("mounts", MOUNT_STYLES)
def test_the_kernel_finds_everything_in_kaggles_places(
    house: House, isolation: Isolation, mounts: MountStyle
) -> None:
    house.kernel(
        """
        library()
        submit()
        tell(script=__file__, folder=os.getcwd(), root=str(root),
             run=os.environ["KAGGLE_KERNEL_RUN_TYPE"], rerun="KAGGLE_IS_COMPETITION_RERUN" in os.environ,
             inputs=sorted(path.name for path in (root / "input").iterdir()),
             texts=[(root / "input" / name).read_text() for name in (BUNDLE, COMPETITION)])
        """.replace("BUNDLE", repr(dataset_mount("me", "the-bundle", mounts) + "/file.txt")).replace(
            "COMPETITION)", repr(competition_mount(SLUG, mounts) + "/test.csv") + ")"
        )
    )
    report = house.rehearse(isolation=isolation, mounts=mounts)
    assert report.ok, report.sentence
    assert report.exit_code == EXIT_OK
    assert (report.isolation, report.isolation_note, report.mounts) == (isolation, "", mounts)
    assert report.submission == house.out / "submission.csv"
    assert report.submission.read_text().startswith("eeg_id,seizure_vote")
    assert "bundle's own library" in report.sentence
    facts = house.facts()
    assert facts["script"] == f"{facts['root']}/src/script.py"
    assert facts["folder"] == f"{facts['root']}/working"
    assert (facts["root"] == "/kaggle") is (isolation == "namespaces")
    assert facts["run"] == "Batch"
    assert facts["rerun"] is True
    assert facts["inputs"] == {"slug": [SLUG, "the-bundle"], "owner": ["competitions", "datasets"]}[mounts]
    assert facts["texts"] == ["of the bundle", (house.competition / "test.csv").read_text()]


@pytest.mark.parametrize("isolation", BOTH)
def test_the_kernel_inherits_neither_credentials_nor_a_home(
    house: House, isolation: Isolation, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (
        "KAGGLE_USERNAME",
        "KAGGLE_KEY",
        "KAGGLE_API_TOKEN",
        "AWS_SECRET_ACCESS_KEY",
        "PYTHONSTARTUP",
    ):
        monkeypatch.setenv(name, "secret-of-the-owner")
    monkeypatch.setenv("PYTHONPATH", "/somewhere/else")
    house.kernel("""
        try:
            Path("~/.cache/numba").expanduser().mkdir(parents=True)
            home = "writable"
        except OSError as error:
            home = "refused"
        tell(home=home, environment=dict(os.environ), path=sys.path)
        """)
    house.rehearse(isolation=isolation)
    facts = house.facts()
    assert facts["home"] == "refused"
    assert "secret-of-the-owner" not in json.dumps(facts)
    assert "/somewhere/else" not in facts["path"]


LOOK_FOR_SECRETS = """
import ctypes
def content(path):
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""
libc = ctypes.CDLL(None, use_errno=True)
undone = [libc.umount2(place.encode(), 2) for place in CONFIGURED] + [libc.chroot(b"/")]
shown = {str(path): content(path) for name in ("environ", "cmdline") for path in Path("/proc").glob("[0-9]*/" + name)}
tell(undone=undone, seen=sorted(path for path, text in shown.items() if b"of-the-owner" in text),
     kept={place: content(place).decode() for place in CONFIGURED},
     processes=sum(path.endswith("environ") for path in shown),
     capabilities=[line.split()[1] for line in Path("/proc/self/status").read_text().splitlines()
                   if line.startswith(("CapEff", "CapPrm", "CapBnd"))])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is no /proc")
@pytest.mark.parametrize("isolation", BOTH)
def test_no_secret_of_the_owner_is_found_from_inside(
    house: House, tmp_path: Path, isolation: Isolation
) -> None:
    """Not in the environment of the kernel's parents, not in files, and no mount over those can be taken away."""
    folder, home, general = tmp_path / "config", tmp_path / "home", tmp_path / "general"
    configured = [
        folder / "kaggle.json", folder / "access_token", home / ".kaggle/access_token", home / "elsewhere.json",
        general / "kaggle/kaggle.json", home / ".cache/huggingface/token",
    ]  # fmt: skip
    for path in configured:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("of-the-owner")
    (home / ".kaggle/kaggle.json").symlink_to(home / "elsewhere.json")
    house.kernel(LOOK_FOR_SECRETS.replace("CONFIGURED", repr([str(path) for path in configured])))
    code = (
        "import sys; from pathlib import Path; from kagglehms.rehearsal.run import rehearse\n"
        "rehearse('look', *map(Path, sys.argv[2:]), isolation=sys.argv[1])"
    )
    secrets = dict.fromkeys(("KAGGLE_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY"), "of-the-owner")
    places = {"KAGGLE_CONFIG_DIR": str(folder), "XDG_CONFIG_HOME": str(general), "HOME": str(home)}
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "XDG_"))}
    folders = [str(house.dist), str(house.competition), str(house.out)]
    subprocess.run(
        [sys.executable, "-c", code, isolation, *folders], env=environment | secrets | places, check=True
    )
    facts = house.facts()
    assert facts["seen"] == []
    assert set(facts["undone"]) == {-1}
    assert set(facts["capabilities"]) == {"0" * 16}
    if isolation == "namespaces":
        assert set(facts["kept"].values()) == {""}
        assert facts["processes"] == 2


@pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere no process can ask for the orphans of its children"
)
@pytest.mark.parametrize("isolation", BOTH)
def test_a_process_with_a_session_of_its_own_ends_with_the_kernel(house: House, isolation: Isolation) -> None:
    lifeline = house.lifeline()
    house.kernel(f"""
        import subprocess
        child = 'import os; from pathlib import Path; root = Path("' + str(root) + '")\\n' + {HOLD!r}
        held = subprocess.Popen([sys.executable, "-c", child], start_new_session=True, stdout=subprocess.PIPE)
        held.stdout.readline()
        library()
        submit()
        """)
    assert house.rehearse(isolation=isolation).ok
    assert_was_alive_and_is_dead(lifeline)


@pytest.mark.parametrize("isolation", BOTH)
def test_there_is_no_network_but_the_machine_itself(house: House, isolation: Isolation) -> None:
    house.kernel("""
        import socket
        try:
            socket.create_connection(("192.0.2.1", 80), timeout=20)
        except OSError as error:
            refused = error.errno
        try:
            name = str(socket.getaddrinfo("www.kaggle.com", 443))
        except socket.gaierror as error:
            name = None
        server = socket.create_server(("127.0.0.1", 0))
        socket.create_connection(server.getsockname(), timeout=20)
        tell(refused=refused, name=name)
        """)
    house.rehearse(isolation=isolation)
    assert house.facts() == {"refused": errno.ENETUNREACH, "name": None}


@needs_namespaces
def test_only_the_working_folder_and_scratch_can_be_written(house: House) -> None:
    house.kernel(
        """
        def attempt(folder):
            try:
                (Path(folder) / "attempt").write_text("x")
                return "written"
            except OSError as error:
                return error.errno
        places = ["/kaggle/input", "/kaggle/src", "/kaggle", "/", "/usr", sys.prefix, "HOST",
                  "/kaggle/input/datasets/me/the-bundle", "/kaggle/working", "/tmp", "/dev/shm"]
        tell(results={place: attempt(place) for place in places})
        """.replace("HOST", str(Path(__file__).parent))
    )
    before = sorted(path.name for path in (house.dist / "dataset").iterdir())
    house.rehearse(isolation="namespaces")
    results = house.facts()["results"]
    for place in ("/kaggle/working", "/tmp", "/dev/shm"):
        assert results.pop(place) == "written"
    assert set(results.values()) <= {errno.EROFS, errno.ENOENT, errno.EACCES}
    assert results["/kaggle/input/datasets/me/the-bundle"] == errno.EROFS
    assert sorted(path.name for path in (house.dist / "dataset").iterdir()) == before
    assert not Path("/tmp/attempt").exists()


@needs_namespaces
def test_the_installed_library_cannot_be_seen(house: House) -> None:
    house.kernel("""
        try:
            from kagglehms import errors
            tell(found=errors.__file__)
        except ImportError:
            tell(found=None)
        """)
    house.rehearse(isolation="namespaces")
    assert house.facts() == {"found": None}


def test_the_installed_library_is_a_problem_where_it_can_be_seen(house: House) -> None:
    import kagglehms

    parent = Path(kagglehms.__file__).parents[1]
    house.kernel(f"sys.path.insert(0, {str(parent)!r}); import kagglehms; submit()")
    report = house.rehearse(isolation="guard")
    assert report.library == kagglehms.__file__
    assert report.exit_code == EXIT_FAILURE
    assert "ran instead of the bundle's" in report.sentence


@pytest.mark.parametrize("isolation", BOTH)
def test_a_kernel_that_fails_is_told_with_its_code_and_its_last_words(
    house: House, isolation: Isolation, capfd: pytest.CaptureFixture[str]
) -> None:
    house.out.mkdir()
    (house.out / "submission.csv").write_text("of an earlier rehearsal")
    house.kernel("print('müde', flush=True); sys.exit('last words')")
    report = house.rehearse(isolation=isolation)
    assert report.kernel_exit_code == 1
    assert report.exit_code == EXIT_FAILURE
    assert report.problems == ("exit code 1", "there is no submission.csv in /kaggle/working")
    assert report.submission is None
    assert not (house.out / "submission.csv").exists()
    assert (house.out / "rehearsal.log").read_text().splitlines() == ["müde", "last words"]
    assert capfd.readouterr().out.splitlines() == ["müde", "last words"]


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("library()", "there is no submission.csv"),
        ("submit()", "the library of the bundle was never imported"),
        ("library(); submit('1,0.5,0.1,0.1,0.1,0.1,0.1\\n')", "ids are not the test set's 2"),
        ("library(); submit('1,1,0,0,0,0,0\\n2,1,1,0,0,0,0\\n')", "it would be refused"),
        ("library(); submit(); os.kill(os.getpid(), 9)", "exit code -9"),
    ],
)
def test_each_way_to_go_wrong_has_its_name(house: House, script: str, problem: str) -> None:
    house.kernel(script)
    report = house.rehearse(isolation="guard")
    assert any(problem in found for found in report.problems), report.problems
    assert report.exit_code == EXIT_FAILURE


@pytest.mark.parametrize("marker", ["", "Path('scored-run.json').write_text('{}')"])
def test_the_sample_is_no_submission_unless_a_marker_says_why(house: House, marker: str) -> None:
    """A kernel of one's own leaves none, and is judged by its submission."""
    row = "0.5,0.1,0.1,0.1,0.1,0.1"
    sample = f"eeg_id,{','.join(VOTE_COLUMNS)}\n1,{row}\n2,{row}\n"
    (house.competition / "sample_submission.csv").write_text(sample)
    house.kernel(f"library(); submit('1,{row}\\n2,{row}\\n'); {marker}")
    report = house.rehearse(isolation="guard")
    assert report.problems == ("submission.csv is the sample, and no scored-run.json says why; read the log",)
    house.kernel(f"library(); submit(); {marker}")
    assert house.rehearse(isolation="guard").ok


def test_recipes_that_failed_are_told_and_what_others_left_is_kept(house: House) -> None:
    house.kernel(
        """
        library(); Path("runs").mkdir()
        Path("runs/session.json").write_text('{"left": [], "problems": ["b: it cannot be"]}')
        """,
        name="train",
    )
    report = house.rehearse("train", isolation="guard")
    assert report.problems == ("b: it cannot be",)
    assert report.exit_code == EXIT_FAILURE
    assert report.output == house.out / "train"
    assert (house.out / "train/runs/session.json").is_file()


def test_time_that_is_up_ends_the_kernel_and_its_children(house: House) -> None:
    lifeline = house.lifeline()
    house.kernel(f"""
        import subprocess, time
        child = 'import os; from pathlib import Path; root = Path("' + str(root) + '")\\n' + {HOLD!r}
        subprocess.Popen([sys.executable, "-c", child])
        time.sleep(600)
        """)
    report = house.rehearse(isolation="guard", budget=Budget(time_limit_s=3))
    assert report.problems[0].startswith("killed after")
    assert report.exit_code == EXIT_FAILURE
    assert_was_alive_and_is_dead(lifeline)


def test_a_child_that_outlives_the_kernel_does_not_hold_the_rehearsal(house: House) -> None:
    house.kernel("""
        import subprocess
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        library()
        submit()
        """)
    assert house.rehearse(isolation="guard").ok


def test_output_is_passed_on_while_the_kernel_runs(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = house.dist / "seen"

    class Terminal(io.StringIO):
        def write(self, text: str) -> int:
            if "half way" in text:
                seen.touch()
            return super().write(text)

    house.kernel(f"""
        import time
        print("half way", flush=True)
        while not Path({str(seen)!r}).exists():
            time.sleep(0.01)
        library()
        submit()
        """)
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert house.rehearse(isolation="guard", budget=Budget(time_limit_s=30)).ok


def test_peak_memory_is_the_kernels_own(house: House) -> None:
    house.kernel("library(); submit(); block = bytearray(b'x') * 300_000_000")
    large = house.rehearse(isolation="guard").peak_memory_bytes
    house.kernel("library(); submit()")
    ballast = bytearray(b"x") * 300_000_000  # of this process, whose memory must not be counted
    small = house.rehearse(isolation="guard").peak_memory_bytes
    assert len(ballast) > small
    assert 300_000_000 < large < 400_000_000
    assert 1_000_000 < small < 100_000_000


def test_without_a_gpu_in_its_metadata_the_kernel_sees_none(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    look = 'tell(devices=os.environ["CUDA_VISIBLE_DEVICES"])'
    for gpu, expected in ((True, "3"), (False, "")):
        house.kernel(look, enable_gpu=gpu)
        house.rehearse(isolation="guard")
        assert house.facts() == {"devices": expected}


def limited(command: list[str], *limits: str) -> subprocess.CompletedProcess[str]:
    """Run `command` in a user namespace in which no more namespaces of these kinds can be made."""
    if shutil.which("unshare") is None:
        pytest.skip("needs the unshare command")
    lines = [f"echo 0 > /proc/sys/user/max_{kind}_namespaces" for kind in limits]
    script = " && ".join([*lines, 'exec "$0" "$@"'])
    return subprocess.run(
        ["unshare", "-Ur", "sh", "-c", script, *command], capture_output=True, text=True, check=False
    )


@needs_namespaces
@pytest.mark.parametrize(
    ("limits", "isolation", "says"),
    [
        (("user",), "namespaces", ""),
        (("user", "pid"), "namespaces", "processes can be seen from inside"),
        (("pid",), "namespaces", "processes can be seen from inside"),
        (("user", "mnt"), "guard", "namespaces are not available"),
    ],
)
def test_where_less_is_allowed_less_is_used_and_said(
    house: House, limits: tuple[str, ...], isolation: str, says: str
) -> None:
    house.kernel("library(); submit()")
    code = (
        "import sys; from pathlib import Path; from kagglehms.rehearsal.run import rehearse\n"
        "dist, competition, out = map(Path, sys.argv[1:])\n"
        "report = rehearse('look', dist, competition, out)\n"
        "print(report.sentence); print(report.ok, report.isolation, bool(report.isolation_note))"
    )
    folders = [str(house.dist), str(house.competition), str(house.out)]
    done = limited([sys.executable, "-c", code, *folders], *limits)
    assert done.stdout.splitlines()[-1] == f"True {isolation} {bool(says)}", done.stdout + done.stderr
    assert says in done.stdout


@needs_namespaces
def test_a_container_that_hides_parts_of_proc_is_said_and_memory_is_still_measured(house: House) -> None:
    """The system then lets nobody mount a /proc that would show them."""
    house.kernel("import time; library(); submit(); block = bytearray(b'x') * 200_000_000; time.sleep(1)")
    code = (
        "import sys; from pathlib import Path; from kagglehms.rehearsal.run import rehearse\n"
        "report = rehearse('look', *map(Path, sys.argv[1:]), isolation='namespaces')\n"
        "print(report.sentence); print(report.ok, report.peak_memory_bytes > 200_000_000)"
    )
    hidden = next(name for name in ("scsi", "acpi", "bus", "fs") if Path("/proc", name).is_dir())
    masked = f'mount -t tmpfs none /proc/{hidden} && exec "$0" "$@"'
    folders = [str(house.dist), str(house.competition), str(house.out)]
    command = ["unshare", "-Urm", "sh", "-c", masked, sys.executable, "-c", code, *folders]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1:] == ["True True"], done.stdout + done.stderr
    assert "processes can be seen from inside" in done.stdout


def test_isolation_that_is_asked_for_and_cannot_be_had_is_an_error(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object) -> None:
        raise IsolationUnavailableError("it is forbidden here")

    house.kernel("library(); submit()")
    monkeypatch.setattr(run, "launch", forbidden)
    with pytest.raises(RunError, match="it is forbidden here"):
        house.rehearse(isolation="namespaces")


@pytest.mark.parametrize(
    ("spoil", "error", "says"),
    [
        (lambda house: shutil.rmtree(house.dist / "kernels"), UsageError, "kagglehms build"),
        (
            lambda house: (house.dist / "kernels/look").rename(house.dist / "kernels/lock"),
            UsageError,
            "'lock'",
        ),
        (lambda house: (house.competition / "test.csv").unlink(), DataError, "test.csv"),
        (lambda house: shutil.rmtree(house.competition), DataError, "no such folder"),
        (lambda house: house.kernel("", dataset_sources=["other/set"]), RunError, "other/set"),
        (lambda house: house.kernel("", competition_sources=["titanic"]), RunError, "titanic"),
        (lambda house: shutil.rmtree(house.dist / "dataset"), UsageError, "kagglehms build"),
        (lambda house: shutil.rmtree(house.dist), UsageError, "kagglehms build"),
    ],
)
def test_what_cannot_be_rehearsed_is_refused_before_it_starts(
    house: House, spoil: Callable[[House], object], error: type[Exception], says: str
) -> None:
    house.kernel("submit()")
    spoil(house)
    with pytest.raises(error, match=says):
        house.rehearse()
    assert not (house.out / "rehearsal.log").exists()


@pytest.mark.parametrize("isolation", BOTH)
def test_an_interrupted_rehearsal_leaves_no_process(
    house: House, isolation: Isolation, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def write(self, text: str) -> int:
            raise KeyboardInterrupt

    lifeline = house.lifeline()
    house.kernel(HOLD)
    monkeypatch.setattr(sys, "stdout", Terminal())
    with pytest.raises(KeyboardInterrupt):
        house.rehearse(isolation=isolation)
    assert_was_alive_and_is_dead(lifeline)


@pytest.mark.parametrize("isolation", BOTH)
def test_a_killed_rehearsal_leaves_no_process(house: House, isolation: Isolation) -> None:
    lifeline = house.lifeline()
    house.kernel(HOLD)
    code = (
        "import sys; from pathlib import Path; from kagglehms.rehearsal.run import rehearse\n"
        "dist, competition, out = map(Path, sys.argv[2:])\n"
        "rehearse('look', dist, competition, out, isolation=sys.argv[1])"
    )
    folders = [str(house.dist), str(house.competition), str(house.out)]
    environment = os.environ | {"TMPDIR": str(house.out.parent)}
    with subprocess.Popen(
        [sys.executable, "-c", code, isolation, *folders], stdout=subprocess.PIPE, env=environment
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        child.kill()
    if sys.platform == "linux":
        assert_was_alive_and_is_dead(lifeline)


@pytest.fixture
def hangs_up() -> Iterator[None]:
    """Let SIGHUP end children even where the tests run under nohup, which makes them inherit that it does not."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hangs_up")
@pytest.mark.parametrize("isolation", BOTH)
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGKILL"])
def test_a_rehearsal_that_is_ended_leaves_no_scratch_folder_to_the_next(
    house: House, tmp_path: Path, isolation: Isolation, name: str
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    house.kernel("import time; print('ready', flush=True); time.sleep(600)")
    words = ["--dist", house.dist, "--data", house.competition, "--out", house.out, "--isolation", isolation]
    command = [sys.executable, "-m", "kagglehms", "rehearse", "look", *map(str, words)]
    environment = os.environ | {"TMPDIR": str(scratch)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        assert list(scratch.iterdir())
        child.send_signal(getattr(signal, name))
        said = child.communicate()[1].decode()
    if name == "SIGKILL":
        house.kernel("library(); submit()")
        assert subprocess.run(command, env=environment, check=False).returncode == EXIT_OK
    else:
        assert child.returncode == EXIT_TERMINATED
        assert said == f"kagglehms: {name} came; what was running has been ended\n"
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("isolation", BOTH)
def test_a_kernel_that_fills_its_disk_is_killed(house: House, isolation: Isolation) -> None:
    house.kernel("""
        import time
        library()
        submit()
        Path("deep").mkdir()
        Path("deep/large").write_bytes(bytes(3_000_000))
        time.sleep(600)
        """)
    report = house.rehearse(isolation=isolation, budget=Budget(time_limit_s=60, disk_bytes=2_000_000))
    assert "more than its disk" in report.problems[0]
    assert 3_000_000 <= report.peak_disk_bytes < 4_000_000
    house.kernel("library(); submit(); Path('large').write_bytes(bytes(3_000_000))")
    report = house.rehearse(isolation=isolation, budget=Budget(disk_bytes=2_000_000))
    assert "more than its disk" in report.problems[0], "even if it ends before anybody looks"
    assert house.rehearse(isolation=isolation).ok


def test_memory_of_all_processes_counts_together(house: House) -> None:
    house.kernel("""
        import subprocess
        library()
        submit()
        code = "block = bytearray(b'x') * 150_000_000; print(flush=True); input()"
        children = [
            subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            for _ in range(2)
        ]
        for child in children:
            child.stdout.readline()
        import time
        time.sleep(1)
        for child in children:
            child.communicate(b"\\n")
        """)
    assert house.rehearse(isolation="guard").peak_memory_bytes > 300_000_000


@pytest.mark.parametrize(("name", "own_s"), [("look", 85.0), ("train", 86.25)])
def test_a_shorter_session_is_told_to_the_kernel(house: House, name: str, own_s: float) -> None:
    """The same share: 8.5 of a scored run's 9 hours, 11.5 of a training session's 12."""
    house.kernel('tell(limit=os.environ.get("KAGGLEHMS_TIME_LIMIT"))', name=name)
    house.rehearse(name, isolation="guard", budget=Budget(time_limit_s=90))
    assert seconds_of(house.facts()["limit"]) == pytest.approx(own_s)
    house.rehearse(name, isolation="guard")
    assert house.facts() == {"limit": None}


@pytest.mark.parametrize(("name", "hours"), [("look", 9), ("train", 12), ("prepare", 12)])
def test_a_session_may_take_as_long_as_on_kaggle(
    house: House, monkeypatch: pytest.MonkeyPatch, name: str, hours: int
) -> None:
    """So none is killed while a kernel that minds its own limit is still at work."""
    specs: list[Spec] = []

    def launch(spec: Spec, _: object) -> Outcome:
        specs.append(spec)
        return Outcome(0, 0.0, 0, 0, False, False)

    monkeypatch.setattr(run, "launch", launch)
    house.kernel("", name=name)
    house.rehearse(name, isolation="guard")
    (spec,) = specs
    assert spec.timeout_s == hours * 3600
    own_s = training_session.TIME_LIMIT_S if name == "train" else protocol.TIME_LIMIT_S
    assert spec.timeout_s > own_s


@pytest.mark.parametrize("isolation", BOTH)
def test_the_output_of_a_session_is_kept_and_mounted_for_the_next(house: House, isolation: Isolation) -> None:
    script = """
        library()
        before = root / "input/notebooks/me/train/steps"
        Path("steps").write_text((before.read_text() if before.is_file() else "") + "step ")
        tell(rerun="KAGGLE_IS_COMPETITION_RERUN" in os.environ,
             store=(root / "input/notebooks/me/prepare/store").read_text())
        """
    house.kernel(script, name="train", kernel_sources=["me/prepare", "me/train"])
    with pytest.raises(DataError, match="no output of me/prepare"):
        house.rehearse("train", isolation=isolation)
    house.kernel("library(); Path('store').write_text('decoded')", name="prepare")
    assert house.rehearse("prepare", isolation=isolation).output == house.out / "prepare"
    for steps in ("step ", "step step "):
        report = house.rehearse("train", isolation=isolation)
        assert report.ok, report.sentence
        assert house.facts() == {"rerun": False, "store": "decoded"}
        assert (house.out / "train/steps").read_text() == steps
    house.kernel("library()", name="prepare")
    assert house.rehearse("prepare", isolation=isolation).problems == ("there is nothing in /kaggle/working",)


def test_quiet_leaves_the_log_to_its_file_and_tells_the_verdict(
    house: House, capfd: pytest.CaptureFixture[str]
) -> None:
    house.kernel("library(); submit(); print('of the kernel')")
    arguments = ["--data", house.competition, "--dist", house.dist, "--out", house.out]
    command = ["rehearse", "look", *map(str, arguments), "--isolation", "guard"]
    assert main([*command, "--quiet"]) == EXIT_OK
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].startswith("kernel look made ")
    assert len(lines) <= 5
    assert (house.out / "rehearsal.log").read_text() == "of the kernel\n"
    assert main(command) == EXIT_OK
    assert capfd.readouterr().out.startswith("of the kernel\nkernel look made ")


def test_a_session_that_fails_does_not_cost_the_one_before(house: House) -> None:
    house.kernel("library(); Path('state').write_text('hours of training')", name="train")
    assert house.rehearse("train", isolation="guard").ok
    for attempt in ("first", "second"):
        house.kernel(f"library(); Path('state').write_text({attempt!r}); sys.exit(1)", name="train")
        report = house.rehearse("train", isolation="guard")
        assert report.output == house.out / "train.failed"
        assert str(report.output) in report.sentence
        assert (report.output / "state").read_text() == attempt
        assert (house.out / "train/state").read_text() == "hours of training"
    assert sorted(path.name for path in house.out.iterdir()) == ["rehearsal.log", "train", "train.failed"]


def test_a_disk_that_is_full_leaves_the_session_before(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.kernel("library(); Path('state').write_text('old')", name="train")
    assert house.rehearse("train", isolation="guard").ok

    def half_way(source: Path, target: Path) -> None:
        target.mkdir()
        (target / "state").write_text("ne")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "move", half_way)
    with pytest.raises(RunError, match="No space left on device"):
        house.rehearse("train", isolation="guard")
    assert (house.out / "train/state").read_text() == "old"
    assert sorted(path.name for path in house.out.iterdir()) == ["rehearsal.log", "train"]


@pytest.mark.parametrize("isolation", BOTH)
def test_the_hidden_test_set_takes_the_place_of_the_stub(house: House, isolation: Isolation) -> None:
    (house.competition / "train.csv").write_text("of the competition")
    for name in ("train_eegs", "test_eegs", "test_spectrograms"):
        (house.competition / name).mkdir()
    (house.competition / "train_eegs/3.parquet").write_text("of the competition")
    for path, content in (("test_eegs/1", "one"), ("test_eegs/2", "two"), ("test_spectrograms/7", "seven")):
        (house.competition / f"{path}.parquet").write_text(content)
    house.kernel("""
        library()
        place = root / "input/competitions/hms-harmful-brain-activity-classification"
        ids = [line.split(",")[1] for line in (place / "test.csv").read_text().splitlines()[1:]]
        submit("".join(f"{id_},1,0,0,0,0,0\\n" for id_ in ids))
        tell(eegs=[(place / f"test_eegs/{id_}.parquet").read_text() for id_ in ids],
             train=[(place / name).read_text() for name in ("train.csv", "train_eegs/3.parquet")])
        """)
    report = house.rehearse(isolation=isolation, hidden_rows=5, hidden_from=house.competition)
    assert report.ok, report.sentence
    assert house.facts() == {"eegs": ["one", "two"] * 2 + ["one"], "train": ["of the competition"] * 2}


LOOK = """
    library()
    place = root / "input/competitions/hms-harmful-brain-activity-classification"
    submit()
    tell(texts={str(path.relative_to(place)): path.read_text()
                for path in [*place.iterdir(), *(place / "test_eegs").iterdir()] if path.is_file()},
         bundle=(root / "input/datasets/me/the-bundle/file.txt").read_text())
    """


@pytest.mark.parametrize("isolation", BOTH)
@pytest.mark.parametrize("linked", ["tables and folders", "recordings", "the folder", "chains", "absolute"])
def test_links_in_the_data_lead_to_the_same_files_under_both_isolations(
    house: House, tmp_path: Path, isolation: Isolation, linked: str
) -> None:
    """As git-annex, DVC, a hub's cache or a second disk hold files."""
    (house.competition / "test_eegs").mkdir()
    for name in ("1", "2"):
        (house.competition / f"test_eegs/{name}.parquet").write_text(f"recording {name}")
    disk = tmp_path / "disk/deep/hms"
    shutil.copytree(house.competition, disk)
    if linked == "the folder":
        shutil.rmtree(house.competition)
        house.competition.symlink_to("disk/deep/hms", target_is_directory=True)
    elif linked == "tables and folders":
        shutil.rmtree(house.competition)
        house.competition.mkdir()
        for path in disk.iterdir():
            (house.competition / path.name).symlink_to(f"../disk/deep/hms/{path.name}")
    else:
        if linked == "chains":  # a link to a folder of links, which lead on
            (disk / "test_eegs").rename(disk / "objects")
            (disk / "test_eegs").mkdir()
            for path in (disk / "objects").iterdir():
                (disk / "test_eegs" / path.name).symlink_to(f"../objects/{path.name}")
            shutil.rmtree(house.competition / "test_eegs")
            (house.competition / "test_eegs").symlink_to("../disk/deep/hms/test_eegs")
        for path in () if linked == "chains" else sorted((house.competition / "test_eegs").iterdir()):
            path.unlink()
            target = disk / "test_eegs" / path.name
            path.symlink_to(target if linked == "absolute" else f"../../disk/deep/hms/test_eegs/{path.name}")
        (house.competition / "test_eegs/3.parquet").symlink_to("../nowhere")
        (house.competition / "around").symlink_to(".", target_is_directory=True)
    (house.dist / "dataset/file.txt").rename(tmp_path / "file.txt")
    (house.dist / "dataset/file.txt").symlink_to("../../file.txt")
    house.kernel(LOOK)
    report = house.rehearse(isolation=isolation)
    assert report.ok, report.sentence
    assert house.facts() == {
        "bundle": "of the bundle",
        "texts": {
            "test.csv": "spectrogram_id,eeg_id,patient_id\n7,1,5\n8,2,5\n",
            "test_eegs/1.parquet": "recording 1",
            "test_eegs/2.parquet": "recording 2",
        },
    }


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="this system has no shared memory in a folder")
@pytest.mark.parametrize("isolation", BOTH)
@pytest.mark.parametrize("deep", [True, False])
def test_links_into_shared_memory_lead_to_the_same_files_under_both_isolations(
    house: House, isolation: Isolation, deep: bool
) -> None:
    """The kernel has a /dev/shm of its own; a decoded competition may lie in this machine's."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="kagglehms-test-") as folder:
        shared = Path(folder)
        (house.competition / "test_eegs").mkdir()
        recording, table = shared / "deep/1.parquet", shared / "test.csv"
        recording.parent.mkdir()
        recording.write_text("recording 1")
        (house.competition / "test_eegs/1.parquet").symlink_to(recording)
        shutil.move(house.competition / "test.csv", table)
        if not deep:  # a file in /dev/shm itself
            table = Path(shutil.move(table, shared.with_suffix(".csv")))
        (house.competition / "test.csv").symlink_to(table)
        house.kernel(LOOK)
        try:
            report = house.rehearse(isolation=isolation)
        finally:
            table.unlink()
    assert report.ok, report.sentence
    assert house.facts()["texts"] == {
        "test.csv": "spectrogram_id,eeg_id,patient_id\n7,1,5\n8,2,5\n",
        "test_eegs/1.parquet": "recording 1",
    }


@pytest.mark.parametrize("isolation", BOTH)
def test_a_hidden_test_set_is_made_of_linked_recordings(
    house: House, tmp_path: Path, isolation: Isolation
) -> None:
    (tmp_path / "objects").mkdir()
    for name in ("test_eegs", "test_spectrograms"):
        (house.competition / name).mkdir()
    for path in ("test_eegs/1", "test_eegs/2", "test_spectrograms/7", "test_spectrograms/8"):
        (tmp_path / "objects" / path.replace("/", "-")).write_text(path)
        (house.competition / f"{path}.parquet").symlink_to(f"../../objects/{path.replace('/', '-')}")
    house.kernel("""
        library()
        place = root / "input/competitions/hms-harmful-brain-activity-classification"
        ids = [line.split(",")[1] for line in (place / "test.csv").read_text().splitlines()[1:]]
        submit("".join(f"{id_},1,0,0,0,0,0\\n" for id_ in ids))
        tell(eegs=[(place / f"test_eegs/{id_}.parquet").read_text() for id_ in ids])
        """)
    report = house.rehearse(isolation=isolation, hidden_rows=3, hidden_from=house.competition)
    assert report.ok, report.sentence
    assert house.facts() == {"eegs": ["test_eegs/1", "test_eegs/2", "test_eegs/1"]}


def test_inputs_without_links_are_left_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "plain/deep").mkdir(parents=True)
    (tmp_path / "plain/deep/file").write_text("x")
    inputs, targets = resolve_links({"mount": tmp_path / "plain"}, tmp_path / "resolved")
    assert (inputs, targets) == ({"mount": tmp_path / "plain"}, [])
    assert not (tmp_path / "resolved").exists()


def test_the_targets_of_many_links_are_in_a_few_folders() -> None:
    """git-annex has a folder for each file."""
    targets = [Path(f"/tmp/annex/objects/{i:03}/{i}/key/file") for i in range(500)]
    assert list(folders_to_keep(targets)) == ["/tmp/annex/objects"]
    assert list(folders_to_keep(targets[:3])) == [str(target.parent) for target in targets[:3]]
    assert list(folders_to_keep([Path("/data/file"), Path("/home/x/file")])) == []
    assert list(folders_to_keep([Path("/tmp/a/b/file"), Path("/tmp/a/file")])) == ["/tmp/a"]
    assert list(folders_to_keep([Path("/dev/shm/a/file"), Path("/tmp/a/file")])) == ["/tmp/a", "/dev/shm/a"]
    many = [Path(f"/tmp/{i:03}/file") for i in range(40)]
    assert list(folders_to_keep(many)) == [str(path.parent) for path in many]


def test_the_projection_goes_by_the_rows() -> None:
    from kagglehms.kernel.marker import Marker

    steps = [{"name": "a", "seconds": 30.0}, {"name": "b", "seconds": 10.0}]
    assert projection(None) == ""
    assert projection(Marker(rows=50)) == ""
    assert "1 row cannot tell" in projection(Marker(rows=1, steps=steps, seconds=50))
    assert projection(Marker(rows=50, steps=steps, seconds=160)).startswith(
        "4,000 rows would take 55 min of 9 h"
    )
    assert "would be left out" in projection(Marker(rows=50, steps=steps * 10, seconds=500))


@pytest.mark.parametrize("written", ["folder", "kernel", "nothing"])
def test_a_full_disk_for_temporary_files_is_one_line(
    house: House, written: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    house.kernel("submit()")
    full = OSError(errno.ENOSPC, "No space left on device")

    def fails(*_: object, **__: object) -> None:
        raise full

    places = {"folder": (scratch.tempfile, "mkdtemp"), "kernel": (machine.shutil, "copyfile")}
    if written in places:
        monkeypatch.setattr(*places[written], fails)
    else:
        monkeypatch.setattr(scratch.tempfile, "tempdir", None)
        monkeypatch.setattr(scratch.tempfile, "_candidate_tempdir_list", list)
    words = ["rehearse", "look", "--data", str(house.competition), "--dist", str(house.dist)]
    assert main([*words, "--out", str(house.out)]) == EXIT_FAILURE
    said = capsys.readouterr().err
    assert "cannot be written" in said
    assert "TMPDIR" in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("isolation", BOTH)
def test_a_kernel_may_print_anything_in_any_locale(
    house: House, isolation: Isolation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LC_ALL", "C")
    monkeypatch.setenv("LANG", "C")
    house.kernel("library(); submit(); print('≥ 脳波')")
    report = house.rehearse(isolation=isolation)
    assert report.ok, report.sentence
    assert "≥ 脳波" in report.log.read_text(encoding="utf-8")


def test_a_user_without_a_home_can_rehearse(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "home", lambda: None)
    house.kernel("library(); submit()")
    assert house.rehearse(isolation="guard").ok


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
def test_a_report_that_cannot_be_written_is_one_line_of_the_launcher_too(tmp_path: Path) -> None:
    spec = Spec(["true"], {"PATH": os.environ["PATH"]}, str(tmp_path), 60)
    with Path("/dev/full").open("wb") as full:
        command = launching.launch_command(spec, full.fileno())
        done = subprocess.run(command, capture_output=True, text=True, check=False, pass_fds=[full.fileno()])
    assert done.returncode == launcher.EXIT_UNWRITTEN
    assert done.stderr == "the report of the rehearsal cannot be written (No space left on device)\n"


@pytest.mark.parametrize("code", [launcher.EXIT_UNWRITTEN, 0])
def test_a_launcher_without_a_report_is_one_line_that_names_the_log(
    house: House, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    house.kernel("submit()")
    monkeypatch.setattr(launching, "LAUNCHER", f"raise SystemExit({code})")
    with pytest.raises(RunError, match=rf"without a report \(exit code {code}\); see .*rehearsal\.log"):
        house.rehearse(isolation="guard")


@pytest.mark.parametrize(
    ("code", "says", "fix"),
    [
        (errno.ENOSPC, "cannot be written (No space left on device)", "free space"),
        (errno.EDQUOT, "cannot be written (Disk quota exceeded)", "free space"),
        (errno.EACCES, "cannot be read or written (Permission denied)", "change its permissions"),
        (errno.EROFS, "cannot be read or written (Read-only file system)", "change its permissions"),
        (errno.EIO, "cannot be written (Input/output error)", "name other folders"),
    ],
)
def test_each_fault_of_a_disk_has_its_own_words(
    house: House, monkeypatch: pytest.MonkeyPatch, code: int, says: str, fix: str
) -> None:
    house.kernel("submit()")

    def fails(source: Path, target: Path) -> None:
        raise OSError(code, os.strerror(code), str(source))

    monkeypatch.setattr(machine.shutil, "copyfile", fails)
    with pytest.raises(RunError) as caught:
        house.rehearse(isolation="guard")
    script = house.dist / "kernels/look/look.py"
    assert str(caught.value).startswith(f"{script}: {says}; {fix}")
    assert "TMPDIR" in str(caught.value)
    assert ("free space" in str(caught.value)) is (fix == "free space")


def test_a_reader_that_has_gone_is_no_full_disk(tmp_path: Path) -> None:
    with pytest.raises(BrokenPipeError), run._stage(tmp_path):
        raise BrokenPipeError
    with pytest.raises(RunError, match="cannot be written"), run._stage(tmp_path):
        raise OSError(28, "No space left on device")

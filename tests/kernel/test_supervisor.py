"""Workers that crash, hang or never start: the submission stands, the rest is computed, and the end comes in time."""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from folders import copied

from kagglehms.errors import DataError
from kagglehms.kernel import supervisor
from kagglehms.kernel.marker import Marker
from kagglehms.kernel.prior import read_prior
from kagglehms.kernel.protocol import EXIT_DEVICE_LOST, Task
from kagglehms.kernel.submission import read_submission
from kagglehms.kernel.supervisor import supervise

PRELUDE = """
import json, os, sys, time
from pathlib import Path
task = json.loads(sys.argv[1])
scratch, out = Path(task["scratch"]), Path(task["out"])
with (scratch / "tasks").open("a") as file:
    file.write(sys.argv[1] + "\\n")
def under_way(step, device):
    (scratch / "under-way.json").write_text(json.dumps({"step": step, "device": device}))
def finish(models):
    from kagglehms.kernel.marker import Marker
    Marker(rows=2, models=models).write(out, 1.0)
"""


class House:
    """A test set of two rows, and workers of a few lines."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.competition, self.out, self.scratch = folder / "competition", folder / "out", folder / "scratch"
        for path in (self.competition, self.out, self.scratch):
            path.mkdir()
        (self.competition / "test.csv").write_text("spectrogram_id,eeg_id\n1,5\n2,6\n")
        self.monkeypatch = monkeypatch

    def supervise(
        self, worker: str, time_limit_s: float = 60.0, device: str | None = None
    ) -> tuple[int, Marker]:
        command = (sys.executable, "-c", PRELUDE + textwrap.dedent(worker))
        self.monkeypatch.setattr(supervisor, "WORKER", command)
        task = Task(
            "no-bundle", str(self.competition), str(self.out), None, device, time_limit_s, str(self.scratch)
        )
        code = supervise(task)
        marker = Marker.read(self.out)
        assert marker is not None
        return code, marker

    @property
    def tasks(self) -> list[Task]:
        path = self.scratch / "tasks"
        return [Task.from_json(line) for line in path.read_text().splitlines()] if path.is_file() else []

    def values(self) -> np.ndarray:
        return read_submission(self.out / "submission.csv", [5, 6])


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    return House(tmp_path, monkeypatch)


def test_the_prior_stands_before_the_first_worker(house: House, capfd: pytest.CaptureFixture[str]) -> None:
    code, marker = house.supervise("""
        (scratch / "seen").write_text((out / "submission.csv").read_text())
        finish(["a"])
        """)
    assert (code, marker.status) == (0, "complete")
    assert (house.scratch / "seen").read_text() == (house.out / "submission.csv").read_text()
    np.testing.assert_allclose(house.values(), [read_prior(Path("no-bundle"))[0]] * 2)
    last = capfd.readouterr().out.splitlines()[-1]
    assert json.loads(last)["event"] == "scored-run"
    assert house.tasks[0].time_limit_s == pytest.approx(60, abs=5)


def test_a_crash_on_the_gpu_is_followed_by_the_cpu_and_then_without_the_model(house: House) -> None:
    code, marker = house.supervise("""
        if task["skip"]:
            finish(["b"])
        else:
            under_way("a", task["device"] or "cuda")
            os.kill(os.getpid(), 11)
        """)
    assert [(task.device, task.skip) for task in house.tasks] == [(None, ()), ("cpu", ()), ("cpu", ("a",))]
    assert (code, marker.models) == (1, ["b"])
    assert marker.problems == [f"a on {d}: its process ended by signal 11" for d in ("cuda", "cpu")]


def test_a_lost_gpu_is_named_as_such(house: House) -> None:
    _, marker = house.supervise(f"""
        if task["device"] == "cpu":
            finish(["a"])
        else:
            under_way("a", "cuda")
            sys.exit({EXIT_DEVICE_LOST})
        """)
    assert marker.problems == ["a on cuda: the GPU was lost"]


def test_a_worker_that_never_gets_to_a_model_is_tried_again_and_given_up(house: House) -> None:
    code, marker = house.supervise("import no_such_library")
    assert [task.device for task in house.tasks] == [None, "cpu", "cpu"]
    assert (code, marker.status, len(marker.rows_with_prior)) == (1, "prior", 2)
    assert marker.problems[0] == "a worker: its process ended by code 1"
    assert len(house.values()) == 2


def test_no_process_at_all_leaves_the_prior(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.monkeypatch = monkeypatch
    monkeypatch.setattr(supervisor, "_run_worker", lambda *_: "no process could be started (full)")
    code, marker = house.supervise("")
    assert (code, marker.status) == (1, "prior")
    assert len(house.values()) == 2


def test_a_worker_that_hangs_is_killed_when_its_time_is_up(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "_LEAST_GRACE_S", 0.5)
    code, marker = house.supervise(
        """
        (out / ".submission.csv.1234.partial").write_text("half")
        under_way("a", "cpu")
        time.sleep(600)
        """,
        time_limit_s=0.5,
        device="cpu",
    )
    assert (code, marker.status, len(house.tasks)) == (1, "prior", 1)
    assert "it had not ended" in marker.problems[0]
    assert sorted(path.name for path in house.out.iterdir()) == ["scored-run.json", "submission.csv"]


def test_a_hang_is_a_crash_of_its_step(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "STALL_S", 1.5)
    monkeypatch.setattr(supervisor, "_POLL_S", 0.1)
    code, marker = house.supervise("""
        if task["device"] == "cpu":
            finish(["a"])
        else:
            under_way("a", "cuda")
            time.sleep(600)
        """)
    assert [task.device for task in house.tasks] == [None, "cpu"]
    assert (code, marker.models) == (1, ["a"])
    assert marker.problems == ["a on cuda: killed, it gave no sign of life for 2 s"]


def test_a_hang_before_the_first_sign_is_noticed(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "STALL_S", 1.5)
    monkeypatch.setattr(supervisor, "_POLL_S", 0.1)
    _, marker = house.supervise("""
        if task["device"] != "cpu":
            time.sleep(600)
        finish(["a"])
        """)
    assert marker.models == ["a"]
    assert "no sign of life" in marker.problems[0]


@pytest.mark.parametrize(
    "sign",
    [
        "os.utime(scratch / 'under-way.json')",
        "(scratch / 'under-way.json').unlink(missing_ok=True)",  # nothing can be known then
    ],
)
def test_a_worker_that_is_slow_and_lives_is_left_alone(
    house: House, monkeypatch: pytest.MonkeyPatch, sign: str
) -> None:
    monkeypatch.setattr(supervisor, "STALL_S", 2.0)
    monkeypatch.setattr(supervisor, "_POLL_S", 0.1)
    code, marker = house.supervise(f"""
        for _ in range(20):
            {sign}
            time.sleep(0.2)
        finish(["a"])
        """)
    assert (code, marker.models, len(house.tasks)) == (0, ["a"], 1)


def test_a_submission_that_a_worker_spoils_becomes_the_prior_again(house: House) -> None:
    code, marker = house.supervise("(out / 'submission.csv').write_text('eeg_id'); finish(['a'])")
    assert (code, marker.status, marker.models) == (1, "prior", [])
    assert "the prior was submitted again" in marker.problems[0]
    assert list(marker.left_out) == ["a"]
    assert list(marker.rows_with_prior) == ["5", "6"]
    assert len(house.values()) == 2


def test_a_worker_that_is_killed_before_its_last_word_is_judged_by_its_rows(house: House) -> None:
    code, marker = house.supervise("""
        from kagglehms.kernel.marker import Marker
        Marker(rows=2, models=["a"], rows_with_prior={"5": "time was up"}).write(out, 1.0)
        """)
    assert (code, marker.models) == (1, ["a"])
    assert marker.problems == ["1 of 2 rows keep the prior, more than 5%; row 5: time was up"]


def test_the_marker_of_an_earlier_run_is_not_taken_for_this_ones(house: House) -> None:
    Marker(rows=2, models=["of yesterday"]).write(house.out, 1.0)
    assert house.supervise("sys.exit(9)")[1].models == []


def test_without_a_competition_there_is_nothing_to_submit(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        supervise(Task("bundle", str(tmp_path / "absent"), str(tmp_path), scratch=str(tmp_path)))


def test_the_real_worker_comes_to_its_end(
    dist: Path, competition_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = copied(competition_folder, tmp_path / "competition")
    (tmp_path / "scratch").mkdir()
    task = Task(
        str(dist / "dataset"),
        str(folder),
        str(tmp_path / "out"),
        device="cpu",
        scratch=str(tmp_path / "scratch"),
    )
    assert supervise(task) == 0
    marker = Marker.read(tmp_path / "out")
    assert marker is not None
    assert (marker.status, len(marker.models), marker.rows_with_prior) == ("complete", 4, {})
    assert not list((tmp_path / "scratch").glob("crops-*"))
    out = capfd.readouterr().out
    assert out.index("submitted the class prior") < out.index("verified")

"""Where the address space is limited, a command works or ends in a line: it neither hangs nor aborts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from runs_folder import make_run

from kagglehms.environment import child_environment
from kagglehms.errors import EXIT_FAILURE, EXIT_OK

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's limits")

LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]) << 20, resource.RLIM_INFINITY))
from kagglehms.cli.commands import main
sys.exit(main(["ladder", "--runs", "runs", "--quiet"]))
"""


def ladder(folder: Path, limit_mb: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", LIMITED, str(limit_mb)],
        cwd=folder,
        env=child_environment() | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


@pytest.mark.parametrize("limit_mb", [120, 500, 800])
def test_too_low_a_limit_is_one_line(tmp_path: Path, limit_mb: int) -> None:
    make_run(tmp_path / "runs", "baseline")
    done = ladder(tmp_path, limit_mb)
    assert (done.returncode, done.stderr.count("\n")) == (EXIT_FAILURE, 1), done.stderr
    assert done.stderr.startswith("kagglehms: error: ")
    assert "raise the limit (ulimit -v unlimited)" in done.stderr
    assert done.stdout == ""


def test_a_high_one_changes_nothing(tmp_path: Path) -> None:
    make_run(tmp_path / "runs", "baseline")
    done = ladder(tmp_path, 16_000)
    assert (done.returncode, done.stderr) == (EXIT_OK, "")
    assert "baseline" in done.stdout

"""One script in several processes that share out its jobs among themselves."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

_PATIENCE_S, _LOOK_S = 120.0, 0.2


def run_side_by_side(script: Path, n: int, logs: Path) -> None:
    """Run the script again in `n` processes, with the present arguments and a folder for their claims.

    Args:
        script: the script to run, which knows the option `--claims FOLDER`.
        n: number of processes.
        logs: folder of the files that take what they print, `worker-1.log` and so on.

    Raises:
        SystemExit: a process failed.
    """
    threads = str(max(1, (os.cpu_count() or 1) // n))
    environment = {"OMP_NUM_THREADS": threads, **os.environ}
    with tempfile.TemporaryDirectory(prefix="kagglehms-claims-") as claims:
        command = [sys.executable, str(script), *sys.argv[1:], "--claims", claims]
        workers = []
        for number in range(1, n + 1):
            with (logs / f"worker-{number}.log").open("ab") as log:
                workers.append(
                    subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
                )
        try:
            codes = [worker.wait() for worker in workers]
        finally:
            for worker in workers:
                worker.terminate()
    if any(codes):
        raise SystemExit(f"{sum(map(bool, codes))} of {n} processes failed; see {logs}/worker-*.log")


class Claims:
    """Names that each process takes at most once among all of them.

    Args:
        folder: a folder that the processes share; None in a process that works alone.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def take(self, name: str) -> bool:
        """Take a name; False where another process has taken it."""
        if self._folder is None:
            return True
        try:
            (self._folder / name).touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def wait_for(self, name: str, ready: Callable[[], bool]) -> None:
        """Take a name, or wait until what the process that has taken it makes is there."""
        if self.take(name):
            return
        give_up = time.monotonic() + _PATIENCE_S
        while not ready() and time.monotonic() < give_up:
            time.sleep(_LOOK_S)

"""How long a simulated recording takes: signal, spectrogram, files; and what 2,000 of them would take.

python benchmarks/simulator.py [--sessions 24] [--threads 2]

Each session is ten minutes with one EEG of 50 s and its spectrogram, and what of the time the parts take is measured
on one thread. Then the sessions are made as `kagglehms simulate` makes them, on all threads, files and all. The
extrapolation is the measured time per session times 2,000, nothing else.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from _measure import finish, machine, table, versions
from threadpoolctl import threadpool_limits

from kagglehms.data.competition import Competition
from kagglehms.environment import available_cpus
from kagglehms.simulator.competition import make_competition
from kagglehms.simulator.recording_sessions import draw_sessions
from kagglehms.simulator.signal import Patient, Segment, simulate_session, spectrogram

N_WANTED = 2000
MOST_MINUTES = 15


def parts(n_sessions: int) -> dict[str, float]:
    """Median seconds of one thread for the signal and for the spectrogram of a ten-minute session."""
    seconds: dict[str, list[float]] = {"signal": [], "spectrogram": []}
    with threadpool_limits(1, user_api="blas"):
        for seed in range(n_sessions + 1):
            rng = np.random.default_rng(seed)
            patient = Patient.draw(rng)
            segment = Segment(295, 305, tuple(rng.dirichlet(np.full(6, 0.3)).tolist()))
            start = time.perf_counter()
            uv_CT = simulate_session(600, [(segment,)], patient, rng)
            middle = time.perf_counter()
            spectrogram(uv_CT, 300)
            if seed:  # the first one warms up
                seconds["signal"].append(middle - start)
                seconds["spectrogram"].append(time.perf_counter() - middle)
    return {name: float(np.median(values)) for name, values in seconds.items()}


def whole(n_eegs: int, threads: int) -> tuple[float, float, int, int]:
    """Seconds, session seconds simulated, sessions, and bytes on disk, of a competition in the real proportions."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "competition"
        sessions = draw_sessions(n_eegs, 1, np.random.default_rng((0, 0)))
        start = time.perf_counter()
        make_competition(root, n_eegs, 1, seed=0, threads=threads)
        taken = time.perf_counter() - start
        size = sum(path.stat().st_size for path in Competition(root).root.rglob("*.parquet"))
    return taken, float(sum(s.n_rows * 2 for s in sessions)), len(sessions), size


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sessions", type=int, default=24, help="sessions measured, of each kind")
    parser.add_argument("--threads", type=int, default=available_cpus())
    options = parser.parse_args()
    one = parts(options.sessions)
    taken, simulated_s, n_sessions, size = whole(options.sessions, options.threads)
    per_ten_minutes = taken / simulated_s * 600
    rows = [
        ("signal, one thread", f"{one['signal']:.3f} s"),
        ("spectrogram, one thread", f"{one['spectrogram']:.3f} s"),
        (
            f"all, files too, {options.threads} threads, per ten minutes of session",
            f"{per_ten_minutes:.3f} s",
        ),
        (f"{N_WANTED} recordings of ten minutes would take", f"{per_ten_minutes * N_WANTED / 60:.1f} min"),
        ("on disk, per session", f"{size / n_sessions / 1e6:.2f} MB"),
    ]
    print(
        f"{machine()}; {versions('numpy', 'scipy', 'polars')}; n = {options.sessions} and {n_sessions} sessions"
    )
    print(table(("what", "figure"), rows))
    finish(
        {
            "benchmark": "simulator",
            "n_sessions": n_sessions,
            "threads": options.threads,
            "signal_s": one["signal"],
            "spectrogram_s": one["spectrogram"],
            "per_ten_minutes_s": per_ten_minutes,
            "minutes_for_2000": per_ten_minutes * N_WANTED / 60,
            "within": per_ten_minutes * N_WANTED / 60 < MOST_MINUTES,
        }
    )


if __name__ == "__main__":
    main()

"""How long a simulated recording takes: signal, spectrogram, files; and what 4,000 of them would take.

python benchmarks/simulator.py [--studies 48] [--jobs 2]

Each study is ten minutes with one EEG of 50 s and its spectrogram, and what of the time the parts take is measured
on one thread. Then the studies are made as `kagglehms simulate` makes them, on all CPUs, files and all. The
extrapolation is the measured time per EEG times 4,000, nothing else.
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
from kagglehms.simulator.signal import Patient, Segment, simulate_study, spectrogram
from kagglehms.simulator.studies import draw_studies

N_WANTED = 4000
MOST_MINUTES = 10


def parts(n_studies: int) -> dict[str, float]:
    """Median seconds of one thread for the signal and for the spectrogram of a ten-minute study."""
    seconds: dict[str, list[float]] = {"signal": [], "spectrogram": []}
    with threadpool_limits(1, user_api="blas"):
        for seed in range(n_studies + 1):
            rng = np.random.default_rng(seed)
            patient = Patient.draw(rng)
            segment = Segment(295, 305, tuple(rng.dirichlet(np.full(6, 0.3)).tolist()))
            start = time.perf_counter()
            uv_CT = simulate_study(600, [(segment,)], patient, rng)
            middle = time.perf_counter()
            spectrogram(uv_CT, 300)
            if seed:  # the first one warms up
                seconds["signal"].append(middle - start)
                seconds["spectrogram"].append(time.perf_counter() - middle)
    return {name: float(np.median(values)) for name, values in seconds.items()}


def whole(n_eegs: int, jobs: int) -> tuple[float, float, int, int]:
    """Seconds, study seconds simulated, studies, and bytes on disk, of a competition in the real proportions."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "competition"
        studies = draw_studies(n_eegs, 1, np.random.default_rng((0, 0)))
        start = time.perf_counter()
        make_competition(root, n_eegs, 1, seed=0, jobs=jobs)
        taken = time.perf_counter() - start
        size = sum(path.stat().st_size for path in Competition(root).root.rglob("*.parquet"))
    return taken, float(sum(s.n_rows * 2 for s in studies)), len(studies), size


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=48, help="studies, and EEGs, that are measured")
    parser.add_argument("--jobs", type=int, default=available_cpus())
    options = parser.parse_args()
    one = parts(options.studies)
    taken, simulated_s, n_studies, size = whole(options.studies, options.jobs)
    per_ten_minutes = taken / simulated_s * 600
    minutes = taken / (options.studies + 1) * N_WANTED / 60
    rows = [
        ("signal, one thread", f"{one['signal']:.3f} s"),
        ("spectrogram, one thread", f"{one['spectrogram']:.3f} s"),
        (
            f"all, files too, {options.jobs} jobs, per ten minutes of study",
            f"{per_ten_minutes:.3f} s",
        ),
        (f"a competition of {N_WANTED:,} EEGs would take", f"{minutes:.1f} min"),
        ("on disk, per study", f"{size / n_studies / 1e6:.2f} MB"),
    ]
    print(
        f"{machine()}; {versions('numpy', 'scipy', 'polars')}; n = {options.studies} and {n_studies} studies"
    )
    print(table(("what", "figure"), rows))
    finish(
        {
            "benchmark": "simulator",
            "n_studies": n_studies,
            "jobs": options.jobs,
            "signal_s": one["signal"],
            "spectrogram_s": one["spectrogram"],
            "per_ten_minutes_s": per_ten_minutes,
            f"minutes_for_{N_WANTED}": minutes,
            "within": minutes < MOST_MINUTES,
        }
    )


if __name__ == "__main__":
    main()

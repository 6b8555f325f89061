"""What tells simulated recordings from real ones, and how well: the table of docs/simulator.md.

python benchmarks/simulator_calibration.py --real hms/ [--recordings 180] [--features 8]

A logistic regression on some sixty interpretable features of 10-second windows of the EEG, and another on thirty of
two minutes of spectrogram, are asked of recordings that they have not seen. An area under the curve of 0.5 would mean
that they cannot tell; what they go by is printed in the order in which it stands out.
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from _measure import finish, table, versions

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from recordings_to_compare import real_recordings, simulated_recording  # noqa: E402
from window_statistics import Windows, auc_by_recording, quantiles, windows  # noqa: E402

from kagglehms.environment import available_cpus  # noqa: E402


def simulated_windows(seed: int) -> Windows:
    return windows(*simulated_recording(seed))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--real", type=Path, required=True, help="a folder in the competition's format, of real recordings"
    )
    parser.add_argument("--recordings", type=int, default=180, help="simulated recordings to compare with")
    parser.add_argument("--features", type=int, default=8, help="features to print")
    options = parser.parse_args()
    real = [windows(*recording) for recording in real_recordings(options.real)]
    with ProcessPoolExecutor(available_cpus()) as pool:
        made = list(pool.map(simulated_windows, range(options.recordings), chunksize=4))
    print(f"{len(real)} real, {len(made)} simulated recordings; {versions('numpy', 'scipy', 'scikit-learn')}")
    found = {}
    for part in Windows._fields:
        of_real, of_made = ([getattr(recording, part) for recording in some] for some in (real, made))
        found[part], each = auc_by_recording(of_real, of_made)
        print(f"\n{part}: area under the curve {found[part]:.2f} ({', '.join(f'{a:.2f}' for a in each)})\n")
        rows = quantiles(of_real, of_made)[: options.features]
        print(
            table(
                ("feature", "real", "simulated", "quantiles of the real ones"),
                [
                    (name, f"{a:.2f}", f"{b:.2f}", ", ".join(f"{q:.2f}" for q in np.sort(where)))
                    for name, a, b, where in rows
                ],
            )
        )
    finish({"benchmark": "simulator_calibration", "recordings": len(made), **found})


if __name__ == "__main__":
    main()

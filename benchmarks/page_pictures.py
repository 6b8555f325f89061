"""Draw docs/img/view.png and docs/img/report.png: a view and a part of the report of what `kagglehms demo` made.

python benchmarks/page_pictures.py demo [--out docs/img]
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

import numpy as np
from _pictures import save
from PIL import Image

from kagglehms.data.competition import CLASSES
from kagglehms.report.eeg_view import load_view
from kagglehms.report.page import write_report
from kagglehms.report.viewer import view_png
from kagglehms.runs.run_view import focus_of, view_runs

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from browser import running_chromium  # noqa: E402

WIDTH, HEIGHT = 1180, 1250


def best_of(demo: Path, name: str) -> int:
    """The id of the EEG whose votes for a class the demo's run predicts best."""
    run = focus_of(view_runs(demo / "runs"), None)
    assert run is not None
    assert run.scored is not None
    records = run.scored.records
    own = np.flatnonzero(records.targets_NK[:, CLASSES.index(name)] > 0.8)
    return int(records.eeg_ids[own[np.argmin(run.scored.terms_N[own])]])


def view(demo: Path) -> Image.Image:
    eeg_id = best_of(demo, "gpd")
    seen = load_view(eeg_id, demo / "competition", demo / "store", demo / "runs")
    picture = Image.open(io.BytesIO(view_png(seen, 0))).convert("RGB")
    return picture.resize((WIDTH, round(WIDTH * picture.height / picture.width)), Image.Resampling.LANCZOS)


def report(demo: Path) -> Image.Image:
    page = demo / "report.html"
    write_report(demo / "runs", page, demo / "store", data=demo / "competition", n_hardest=1)
    with running_chromium() as chromium, chromium.open(page, WIDTH, HEIGHT, fragment="#details") as shown:
        return Image.fromarray(shown.pixels())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("demo", type=Path, help="the folder that `kagglehms demo` made")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "img")
    options = parser.parse_args()
    for name, draw in (("view", view), ("report", report)):
        save(draw(options.demo), options.out / f"{name}.png", 128, Image.Quantize.MEDIANCUT)


if __name__ == "__main__":
    main()

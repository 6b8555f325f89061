"""Own recordings: the memory that a day takes, how much faster than real time it is judged, how spectrograms differ.

    python benchmarks/recordings.py [--hours 24] [--speed-hours 1] [--recipes eeg-two-stage-stats …] [--page-hours 24]
        [--real hms/]

1. A day of 20 channels at 256 Hz as EDF, EDF+ with interruptions and BDF, judged by a network that costs nothing to
   speak of, each in a process of its own: its peak memory, and that of a tenth of the file; what its processors spent,
   which is what all takes but for a network of full size.
2. Part of the day, judged by the recipes on the EEG alone and one on both recordings, with untrained weights of their
   true size: windows a second, and times real time at one window every 10 s.
3. With `--page-hours`, the timeline page of a day with random probabilities: its size, how much signal it holds, what
   it took to write, and when chromium has first painted it (by Playwright, if both are installed; median of five).
4. With `--real`, a competition folder: rows of spectrograms computed from its EEGs, against its spectrogram files.

Prints tables and one JSON line.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from _bundles import untrained_bundle
from _measure import finish, machine, table, versions
from numpy.typing import NDArray

from kagglehms.bundle.predictor import load_bundle
from kagglehms.console import be_quiet
from kagglehms.data.competition import CHANNELS, SFREQ_HZ, Competition
from kagglehms.features import multitaper_rows
from kagglehms.recordings.channels import map_channels
from kagglehms.recordings.electrodes import Electrodes
from kagglehms.recordings.folders import predict_files
from kagglehms.recordings.prediction import Options
from kagglehms.recordings.reading import open_recording
from kagglehms.recordings.results import RecordingPrediction
from kagglehms.recordings.sliding import FLAGS
from kagglehms.report.signals import BLOCK_S
from kagglehms.report.timeline import write_timeline
from kagglehms.simulator.background import Patient
from kagglehms.simulator.patterns import Segment
from kagglehms.simulator.scalp import MARGIN_S
from kagglehms.simulator.signal import simulate_study
from kagglehms.training.recipes import get_recipe

RATE_HZ = 256
STEP_UV = 0.1
MINUTES = 10
RECIPES = ("eeg-two-stage-stats", "eeg-two-stage", "kaggle+eeg")
"""B0 on 512 × 256, B0 on 512 × 512, and B2 on 512 × 556 with ten minutes of spectrogram."""
DAYS = (
    ("EEG", "eeg-two-stage-stats", "EDF"),
    ("EEG", "eeg-two-stage-stats", "EDF+D"),
    ("EEG and spectrogram", "kaggle+eeg", "BDF"),
)
EDGE_S = 8


def simulated() -> NDArray[np.int16]:
    """(minutes · 60 · 256, 20) steps of 0.1 µV of a simulated patient."""
    from scipy.signal import resample

    seconds = MINUTES * 60
    segment = Segment(100, 200, (0.8, 0, 0.1, 0, 0, 0.1))
    uv_CT = simulate_study(seconds, [(segment,)], Patient(), np.random.default_rng(0))
    uv_CT = uv_CT[:, MARGIN_S * SFREQ_HZ :][:, : seconds * SFREQ_HZ].astype(np.float64)
    steps = np.round(resample(uv_CT, seconds * RATE_HZ, axis=1) / STEP_UV)
    return np.clip(steps, -32768, 32767).astype(np.int16).T


def write_day(path: Path, steps: NDArray[np.int16], hours: float, interrupted: bool = False) -> None:
    """Write a recording of any length, the same minutes again and again, a data record a second."""
    is_bdf = path.suffix == ".bdf"
    n_records = int(hours * 3600)
    labels = [f"EEG {name}-REF" for name in CHANNELS[:19]] + ["ECG EKG"]
    top = 8_388_607 if is_bdf else 32_767
    low, high = (str(round(x * STEP_UV, 0 if is_bdf else 1)).removesuffix(".0") for x in (-top - 1, top))
    fields: list[list[Any]] = [
        labels, [""] * 20, ["uV"] * 20, [low] * 20, [high] * 20,
        [-(top + 1)] * 20, [top] * 20, [""] * 20, [RATE_HZ] * 20, [""] * 20,
    ]  # fmt: skip
    if interrupted:
        extra = ["EDF Annotations", "", "", -1, 1, -32768, 32767, "", 8, ""]
        fields = [[*column, more] for column, more in zip(fields, extra, strict=True)]
    n_signals = len(fields[0])
    widths = (16, 80, 8, 8, 8, 8, 8, 80, 8, 32)
    fixed = [
        (b"\xffBIOSEMI" if is_bdf else b"0"), b"X X X X", b"Startdate X X X X", b"01.01.00", b"00.00.00",
        str(256 * (n_signals + 1)).encode(), b"EDF+D" if interrupted else b"", str(n_records).encode(), b"1",
        str(n_signals).encode(),
    ]  # fmt: skip
    with path.open("wb") as file:
        for content, width in zip(fixed, (8, 80, 80, 8, 8, 8, 44, 8, 8, 4), strict=True):
            file.write(content.ljust(width))
        for column, width in zip(fields, widths, strict=True):
            for value in column:
                file.write(str(value).encode().ljust(width))
        records = steps.reshape(-1, RATE_HZ, 20).transpose(0, 2, 1)
        for number in range(n_records):
            samples = np.ascontiguousarray(records[number % len(records)])
            if is_bdf:
                wide = samples.astype("<i4").view(np.uint8).reshape(-1, 4)[:, :3]
                file.write(np.ascontiguousarray(wide).tobytes())
            else:
                file.write(samples.astype("<i2").tobytes())
            if interrupted:
                onset = number + 3600 * (number // 10_000)
                file.write(f"+{onset}\x14\x14\x00".encode().ljust(16, b"\0"))


def child(bundle: Path, recording: Path, out: Path) -> None:
    """Judge one recording and print what it took."""
    be_quiet()
    predictor = load_bundle(bundle, "cpu")
    list(predictor.judge([]).probabilities)  # loading is not judging
    begun, before = time.perf_counter(), time.process_time()
    outcome = predict_files(predictor, [recording], out, Options())
    seconds, spent = time.perf_counter() - begun, time.process_time() - before
    if outcome.failed:
        raise SystemExit(outcome.failed[0].reason)
    summary = outcome.done[0].summary
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    told = {name: summary[name] for name in ("duration_s", "windows", "judged")}
    print(json.dumps({"seconds": seconds, "cpu_seconds": spent, "MiB": memory, **told}))


def measured(bundle: Path, recording: Path, folder: Path) -> dict[str, float]:
    out = folder / f"out-{bundle.name}-{recording.name}"
    command = [sys.executable, __file__, "--child", str(bundle), str(recording), str(out)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def memory(folder: Path, hours: float) -> list[dict[str, Any]]:
    """The peak memory of a day in each form, beside that of a tenth of it."""
    steps = simulated()
    found = []
    for number, (what, name, form) in enumerate(DAYS):
        recipe = replace(get_recipe(name), name=f"small-{name}", backbone="half:test_efficientnet")
        bundle = untrained_bundle(folder / f"small-{number}", [recipe], 1)
        row: dict[str, Any] = {"models look at": what, "file": form}
        for length in (hours / 10, hours):
            path = folder / f"day.{form[:3].lower()}"
            write_day(path, steps, length, form == "EDF+D")
            result = measured(bundle, path, folder / f"{number}-{length}")
            row[f"MiB of {length:g} h"] = result["MiB"]
            row[f"processor s of {length:g} h"] = result["cpu_seconds"]
            path.unlink()
        found.append(row)
    return found


def speed(folder: Path, hours: float, recipes: Sequence[str]) -> list[dict[str, Any]]:
    """How much faster than real time recipes of their true size judge one fold's network."""
    path = folder / "hour.edf"
    write_day(path, simulated(), hours)
    found = []
    for name in recipes:
        recipe = get_recipe(name)
        result = measured(
            untrained_bundle(folder / f"full-{name}", [recipe], 1), path, folder / f"speed-{name}"
        )
        found.append(
            {
                "recipe": name,
                "network": recipe.backbone,
                "windows/s": result["judged"] / result["seconds"],
                "x real time": result["duration_s"] / result["seconds"],
                "processor seconds per hour": result["cpu_seconds"] / result["duration_s"] * 3600,
                "MiB": result["MiB"],
            }
        )
    return found


def page_child(recording: Path, out: Path) -> None:
    """Write the page of a recording whose probabilities are drawn, and print what it took."""
    electrodes = Electrodes(opened := open_recording(recording), map_channels(opened))
    n, rng = electrodes.n_times // (10 * SFREQ_HZ), np.random.default_rng(0)
    probabilities = rng.dirichlet([0.3, 0.3, 0.2, 0.3, 0.2, 4], n)
    flags = {name: rng.random(n) < 0.02 for name in FLAGS}
    found = RecordingPrediction(
        recording.name, electrodes.n_times / SFREQ_HZ, 10.0, 10.0 * np.arange(n), probabilities, probabilities / 10,
        flags, np.zeros(n, bool), np.full(n, np.nan), electrodes.montage.lines, electrodes=electrodes,
    )  # fmt: skip
    begun, before = time.perf_counter(), time.process_time()
    write_timeline(found, out)
    seconds, spent = time.perf_counter() - begun, time.process_time() - before
    blocks = out.read_text().count('<script type="text/plain" id="block-')
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    told = {"s to write": seconds, "processor s": spent, "MiB of memory": memory}
    print(json.dumps({"MB": out.stat().st_size / 1e6, "minutes of signal": blocks * BLOCK_S / 60, **told}))


def page(folder: Path, hours: float) -> dict[str, float]:
    """The page of a day."""
    recording, out = folder / "day.edf", folder / "day.html"
    write_day(recording, simulated(), hours)
    command = [sys.executable, __file__, "--page-child", str(recording), str(out)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    recording.unlink()
    return json.loads(done.stdout.splitlines()[-1]) | {"ms to first paint": first_paint(out)}


def first_paint(path: Path, tries: int = 5) -> float:
    """Milliseconds until a fresh chromium has painted a page for the first time; NaN where there is none."""
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        return float("nan")
    if not (chromium := shutil.which("chromium")):
        return float("nan")
    times = []
    for _ in range(tries):
        with sync_playwright() as playwright, playwright.chromium.launch(executable_path=chromium) as browser:
            opened = browser.new_page()
            opened.goto(path.resolve().as_uri())
            entries = opened.evaluate("performance.getEntriesByType('paint').map((entry) => entry.startTime)")
            times.append(min(entries))
    return float(np.median(times))


def spectrogram_errors(root: Path) -> dict[str, float]:
    """How far computed rows are from a competition's files: logarithms of power + 0.02, 8 s at either end left out."""
    import polars as pl

    competition = Competition(root)
    rows = pl.read_csv(competition.train_csv).unique("eeg_id", keep="first", maintain_order=True)
    errors = []
    for row in rows.iter_rows(named=True):
        uv_TC = pl.read_parquet(competition.eeg(row["eeg_id"])).select(CHANNELS).to_numpy()
        if np.isnan(uv_TC).any():
            continue
        start_s = row["spectrogram_label_offset_seconds"] + 275 - row["eeg_label_offset_seconds"]
        file = pl.read_parquet(competition.spectrogram(row["spectrogram_id"])).drop("time").to_numpy()
        first = int((start_s + EDGE_S) // 2) + 1
        last = int((start_s + len(uv_TC) / SFREQ_HZ - EDGE_S) // 2) - 1
        computed = multitaper_rows(uv_TC, 2 * first + 1 - start_s, last - first)
        difference = np.abs(np.log(computed + 0.02) - np.log(file[first:last] + 0.02))
        errors.append(difference[np.isfinite(difference)])
    together = np.concatenate(errors)
    return {
        "EEGs": len(errors),
        "values": len(together),
        "mean": float(together.mean()),
        "median": float(np.median(together)),
        "99th percentile": float(np.percentile(together, 99)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--speed-hours", type=float, default=1.0)
    parser.add_argument("--recipes", nargs="+", default=RECIPES)
    parser.add_argument("--page-hours", type=float, default=0.0)
    parser.add_argument("--real", type=Path)
    parser.add_argument("--child", nargs=3, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--page-child", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.page_child:
        page_child(*options.page_child)
        return
    if options.child:
        child(*options.child)
        return
    with tempfile.TemporaryDirectory() as name:
        found: dict[str, Any] = {}
        if options.hours:
            found["memory"] = memory(Path(name), options.hours)
        if options.speed_hours:
            found["speed"] = speed(Path(name), options.speed_hours, options.recipes)
        if options.page_hours:
            found["page"] = page(Path(name), options.page_hours)
        if options.real:
            found["spectrograms"] = spectrogram_errors(options.real)
    print(machine())
    print(versions("numpy", "scipy", "torch", "timm", "edfio"))
    for rows in (value if isinstance(value, list) else [value] for value in found.values()):
        print(table(list(rows[0]), [[_cell(value) for value in row.values()] for row in rows]))
    finish(found)


def _cell(value: Any) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()

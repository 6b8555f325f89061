"""EEG and panel features against librosa, SciPy, torch.stft, rocket-fft, NumPy and the limits of the machine.

    python benchmarks/features.py [--rounds 9] [--batch 64] [--skip-cold]

All contenders of a group run in turn in one process, so the ratios hold on a machine that others use as well; figures
are medians over the rounds. The limits, multiply-adds per second of one core and copies per second, are measured in the
same rounds. Prints tables and one JSON line. For the mel images the allocator is tuned in favour of the libraries that
allocate; the panels are measured with the allocator as it is, and once more tuned.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numba
import numpy as np
from _measure import (
    PEAK_FLOP,
    aligned,
    finish,
    in_turn,
    machine,
    medians,
    peak,
    table,
    versions,
    with_malloc_as_it_is,
    with_tuned_malloc,
)
from _mel_peers import best_chunk, librosa_notebook, rocket_fft, torch_low_rank, torch_stft
from _signal_peers import (
    causal,
    differences,
    folded,
    linear_by,
    spectra_librosa,
    spectra_scipy,
    spectra_strided,
    zoom_librosa,
    zoom_scipy,
)
from _simulated import eeg_windows
from threadpoolctl import threadpool_limits

from kagglehms.features import (
    FoldSpec,
    ZoomSpec,
    difference_spectra,
    folded_image,
    mel_images,
    normalise_rows,
    percentiles,
    summaries,
    zoomed_image,
)
from kagglehms.features.arrays import spread
from kagglehms.features.filters import design, linear_taps
from kagglehms.features.filters_compiled import two_modes
from kagglehms.features.mel_compiled import MelScratch
from kagglehms.features.mel_plan import MelSpec, plan
from kagglehms.features.simd import LANES
from kagglehms.features.transform_compiled import FRAMES, transform_frames

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import eeg_windows as broken
import oracles_features as oracle

PACKAGES = ("numpy", "numba", "llvmlite", "librosa", "torch", "rocket-fft", "scipy")
OURS = "kagglehms"


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument(
        "--rounds", type=int, default=9, help="runs of each contender, 9 or more for figures"
    )
    arguments.add_argument("--batch", type=int, default=64, help="EEG windows")
    arguments.add_argument(
        "--skip-cold", action="store_true", help="leave out the first calls in fresh processes"
    )
    arguments.add_argument(
        "--only-panels", action="store_true", help="panels alone, with the allocator as it is"
    )
    arguments.add_argument(
        "--only-signals", action="store_true", help="filters, folded images and spectra alone"
    )
    chosen = arguments.parse_args()
    if chosen.only_panels:
        finish(panel_section(chosen.rounds))
        return
    if chosen.only_signals:
        finish(signal_section(eeg_windows(8), chosen.rounds))
        return
    with_tuned_malloc(__file__, sys.argv[1:])
    figures: dict[str, Any] = {
        "machine": machine(), "versions": versions(*PACKAGES), "rounds": chosen.rounds, "batch": chosen.batch,
    }  # fmt: skip
    print(f"{figures['machine']}; {figures['versions']}; medians of {chosen.rounds} rounds\n")
    windows = eeg_windows(chosen.batch)
    figures.update(mel_section(windows, chosen.rounds))
    figures.update(transform_section(windows, chosen.rounds))
    figures.update(signal_section(windows[:8], chosen.rounds))
    figures["panels_us"] = with_malloc_as_it_is(__file__, ["--only-panels", "--rounds", str(chosen.rounds)])
    print("\nThe same with the tuned allocator:")
    figures["panels_us_tuned_malloc"] = panel_section(chosen.rounds)
    figures.update(accuracy_section(windows))
    if not chosen.skip_cold:
        figures.update(cold_section())
    finish(figures)


# ---- mel images


def optional(
    make: Callable[[], Callable[..., Any]], missing: list[str], name: str
) -> Callable[..., Any] | None:
    """Make a contender, or note that its library is not installed."""
    try:
        return make()
    except ImportError as error:
        missing.append(f"{name}: not measured, {error.name} is not installed")
        return None


def same_images(images: Any, windows: Any, wanted: Any, name: str) -> None:
    """A contender that computes something else would be no contender."""
    difference = float(np.abs(np.asarray(images(windows[:2])) - wanted[:2]).max())
    if difference > 2e-3:
        raise SystemExit(f"{name} differs by {difference:.1e}")


def mel_section(windows: Any, rounds: int) -> dict[str, Any]:
    n, few = len(windows), windows[:4]
    out = aligned((n, 4, 128, 256))
    half = windows.astype(np.float16)
    mel_images(windows, out)
    wanted, missing = out.copy(), []
    figures: dict[str, Any] = {}
    rows = []
    for threads in (1, 2):
        contenders: dict[str, tuple[Callable[[], object], int]] = {
            OURS: (lambda t=threads: mel_images(windows, out, t), n),
            f"{OURS}, half precision": (lambda t=threads: mel_images(half, out, t), n),
            f"{OURS}, one window": (lambda: mel_images(windows[0], out[0]), 1),
        }
        peers = {
            "librosa notebook": (optional(librosa_notebook, missing, "librosa notebook"), few),
            "torch.stft": (torch_peer(torch_stft, windows[:16], threads, missing, figures, "torch.stft"), windows),
            "same rank in torch": (
                torch_peer(torch_low_rank, windows[:16], threads, missing, figures, "same rank in torch"), windows,
            ),
            "rocket-fft": (optional(lambda t=threads: rocket_fft(t), missing, "rocket-fft"), windows[:16]),
        }  # fmt: skip
        for name, (images, given) in peers.items():
            if images is not None:
                same_images(images, windows, wanted, name)
                contenders[name] = (
                    spread_serial(images, given, threads if name.startswith("librosa") else 1),
                    len(given),
                )
        with threadpool_limits(1 if threads == 1 else None):
            seconds = in_turn({name: run for name, (run, _) in contenders.items()}, rounds)
        ms = {name: 1e3 * s / contenders[name][1] for name, s in medians(seconds).items()}
        figures[f"mel_ms_{threads}_threads"] = ms
        rows += [(name, threads, f"{value:.3f}", f"{value / ms[OURS]:.1f}") for name, value in ms.items()]
    figures.update(scaling(windows, out, 2 * rounds))
    print(table(["mel images", "threads", "ms per window", f"÷ {OURS}"], rows))
    for what, ratio in figures["two_threads_speedup"].items():
        print(f"{what}: two threads are {ratio:.2f} times as fast as one")
    print(*sorted(set(missing)), sep="\n")
    return figures


def scaling(windows: Any, out: Any, rounds: int) -> dict[str, Any]:
    """Two threads against one, ours and, in the same rounds, what the machine gives: multiply-adds and copies."""
    source, target = (np.ones((16, 1 << 20), np.float32) for _ in range(2))

    def fma(_: int) -> None:
        peak()

    def copy(part: int) -> None:
        np.copyto(target[part], source[part])

    contenders: dict[str, Callable[[], object]] = {}
    for threads in (1, 2):
        contenders[f"{OURS} {threads}"] = lambda t=threads: mel_images(windows, out, t)
        contenders[f"multiply-adds {threads}"] = lambda t=threads: spread(fma, 160, t)
        contenders[f"copies {threads}"] = lambda t=threads: spread(copy, len(source), t)
    found = medians(in_turn(contenders, rounds))
    kinds = (OURS, "multiply-adds", "copies")
    return {"two_threads_speedup": {kind: found[f"{kind} 1"] / found[f"{kind} 2"] for kind in kinds}}


def torch_peer(
    make: Any, few: Any, threads: int, missing: list[str], figures: dict[str, Any], name: str
) -> Any:
    """The contender at the chunk that is fastest for it, which is noted."""
    try:
        import torch
    except ImportError:
        missing.append(f"{name}: not measured, torch is not installed")
        return None
    torch.set_num_threads(threads)
    chunk = best_chunk(make, few)
    figures[f"{name}_chunk_{threads}_threads"] = chunk
    images = make(chunk)

    def with_threads(windows: Any) -> Any:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            return images(windows)

    return with_threads


def spread_serial(images: Any, windows: Any, threads: int) -> Callable[[], object]:
    """Share windows between threads for a contender that has none of its own."""
    if threads == 1:
        return lambda: images(windows)

    def run() -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(images, [windows[k::threads] for k in range(threads)]))

    return run


# ---- the transform alone, against the multiply-adds that the core can do


@numba.njit(nogil=True)
def _transform_all(scratch: Any, tables: Any, n_all: int, hop: int) -> None:
    for first in range(0, n_all, FRAMES):
        transform_frames(scratch.differences, scratch, tables, first, min(FRAMES, n_all - first), hop)


def transform_section(windows: Any, rounds: int) -> dict[str, Any]:
    spec = MelSpec()
    tables = plan(spec).transform
    half, rank, n_bins = tables.half, tables.rank, tables.n_bins
    hop = windows.shape[1] // spec.n_frames
    n_all = 1 + windows.shape[1] // hop
    x = np.pad(differences(windows[0], LANES).T, ((half, half), (0, 0)))
    scratch = MelScratch(
        differences=aligned((x.size,)),
        folded=aligned((half * 2 * LANES,)),
        kept=aligned((FRAMES * (rank + 1) * 2 * LANES,)),
        power=aligned((n_all * n_bins * LANES,)),
        bands=aligned((0,)),
    )
    scratch.differences[:] = x.reshape(-1)
    found = medians(
        in_turn({"transform": lambda: _transform_all(scratch, tables, n_all, hop), "peak": peak}, 6 * rounds)
    )
    flop = n_all * LANES * 2 * (2 * rank * half + 2 * n_bins * (rank + 1))
    limit = PEAK_FLOP / found["peak"] / 1e9
    reached = flop / found["transform"] / 1e9
    print(
        f"\ntransform of a window, fold and both stages: {1e3 * found['transform']:.3f} ms; the stages do "
        f"{reached:.0f} GF/s, {reached / limit:.0%} of the {limit:.0f} GF/s that one core did in the same rounds\n"
    )
    return {"transform_ms": 1e3 * found["transform"], "transform_gflops": reached, "peak_gflops": limit,
            "transform_of_peak": reached / limit}  # fmt: skip


# ---- raw signals and spectra


@numba.njit(nogil=True)
def _copy_and_filter(source: Any, lanes: Any, n_times: int, coefficients: Any) -> None:
    lanes[:] = source
    two_modes(lanes, 0, n_times, coefficients)


def alike(name: str, found: Any, wanted: Any, limit: float) -> None:
    """A contender that computes something else would be no contender."""
    difference = float(np.abs(np.asarray(found) - wanted).max())
    if not difference <= limit:
        raise SystemExit(f"{name} differs by {difference:.1e}")


def signal_section(windows: Any, rounds: int) -> dict[str, Any]:
    """Filter A on signals that lie ready; folded images and spectra from a window in the store's precision.

    One thread each, so its own time is read: what others take of the machine would fall upon the long calls.
    """
    halves = windows.astype(np.float16)
    i = itertools.cycle(range(len(halves))).__next__
    x = np.clip(differences(halves[0], 16), -1024, 1024)
    lanes, ready = aligned((x.size,)), np.ascontiguousarray(x.T).reshape(-1)
    modes, linear = design("causal").modes, linear_by(linear_taps())
    fold_linear = FoldSpec(filter="linear")
    image, spectra = aligned((160, 1000)), aligned((512, 512))
    missing: list[str] = []
    _copy_and_filter(ready, lanes, x.shape[1], modes)
    alike("sosfilt", causal(x), lanes.reshape(-1, 16).T, 1e-2)
    alike("folded, SciPy", folded(halves[0], causal), folded_image(halves[0], image), 1e-3)
    alike("folded, FFT", folded(halves[0], linear), folded_image(halves[0], image, spec=fold_linear), 1e-3)
    wanted = difference_spectra(halves[0], spectra).copy()
    alike("spectrogram", spectra_scipy(halves[0]), wanted, 2e-3)
    alike("strided rfft", spectra_strided(halves[0]), wanted, 2e-3)
    librosa_stft = optional(spectra_librosa, missing, "librosa.stft")
    groups: dict[str, dict[str, Callable[[], object]]] = {
        "filter A, 16 signals": {
            f"{OURS}, with a copy of the signals": lambda: _copy_and_filter(ready, lanes, x.shape[1], modes),
            "that copy alone": lambda: _copy_and_filter(ready, lanes, 0, modes),
            "scipy.signal.sosfilt": lambda: causal(x),
        },
        "folded image, filter A": {
            OURS: lambda: folded_image(halves[i()], image),
            "NumPy and sosfilt": lambda: folded(halves[i()], causal),
        },
        "folded image, filter B": {
            OURS: lambda: folded_image(halves[i()], image, spec=fold_linear),
            "NumPy and scipy.fft": lambda: folded(halves[i()], linear),
        },
        "spectra of 18 differences": {
            OURS: lambda: difference_spectra(halves[i()], spectra),
            "scipy.signal.spectrogram": lambda: spectra_scipy(halves[i()]),
            "strided frames, scipy.fft.rfft": lambda: spectra_strided(halves[i()]),
        },
    }
    if librosa_stft is not None:
        groups["spectra of 18 differences"]["librosa.stft"] = lambda: librosa_stft(halves[i()])
    groups["mel spectra, finer in the centre"] = zoom_contenders(halves, i, missing)
    figures: dict[str, Any] = {}
    lines = []
    with threadpool_limits(1):
        for what, contenders in groups.items():
            found = medians(in_turn(contenders, max(rounds, 15), least_s=5e-3, clock=time.thread_time))
            ours = next(iter(found.values()))
            figures[what] = {name: 1e6 * seconds for name, seconds in found.items()}
            lines += [(what, name, f"{1e6 * s:.1f}", f"{s / ours:.1f}") for name, s in found.items()]
    print(
        table(["raw signals, one window, one thread", "", "µs of the thread", f"÷ {OURS}"], lines),
        *missing,
        "",
        sep="\n",
    )
    return {"signals_us": figures}


def zoom_contenders(halves: Any, i: Callable[[], int], missing: list[str]) -> dict[str, Callable[[], object]]:
    """Three planes of mel spectra, and others' ways to them."""
    spec = ZoomSpec()
    out = aligned(spec.shape)
    wanted = zoomed_image(halves[0], out).copy()
    contenders: dict[str, Callable[[], object]] = {
        OURS: lambda: zoomed_image(halves[i()], out),
        "its size, copied": lambda: np.copyto(out, wanted),
    }
    for name, make in (
        ("librosa melspectrogram", zoom_librosa),
        ("strided frames, scipy.fft.rfft, mel", zoom_scipy),
    ):
        image = optional(make, missing, name)
        if image is not None:
            alike(name, image(halves[0]), wanted, 2e-2)
            contenders[name] = lambda image=image: image(halves[i()])
    return contenders


# ---- panels


def numpy_percentiles(panels: Any) -> Any:
    return np.stack([np.percentile(panels, q, axis=-3) for q in (20, 40, 60, 80)], axis=-3)


def numpy_summaries(panels: Any) -> Any:
    low, high = panels.min(axis=-3), panels.max(axis=-3)
    return np.stack([low, high, panels.mean(axis=-3), high - low], axis=-3)


def numpy_nan_summaries(panels: Any) -> Any:
    low, high = np.nanmin(panels, axis=-3), np.nanmax(panels, axis=-3)
    return np.stack([low, high, np.nanmean(panels, axis=-3), high - low], axis=-3)


def panel_section(rounds: int, batch: int = 32) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    log_power, out = (aligned((batch, 4, 100, 300)) for _ in range(2))
    log_power[:] = rng.normal(1, 2.5, log_power.shape)
    rows = np.ascontiguousarray(np.moveaxis(log_power, -1, 1).reshape(batch, 300, 400)).astype(np.float16)
    # One image at a time, but each call another of eight, as records come.
    i, j = itertools.cycle(range(8)).__next__, itertools.cycle(range(8)).__next__
    groups = {
        f"percentiles, {batch} images": {
            OURS: lambda: percentiles(log_power, out=out),
            "copy of the same bytes": lambda: np.copyto(out, log_power),
            "numpy": lambda: numpy_percentiles(log_power[:1]),
        },
        f"min, max, mean, range, {batch} images": {
            OURS: lambda: summaries(log_power, out=out),
            "copy of the same bytes": lambda: np.copyto(out, log_power),
            "numpy": lambda: numpy_summaries(log_power),
            "numpy, where there may be NaN": lambda: numpy_nan_summaries(log_power),
        },
        "min, max, mean, range, 1 image": {
            OURS: lambda: summaries(log_power[i()], out=out[j()]),
            "copy of the same bytes": lambda: np.copyto(out[i()], log_power[j()]),
            "numpy": lambda: numpy_summaries(log_power[i()]),
            "numpy, where there may be NaN": lambda: numpy_nan_summaries(log_power[i()]),
        },
        "stored rows to panels, 1 record": {
            f"{OURS}, own statistics": lambda: normalise_rows(rows[i()], out[j()]),
            f"{OURS}, given statistics": lambda: normalise_rows(rows[i()], out[j()], 0.0, 2.0),
            "copy of the result": lambda: np.copyto(out[i()], log_power[j()]),
        },
    }  # fmt: skip
    assert all(np.array_equal(percentiles(log_power)[:, i], np.percentile(log_power, q, axis=1).astype(np.float32))
               or np.__version__ < "2.4" for i, q in enumerate((20, 40, 60, 80)))  # fmt: skip
    figures: dict[str, Any] = {}
    lines = []
    for what, contenders in groups.items():
        found = medians(in_turn(contenders, max(3 * rounds, 27), least_s=5e-3))
        if what.startswith("percentiles"):
            found["numpy"] *= batch  # it was given one image
        ours = next(iter(found.values()))
        figures[what] = {name: 1e6 * seconds for name, seconds in found.items()}
        lines += [(what, name, f"{1e6 * s:.1f}", f"{s / ours:.2f}") for name, s in found.items()]
    print(table(["panels", "", "µs of the thread", f"÷ {OURS}"], lines))
    return figures


# ---- errors


def accuracy_section(windows: Any) -> dict[str, Any]:
    kinds = {
        f"simulated EEG, {len(windows[:8])} windows": windows[:8],
        **{k: w[None] for k, w in broken.NASTY.items()},
    }
    rows, figures = [], {}
    for kind, given in kinds.items():
        error = np.abs(mel_images(given) - np.stack([oracle.mel_image(window) for window in given]))
        figures[kind] = {"max": float(error.max()), "mean": float(error.mean())}
        rows.append((kind, f"{error.max():.1e}", f"{error.mean():.1e}"))
    print("\n" + table(["error of a pixel against float64", "max", "mean"], rows))
    return {"mel_error": figures}


# ---- first calls

COLD = """
import time
begin = time.perf_counter()
import numpy as np
import numba
imported = time.perf_counter()
from kagglehms.features import mel_images, normalise_rows
ready = time.perf_counter()
mel_images(np.ones((1, 10000, 20), np.float32))
mel = time.perf_counter()
normalise_rows(np.ones((300, 400), np.float16), np.empty((400, 300), np.float32))
print(imported - begin, ready - imported, mel - ready, time.perf_counter() - mel)
"""


def cold_section(runs: int = 3) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    rows = []
    for kind in ("nothing cached", "cached"):
        times = []
        for _ in range(runs):
            with tempfile.TemporaryDirectory() as folder:
                for _ in range(1 if kind == "nothing cached" else 2):
                    environment = {**os.environ, "NUMBA_CACHE_DIR": folder}
                    done = subprocess.run(
                        [sys.executable, "-c", COLD],
                        env=environment,
                        capture_output=True,
                        text=True,
                        check=True,
                    )
            times.append([float(value) for value in done.stdout.split()])
        numba_s, features_s, mel_s, rows_s = np.median(times, axis=0)
        figures[kind] = {"import_numba_s": numba_s, "import_features_s": features_s, "mel_images_s": mel_s,
                         "then_normalise_rows_s": rows_s}  # fmt: skip
        rows.append((kind, f"{numba_s:.2f}", f"{features_s:.2f}", f"{mel_s:.2f}", f"{rows_s:.2f}"))
    header = ["first call, s", "import numba", "import features", "mel_images", "then normalise_rows"]
    print("\n" + table(header, rows))
    return {"first_call": figures}


if __name__ == "__main__":
    main()

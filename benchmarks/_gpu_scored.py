"""A scored run of 4,000 rows with bundles of 1, 5 and 25 networks: rows per second by part, memory, and Kaggle's T4."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _bundles import NORMALISER, reduced_bundle, untrained_bundle
from _gpu_book import Book, figure
from _gpu_data import simulated, test_folder
from _gpu_parts import Circumstances
from torch.utils.flop_counter import FlopCounterMode

from kagglehms.bundle.predictor import LoadedModel, Predictor, load_bundle
from kagglehms.data.competition import Competition
from kagglehms.environment import available_cpus
from kagglehms.kernel.marker import Marker
from kagglehms.kernel.prior import read_rows
from kagglehms.kernel.protocol import TIME_LIMIT_S, Task
from kagglehms.kernel.scored_run import run_scored
from kagglehms.kernel.test_set import BATCH_ROWS, CropCache, Reader, batches
from kagglehms.rehearsal.hidden_test_set import HIDDEN_ROWS, make_hidden
from kagglehms.training.recipes import Recipe, get_recipe

RECIPES = ("kaggle+eeg", "mosaic-xloss", "raw-fold", "stft-50-10", "global-norm")
"""The first one makes the bundle of one network, the first folds of all that of five."""
N_FOLDS = 5
PART_ROWS = 600
"""Rows on which reading and drawing are measured by themselves."""
HEADER = (
    "networks",
    "status",
    "seconds",
    "before the first pass",
    "first pass, s",
    "later passes, s",
    "rows × networks / s",
    "peak MiB on the card",
    "in main memory",
)
PEAKS = {"H100": (989.4, 3350), "H200": (989.4, 4800), "A100": (312, 1555), "L4": (121, 300), "T4": (65, 320)}
"""Card → published TFLOP/s of half precision's dense products, and GB/s of its memory."""
T4 = {"TFLOP/s": 65.0, "TFLOP/s in float32": 8.1, "GB/s": 320.0, "cores": 4}
"""NVIDIA's published peaks of a T4, and the cores of Kaggle's machine with two of them."""


@dataclass
class Rates:
    """Rows per second of one recipe, by part; and what its network computes.

    Attributes:
        reading: parquet files → crops.
        drawing: crops that were kept → images.
        network: images → probabilities, the copy to the card included.
        gflop: of one row, multiplications and additions.
    """

    reading: float
    drawing: float
    network: float
    gflop: float


def run(told: Circumstances, book: Book) -> None:
    rows, recipes = (12, _small()) if told.dry_run else (HIDDEN_ROWS, [get_recipe(name) for name in RECIPES])
    hidden = make_hidden(told.scratch / "hidden", rows, simulated(test_folder(told.scratch)).root)
    whole = untrained_bundle(told.scratch / "bundle-all", recipes, 2 if told.dry_run else N_FOLDS)
    book.note("made", rows=rows, seconds_left=round(book.left_s, 1))
    rates = _by_part(told, book, hidden, load_bundle(whole, told.device))
    names = [recipe.name for recipe in recipes]
    bundles = {
        1: reduced_bundle(whole, told.scratch / "bundle-1", names[:1], 1),
        len(names): reduced_bundle(whole, told.scratch / "bundle-5", names, 1),
        len(read_models(whole)): whole,
    }
    book.table(f"Scored runs, {rows} rows, mirroring off", HEADER, [])
    per_pass = 0.0
    for n, bundle in bundles.items():
        if not told.dry_run and n not in told.networks:
            continue
        if not book.has_time(f"scored run of {n} networks", min(15.0, 1.2 * n * per_pass)):
            continue
        with book.guarded(f"scored run of {n} networks"):
            marker = _scored(told, book, hidden, bundle, n)
            per_pass = marker.seconds / n
    with book.guarded("projection for a T4"):
        _project(book, rates, rows)


def read_models(bundle: Path) -> list[Any]:
    return json.loads((bundle / "manifest.json").read_bytes())["models"]


def _small() -> list[Recipe]:
    return [replace(get_recipe(name), backbone="half:test_efficientnet") for name in RECIPES[:2]]


# -- part by part --------------------------------------------------------------------------------------------------


def _by_part(told: Circumstances, book: Book, hidden: Competition, predictor: Predictor) -> dict[str, Rates]:
    found: dict[str, Rates] = {}
    lines = []
    for name, entry in {entry.recipe: entry for entry in reversed(predictor.manifest.models)}.items():
        with book.guarded(f"rates of {name}"):
            model = predictor.load(entry)
            found[name] = _rates(told, hidden, model)
            book.note("rates", recipe=name, backbone=model.recipe.backbone, **vars(found[name]))
            *rates, gflop = vars(found[name]).values()
            lines.append((name, model.recipe.backbone, *map(figure, rates), figure(gflop, ".1f")))
    header = ("recipe", "network", "reading", "drawing", "network alone", "GFLOP a row")
    title = f"Rows per second by part, {available_cpus()} cores, batches of {BATCH_ROWS}"
    book.table(title, header, lines)
    return found


def _rates(told: Circumstances, hidden: Competition, model: LoadedModel) -> Rates:
    rows, sources = read_rows(hidden), model.recipe.layout.sources
    chosen = range(min(PART_ROWS, len(rows)))
    reader = Reader(hidden, rows, CropCache(told.scratch, len(rows), sources))
    reading = _rate(lambda: _read(reader, chosen, sources), len(chosen))
    drawing = _rate(lambda: _draw(reader, chosen, model), len(chosen))
    reader.cache.close()
    return Rates(reading, drawing, *_network(model, 4 if told.dry_run else 960))


def _rate(work: Callable[[], object], n: int) -> float:
    start = time.perf_counter()
    work()
    return n / (time.perf_counter() - start)


def _read(reader: Reader, rows: Iterable[int], sources: Collection[Any]) -> None:
    """As many at a time as the scored run has."""
    with ThreadPoolExecutor(2 * available_cpus()) as pool:
        missing = [crop is None for crop in pool.map(lambda row: reader.crop(row, sources), rows)]
    assert not any(missing), reader.failures


def _draw(reader: Reader, rows: range, model: LoadedModel) -> None:
    for _ in batches(reader, rows, model.recipe.layout, model.normaliser):
        pass


def _network(model: LoadedModel, rows: int) -> tuple[float, float]:
    """Rows per second of the network, and its GFLOP a row."""
    shape = (BATCH_ROWS, *_shape(model))
    inputs = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    if rows < BATCH_ROWS:
        inputs = inputs[:rows]
    for _ in range(3):
        model.predict_images(inputs)
    rate = _rate(
        lambda: [model.predict_images(inputs) for _ in range(-(-rows // len(inputs)))] and None, rows
    )
    with FlopCounterMode(display=False) as counter:
        model.predict_images(inputs[:1])
    return rate, counter.get_total_flops() / 1e9


def _shape(model: LoadedModel) -> tuple[int, ...]:
    """Of what the network is given of one row."""
    from _feeding import InMemory, make_records

    from kagglehms.training.feed import Feed

    feed = Feed(InMemory(), make_records(), model.recipe.layout, NORMALISER)
    (batch,) = islice(feed.batches(np.arange(1), 1), 1)
    return tuple(batch.images_BCHW.shape[1:])


# -- the whole -----------------------------------------------------------------------------------------------------


def _scored(told: Circumstances, book: Book, hidden: Competition, bundle: Path, n: int) -> Marker:
    """One scored run by the product's own code, in this process."""
    where = told.scratch / f"run-{n}"
    (where / "scratch").mkdir(parents=True)
    if told.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    task = Task(
        str(bundle),
        str(hidden.root),
        str(where / "out"),
        device=told.device,
        time_limit_s=max(5.0, book.left_s - 3),
        scratch=str(where / "scratch"),
        mirror=False,
    )
    code = run_scored(task)
    marker = Marker.read(where / "out")
    assert marker is not None
    on_card = torch.cuda.max_memory_allocated() / 2**20 if told.device == "cuda" else None
    in_main = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    seconds = [step["seconds"] for step in marker.steps]
    book.note(
        "scored run",
        networks=n,
        rows=marker.rows,
        code=code,
        status=marker.status,
        seconds=marker.seconds,
        before_first_step_s=marker.seconds_before_first_step,
        steps=marker.steps,
        left_out=marker.left_out,
        problems=marker.problems,
        peak_MiB_card=on_card,
        peak_MiB_main=in_main,
        rows_with_prior=len(marker.rows_with_prior),
    )
    later = f"{min(seconds[1:]):.1f} to {max(seconds[1:]):.1f}" if len(seconds) > 1 else "–"
    row = (
        n,
        marker.status,
        figure(marker.seconds),
        figure(marker.seconds_before_first_step, ".1f"),
        figure(seconds[0] if seconds else None, ".1f"),
        later,
        figure(len(seconds) * marker.rows / max(marker.seconds, 0.1)),
        figure(on_card),
        figure(in_main),
    )
    book.row(row)
    return marker


# -- a T4 ----------------------------------------------------------------------------------------------------------


def _project(book: Book, rates: dict[str, Rates], rows: int) -> None:
    """What Kaggle's machine would take, from this one's times and published figures; nothing is measured there."""
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    tflops, gbs = next((peak for name, peak in PEAKS.items() if name in card), _measured(book))
    slower = {"arithmetic": tflops / T4["TFLOP/s"], "bandwidth": gbs / T4["GB/s"]}
    factor = max(slower.values())
    cores = available_cpus() / T4["cores"]
    lines, seconds = [], {"floor": 0.0, "projected": 0.0}
    for name, rate in rates.items():
        network = factor / rate.network
        floor = rate.gflop / 1e3 / T4["TFLOP/s"]
        drawing = cores / rate.drawing
        projected = rows * max(network, drawing)
        seconds["projected"] += N_FOLDS * projected
        seconds["floor"] += N_FOLDS * rows * floor
        times = (rows * network, rows * drawing, projected)
        lines.append((name, figure(rows * floor, ".1f"), *map(figure, times)))
    reading = rows * cores * max(1 / rate.reading for rate in rates.values())
    total, limit = seconds["projected"] + reading, TIME_LIMIT_S
    book.note(
        "projection for a T4",
        of=card or "a CPU",
        peaks={"TFLOP/s": tflops, "GB/s": gbs},
        T4=T4,
        factor=factor,
        reading_s=reading,
        total_s=total,
        floor_s=seconds["floor"],
        time_limit_s=limit,
        holds=total < limit,
        holds_with_mirrors=2 * total < limit,
    )
    header = (
        "recipe",
        "at the T4's peak, s",
        "network, s",
        f"drawing on {T4['cores']} cores, s",
        "a pass, s",
    )
    book.table(
        f"Projected for a T4, {rows} rows (from published figures; nothing was measured on one)",
        header,
        lines,
    )
    once, twice = ("holds" if seconds < limit else "does NOT hold" for seconds in (total, 2 * total))
    book.text(
        ("" if card else "**No GPU: what follows only shows that it is computed.** ")
        + f"Published peaks: T4 {T4['TFLOP/s']:.0f} TFLOP/s in float16 ({T4['TFLOP/s in float32']} in float32), "
        f"{T4['GB/s']:.0f} GB/s; {card or 'here'} {tflops:.0f} and {gbs:.0f}. A network's time here × {factor:.1f}, "
        "the larger of the two ratios; drawing and reading by the number of cores; a pass takes the longer of network "
        f"and drawing. {N_FOLDS * len(rates)} networks: {total / 3600:.2f} h with {reading:.0f} s of reading, "
        f"{2 * total / 3600:.2f} h with mirrored passes. The limit of {limit / 3600:.1f} h {once}; with these it "
        f"{twice}."
    )


def _measured(book: Book) -> tuple[float, float]:
    """What the first part measured of this card, or a T4's own figures where there is none."""
    for found in book.lines("machine"):
        if "matmul_bf16_TFLOPs" in found:
            return found["matmul_bf16_TFLOPs"], found["copy_GBs"]
    return T4["TFLOP/s"], T4["GB/s"]

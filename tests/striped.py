"""Records that a tiny network can learn: the class shows as the panel that carries a loud stripe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import polars as pl

from kagglehms.data.competition import VOTE_COLUMNS
from kagglehms.data.records import Records
from kagglehms.device import choose_device
from kagglehms.inputs.kinds import Input
from kagglehms.inputs.layouts import PANELS_BY_THEMSELVES
from kagglehms.inputs.measuring import measure
from kagglehms.training.feed import Feed
from kagglehms.training.recipes import Stage, get_recipe

CPU = choose_device("cpu")
RECIPE = replace(
    get_recipe("baseline"),
    backbone="half:test_efficientnet",
    batch_size=8,
    stages=(Stage(epochs=3),),
    lr=3e-3,
    drop_path_rate=0.0,
)


class Stripes:
    """Spectrograms in which the class shows as the panel that carries a loud stripe."""

    def spectrogram(self, spectrogram_id: int) -> np.ndarray:
        log_power = np.random.default_rng(spectrogram_id).normal(0, 0.5, (300, 400))
        low = 100 * (spectrogram_id % 4)
        log_power[:, low + 20 : low + 40] += 4
        return log_power.astype(np.float16)

    def eeg(self, eeg_id: int) -> np.ndarray:
        return np.random.default_rng(eeg_id).normal(0, 50, (10_000, 20)).astype(np.float16)


def striped_feed(
    n: int = 32, layout: Input = PANELS_BY_THEMSELVES, few: int = 0, teachers: Sequence[str] = ()
) -> Feed:
    """`n` records, the first `few` of them with one vote, the others with twelve; teachers that predict anything."""
    columns = {name: [0] * n for name in ("eeg_id", "label_id", "patient_id")}
    votes = {
        name: [(1 if i < few else 12) * (i % 4 == k) for i in range(n)] for k, name in enumerate(VOTE_COLUMNS)
    }
    offsets = ("eeg_offset_min_s", "eeg_offset_max_s", "spectrogram_offset_min_s", "spectrogram_offset_max_s")
    frame = pl.DataFrame(
        {**columns, **votes, **{name: [0.0] * n for name in offsets}, "spectrogram_id": list(range(n))}
    )
    records = Records(frame)
    rng = np.random.default_rng(0)
    return Feed(
        Stripes(),
        records,
        layout,
        measure(Stripes(), records, np.arange(n), layout.global_sources),
        teachers={name: rng.dirichlet(np.ones(6), n) for name in teachers},
    )

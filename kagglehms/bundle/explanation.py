"""What mattered to models: how their answer changes when a chain of electrodes or a second is hidden from them.

Hidden means missing, as in a recording whose electrodes fell off: models have seen gaps in training, and every input
replaces them in its own way. So one method serves images, signals and both, and no gradient is needed.

Source: Zeiler & Fergus (2014), "Visualizing and Understanding Convolutional Networks", section 4.2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kagglehms.data.competition import (
    CHAINS,
    CHANNELS,
    CLASSES,
    FREQUENCIES_HZ,
    N_TIMES,
    PANELS,
    SPECTROGRAM_S,
    SPECTROGRAM_STEP_S,
    WINDOW_S,
)
from kagglehms.data.frames import to_library
from kagglehms.inputs.layouts import Crop

if TYPE_CHECKING:
    import pandas
    import polars
    from numpy.typing import NDArray

Judge = Callable[[Sequence[Crop]], "NDArray[np.float64]"]
"""Crops → (B, 6) probabilities."""

MIDLINE = "midline"
CHAIN_NAMES = (*PANELS, MIDLINE)
"""Names of what is hidden in the rows of `Explanation.by_chain`."""
N_SECONDS = round(WINDOW_S)
_SECOND = N_TIMES // N_SECONDS


@dataclass(frozen=True)
class Explanation:
    """How the probabilities of one window change when parts of it are hidden.

    Attributes:
        probabilities: (6,) probabilities of the whole window.
        by_chain: (5, 6) probabilities less those without each chain, in the order of `CHAIN_NAMES`; positive where the
            chain speaks for the class.
        by_second: (50, 6) probabilities less those without each second of the window.
    """

    probabilities: NDArray[np.float64]
    by_chain: NDArray[np.float64]
    by_second: NDArray[np.float64]

    @property
    def most_likely(self) -> str:
        """Name of the class with the highest probability."""
        return CLASSES[int(self.probabilities.argmax())]

    def chains_for(self, name: str | None = None) -> dict[str, float]:
        """Return chain → what it adds to the probability of a class, the largest first.

        Args:
            name: name of the class; None for the most likely one.
        """
        added = self.by_chain[:, CLASSES.index(name or self.most_likely)]
        return {CHAIN_NAMES[i]: float(added[i]) for i in np.argsort(-added, kind="stable")}

    def seconds_for(self, name: str | None = None) -> dict[int, float]:
        """Return second of the window → what it adds to the probability of a class, the largest first.

        Args:
            name: name of the class; None for the most likely one.
        """
        added = self.by_second[:, CLASSES.index(name or self.most_likely)]
        return {int(i): float(added[i]) for i in np.argsort(-added, kind="stable")}

    def to_polars(self) -> polars.DataFrame:
        """Return a polars frame, one row for each hidden part: `hidden`, `from_s`, `to_s`, and a column a class."""
        import polars as pl

        rows: list[dict[str, Any]] = [
            {"hidden": chain, "from_s": 0.0, "to_s": WINDOW_S} for chain in CHAIN_NAMES
        ]
        rows += [{"hidden": "second", "from_s": float(s), "to_s": s + 1.0} for s in range(N_SECONDS)]
        values = np.concatenate([self.by_chain, self.by_second])
        classes = {name: values[:, k] for k, name in enumerate(CLASSES)}
        return pl.DataFrame(rows).with_columns(
            **{name: pl.Series(column) for name, column in classes.items()}
        )

    def to_pandas(self) -> pandas.DataFrame:
        """Return the table of `to_polars` as a pandas frame."""
        return to_library(self.to_polars(), "pandas")

    def __repr__(self) -> str:
        """Return the most likely class, with the chains and the seconds that speak most for it."""
        chains = ", ".join(f"{name} {value:+.3f}" for name, value in self.chains_for().items())
        seconds = ", ".join(f"{s} {value:+.3f}" for s, value in list(self.seconds_for().items())[:5])
        best = self.probabilities.max()
        return f"{self.most_likely} {best:.3f}\nchains: {chains}\nseconds: {seconds} …"


def explain(crop: Crop, judge: Judge, at_once: int = 8) -> Explanation:
    """Hide each chain and each second of a window from what judges it, one at a time.

    Args:
        crop: recordings in the window.
        judge: judges crops, of which there are 56 in total.
        at_once: largest number of crops to judge in one call.
    """
    chains = [without_chain(crop, chain) for chain in CHAIN_NAMES]
    seconds = [without_second(crop, second) for second in range(N_SECONDS)]
    crops = [crop, *chains, *seconds]
    judged = [judge(crops[i : i + at_once]) for i in range(0, len(crops), at_once)]
    whole_K, *others = np.concatenate(judged)
    changes = whole_K - np.stack(others)
    return Explanation(whole_K, changes[: len(chains)], changes[len(chains) :])


def without_chain(crop: Crop, chain: str) -> Crop:
    """Return a crop in which a chain is missing: every difference of its electrodes, and its spectrogram.

    The electrodes at either end of a lateral and a parasagittal chain are the same. They stay, as the differences of a
    chain are missing without those in between. Of the midline all three electrodes are missing.
    """
    electrodes = ("Fz", "Cz", "Pz") if chain == MIDLINE else CHAINS[chain][1:-1]
    eeg_uv, log_power = _copies(crop)
    if eeg_uv is not None:
        eeg_uv[:, [CHANNELS.index(name) for name in electrodes]] = np.nan
    if log_power is not None and chain != MIDLINE:
        n, panel = len(FREQUENCIES_HZ), PANELS.index(chain)
        log_power[:, panel * n : (panel + 1) * n] = np.nan
    return Crop(log_power, eeg_uv)


def without_second(crop: Crop, second: int) -> Crop:
    """Return a crop in which a second of the 50 s window is missing, and the row of the spectrogram around it.

    Args:
        crop: recordings in the window.
        second: number of the second, from 0 to 49.
    """
    eeg_uv, log_power = _copies(crop)
    if eeg_uv is not None:
        eeg_uv[second * _SECOND : (second + 1) * _SECOND] = np.nan
    if log_power is not None:
        log_power[int((SPECTROGRAM_S - WINDOW_S) / 2 + second) // SPECTROGRAM_STEP_S] = np.nan
    return Crop(log_power, eeg_uv)


def _copies(crop: Crop) -> tuple[NDArray[np.float16] | None, NDArray[np.float16] | None]:
    return (
        None if crop.eeg_uv is None else crop.eeg_uv.copy(),
        None if crop.log_power is None else crop.log_power.copy(),
    )

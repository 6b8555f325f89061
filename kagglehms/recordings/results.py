"""Results for a few windows and for whole recordings, as tables, events, annotations and a summary.

Shape legend: B windows of a batch, N all windows of a recording, K the six classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from kagglehms.data.competition import CLASSES, LABEL_S
from kagglehms.errors import counted
from kagglehms.recordings.events import Event, Windows, find_events, to_mne

if TYPE_CHECKING:
    import pandas
    import polars
    from numpy.typing import NDArray

    from kagglehms.recordings.electrodes import Electrodes

WARNING = "for research only; not a medical device, and no basis for any decision about a patient"
"""Warning in every output."""
SPREAD_COLUMNS = tuple(f"{name}_spread" for name in CLASSES)
HOUR_S = 3600
_SHOWN = 3
_LINES = 10


@dataclass(frozen=True)
class Prediction:
    """The probabilities of one or several windows, and which models could judge them.

    NumPy treats it as the array of its probabilities.

    Attributes:
        probabilities: (6,) or (B, 6) float64 in the order of `classes`; every row sums to 1.
        from_prior: () or (B,) whether the row is the class prior, as the window was empty for every model.
        from_fewer_models: () or (B,) whether the window was empty for some recipes of the bundle only.
        spread: (6,) or (B, 6) standard deviation over the folds of a recipe, root mean square over recipes; NaN where
            no recipe has two folds.
    """

    probabilities: NDArray[np.float64]
    from_prior: NDArray[np.bool_]
    from_fewer_models: NDArray[np.bool_]
    spread: NDArray[np.float64]

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the six classes, in the order of the columns of `probabilities`."""
        return CLASSES

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Return the probabilities."""
        return self.probabilities.astype(dtype or np.float64, copy=bool(copy))

    def __len__(self) -> int:
        """Count the windows; one for a single one."""
        return len(np.atleast_2d(self.probabilities))

    def __getitem__(self, row: int) -> Prediction:
        """Return the prediction of one window; that of a single one is its own row 0.

        Raises:
            IndexError: there is no such row.
        """
        rows = (
            np.atleast_2d(self.probabilities),
            np.atleast_1d(self.from_prior),
            np.atleast_1d(self.from_fewer_models),
            np.atleast_2d(self.spread),
        )
        return Prediction(*(np.asarray(part[row]) for part in rows))

    def columns(self) -> dict[str, NDArray[Any]]:
        """Return the columns of the table: probabilities, spreads, and which models could judge."""
        probabilities_BK, spread_BK = np.atleast_2d(self.probabilities), np.atleast_2d(self.spread)
        return {
            **{name: probabilities_BK[:, k] for k, name in enumerate(CLASSES)},
            **{name: spread_BK[:, k] for k, name in enumerate(SPREAD_COLUMNS)},
            "from_prior": np.atleast_1d(self.from_prior),
            "from_fewer_models": np.atleast_1d(self.from_fewer_models),
        }

    def to_polars(self) -> polars.DataFrame:
        """Return a polars frame, one row a window, nulls where there is no value."""
        import polars as pl

        return pl.DataFrame(self.columns(), nan_to_null=True)

    def to_pandas(self) -> pandas.DataFrame:
        """Return a pandas frame, one row a window, NaN where there is no value."""
        import pandas as pd

        return pd.DataFrame(self.columns())

    def __repr__(self) -> str:
        """Return one line per window with the names of the classes, and the warning."""
        rows = np.atleast_2d(self.probabilities)
        lines = [
            ", ".join(f"{name} {p:.3f}" for name, p in zip(CLASSES, row, strict=True))
            for row in rows[:_LINES]
        ]
        more = [f"… and {len(rows) - _LINES} more"] if len(rows) > _LINES else []
        return "\n".join([f"Prediction of {counted(len(rows), 'window')}", *lines, *more, WARNING])


@dataclass(frozen=True)
class RecordingPrediction:
    """The prediction of a recording.

    Attributes:
        name: path of the file, or the kind of object.
        duration_s: length in seconds, interruptions included.
        every_s: seconds from one window to the next.
        start_s: (N,) seconds from the recording's first sample to the judged ten seconds of each window.
        probabilities: (N, 6) probabilities in the order of `classes`; NaN for a window that was not judged.
        spread: (N, 6) standard deviation over the folds of a recipe, root mean square over recipes; NaN where no
            recipe has two folds.
        flags: (N,) whether each window has the flag, by its name; see `recordings.sliding.Flags`.
        from_fewer_models: (N,) whether the window was empty for some recipes of the bundle only.
        spectrogram_share: (N,) share of the ten minutes of a spectrogram that lies within the recording; NaN if no
            recipe uses spectrograms.
        mapping: channels of each electrode, one line per electrode.
        missing: electrodes that the recording lacks.
        notes: further remarks for the reader.
        electrodes: the recording itself, for its timeline page; None if it is not at hand.
        caveat: why the models are not fit to judge patients; empty if nothing shows it.
    """

    name: str
    duration_s: float
    every_s: float
    start_s: NDArray[np.float64]
    probabilities: NDArray[np.float64]
    spread: NDArray[np.float64]
    flags: Mapping[str, NDArray[np.bool_]]
    from_fewer_models: NDArray[np.bool_]
    spectrogram_share: NDArray[np.float64]
    mapping: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())
    electrodes: Electrodes | None = field(default=None, compare=False)
    caveat: str = ""

    def __len__(self) -> int:
        """Count the windows, judged or not."""
        return len(self.start_s)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the six classes, in the order of the columns of `probabilities`."""
        return CLASSES

    @property
    def judged(self) -> NDArray[np.bool_]:
        """(N,) whether a window has probabilities."""
        return np.logical_and.reduce(np.isfinite(self.probabilities), axis=1)

    def columns(self) -> dict[str, NDArray[Any]]:
        """Return the columns of the table: start, probabilities, spreads, flags."""
        return {
            "start_s": self.start_s,
            **{name: self.probabilities[:, k] for k, name in enumerate(CLASSES)},
            **{name: self.spread[:, k] for k, name in enumerate(SPREAD_COLUMNS)},
            "judged": self.judged,
            **self.flags,
            "from_fewer_models": self.from_fewer_models,
            "spectrogram_share": self.spectrogram_share,
        }

    @classmethod
    def of(
        cls, name: str, table: polars.DataFrame, summary: Mapping[str, Any], electrodes: Electrodes
    ) -> RecordingPrediction:
        """Restore a prediction from its table and its summary.

        Args:
            name: path of the file.
            table: table of the windows, as `to_polars` returns it.
            summary: summary, as `summary` returns it.
            electrodes: the recording itself.
        """
        numbers = {column: table[column].cast(float).fill_null(np.nan).to_numpy() for column in table.columns}
        return cls(
            name,
            summary["duration_s"],
            summary["every_s"],
            numbers["start_s"],
            np.stack([numbers[column] for column in CLASSES], axis=1),
            np.stack([numbers[column] for column in SPREAD_COLUMNS], axis=1),
            {flag: table[flag].to_numpy() for flag in summary["flags"]},
            table["from_fewer_models"].to_numpy(),
            numbers["spectrogram_share"],
            tuple(summary["mapping"]),
            tuple(summary["missing_electrodes"]),
            tuple(summary["notes"]),
            electrodes,
            summary.get("caveat", ""),
        )

    def to_polars(self) -> polars.DataFrame:
        """Return a polars frame, one row a window, nulls where there is no value."""
        import polars as pl

        return pl.DataFrame(self.columns(), nan_to_null=True)

    def to_pandas(self) -> pandas.DataFrame:
        """Return a pandas frame, one row a window, NaN where there is no value."""
        import pandas as pd

        return pd.DataFrame(self.columns())

    def events(self, threshold: float = 0.5) -> list[Event]:
        """Join neighbouring windows of one class into events; see `recordings.events.find_events`."""
        spoilt = self.flags["artefact"] | self.flags["flat"]
        windows = Windows(self.start_s, self.every_s, self.duration_s, self.probabilities, spoilt)
        return find_events(windows, threshold)

    def to_mne_annotations(self, threshold: float = 0.5, raw: Any = None) -> Any:
        """Return the events as MNE `Annotations`, for `raw.set_annotations(raw.annotations + …)`.

        Args:
            threshold: least probability of an event.
            raw: the judged recording as a `Raw` object of MNE's: if it has a date, its annotations and the events only
                fit together if they count from that date. None counts from the recording's first sample.

        Raises:
            UsageError: MNE is not installed, or the threshold is not a probability.
        """
        return to_mne(self.events(threshold), raw)

    def _highest(self) -> dict[str, Any] | None:
        """Return the highest probability of a class that makes events, and where it is; None if nothing was judged."""
        if not self.judged.any():
            return None
        harmful = np.nan_to_num(self.probabilities[:, : CLASSES.index("other")], nan=-1.0)
        row, k = np.unravel_index(int(harmful.argmax()), harmful.shape)
        highest = _number(harmful[row, k])
        return {"class": CLASSES[k], "probability": highest, "start_s": float(self.start_s[row])}

    def burden(self) -> list[dict[str, float]]:
        """Compute the burden of each class per hour.

        Returns:
            One entry per hour of the recording: `hour`, counted from 0; `judged_share`, the share of its windows that
            were judged; and the mean probability of each class over these, NaN if there are none.
        """
        hours = (self.start_s // HOUR_S).astype(np.int64)
        judged = self.judged
        table = []
        for hour in np.unique(hours):
            of_hour = hours == hour
            rows = self.probabilities[of_hour & judged]
            means = rows.mean(axis=0) if len(rows) else np.full(len(CLASSES), np.nan)
            shares = {name: float(mean) for name, mean in zip(CLASSES, means, strict=True)}
            table.append({"hour": float(hour), "judged_share": float(judged[of_hour].mean()), **shares})
        return table

    def summary(self, threshold: float = 0.5) -> dict[str, Any]:
        """Return the content of the summary: lengths, counts, burden per hour, mapping, notes."""
        rows = self.probabilities[self.judged]
        means = rows.mean(axis=0) if len(rows) else np.full(len(CLASSES), np.nan)
        events = self.events(threshold)
        return {
            "warning": WARNING,
            "caveat": self.caveat,
            "duration_s": self.duration_s,
            "every_s": self.every_s,
            "windows": len(self),
            "judged": int(self.judged.sum()),
            "flags": {name: int(flag.sum()) for name, flag in self.flags.items()},
            "mean_probability": {name: _number(mean) for name, mean in zip(CLASSES, means, strict=True)},
            "events": {name: sum(e.name == name for e in events) for name in CLASSES if name != "other"},
            "event_threshold": threshold,
            "highest": self._highest(),
            "burden_per_hour": [{k: _number(v) for k, v in hour.items()} for hour in self.burden()],
            "missing_electrodes": list(self.missing),
            "mapping": list(self.mapping),
            "notes": list(self.notes),
        }

    def __repr__(self) -> str:
        """Return a few lines for a person: length, windows, flags, likeliest classes, warning."""
        judged = self.judged
        flagged = ", ".join(f"{int(flag.sum())} {name}" for name, flag in self.flags.items() if flag.any())
        lines = [
            f"RecordingPrediction of {self.name}: {self.duration_s:.0f} s, {counted(len(self), 'window')} "
            f"of {LABEL_S} s every {self.every_s:g} s, {int(judged.sum())} judged"
            + (f" (flagged: {flagged})" if flagged else "")
        ]
        if judged.any():
            means = self.probabilities[judged].mean(axis=0)
            best = np.argsort(-means)[:_SHOWN]
            lines.append("mean: " + ", ".join(f"{CLASSES[k]} {means[k]:.2f}" for k in best))
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join([*lines, *([self.caveat] if self.caveat else []), WARNING])


def _number(value: float) -> float | None:
    """A rounded number for JSON, null in place of NaN."""
    return round(float(value), 6) if np.isfinite(value) else None

"""Blends by name: the ensembles of the ladder, and the blends that were fitted below a folder of runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kagglehms.errors import HMSError, UsageError, closest
from kagglehms.files import listed
from kagglehms.runs.blends import Blend, blend_from_json, check_members
from kagglehms.runs.folder import BLENDS, FOLDS, RECIPE, RUN, RunFolder, find_runs
from kagglehms.training.recipes import RECIPES


@dataclass(frozen=True)
class BlendSpec:
    """A blend of probabilities by name, before anything is fitted.

    Attributes:
        name: name by which commands refer to the blend.
        members: names of the recipes.
        weights: one weight a member; None if they are to be fitted to out-of-fold predictions.
        note: what must be known to compare.
    """

    name: str
    members: tuple[str, ...]
    weights: tuple[float, ...] | None = None
    note: str = ""

    def __post_init__(self) -> None:
        check_members(self.name, self.members, self.weights)

    def blend(self) -> Blend:
        """Return the blend itself.

        Raises:
            UsageError: its weights have to be fitted first.
        """
        if self.weights is None:
            raise UsageError(f"the weights of blend {self.name} are fitted: run kagglehms blend {self.name}")
        return Blend(self.name, self.members, self.weights)


def get_blend_spec(name: str) -> BlendSpec:
    """Look a blend of the ladder up by name.

    Raises:
        UsageError: unknown; the message lists what exists.
    """
    for spec in LADDER_BLENDS:
        if spec.name == name:
            return spec
    raise UsageError(f"unknown blend {name!r}; {closest(name, [spec.name for spec in LADDER_BLENDS])}")


_KAGGLE = ("baseline", "global-stats")
_EEG = ("eeg+percentiles", "eeg-global-stats")
_SINGLE = (
    *_KAGGLE,
    "panels+global",
    *_EEG,
    "vote-weighted",
    "vote-weighted-global",
    "global-norm",
    "global-norm-stats",
    "mosaic-xloss",
    "mosaic-xloss-stats",
    "two-stage",
)
_TWO_STAGE = ("two-stage", "two-stage-stats")
_EEG_TWO_STAGE = ("eeg-two-stage", "eeg-two-stage-stats")
_HALVES, _QUARTERS, _FIFTHS = (0.5,) * 2, (0.25,) * 4, (0.2,) * 5
_WINNERS = ("raw-fold", "raw-fold-hgnet", "stft-50-10", "stft-30-10", "stft-50-10-maxvit")

LADDER_BLENDS = (
    BlendSpec("kaggle-ensemble", _KAGGLE, _HALVES),
    # Of the blends below the source gives neither weights nor space: equal parts of probabilities, as above.
    BlendSpec("eeg-ensemble", _EEG, _HALVES),
    BlendSpec("kaggle+eeg-ensemble", (*_KAGGLE, *_EEG), _QUARTERS),
    BlendSpec("vote-weighted-ensemble", ("vote-weighted", "vote-weighted-global"), _HALVES),
    BlendSpec("global-norm-ensemble", ("global-norm", "global-norm-stats"), _HALVES),
    BlendSpec("mosaic-xloss-ensemble", ("mosaic-xloss", "mosaic-xloss-stats"), _HALVES),
    BlendSpec("two-stage-ensemble", _TWO_STAGE, _HALVES),
    BlendSpec("eeg-two-stage-ensemble", _EEG_TWO_STAGE, _HALVES),
    BlendSpec("final", (*_TWO_STAGE, *_EEG_TWO_STAGE), _QUARTERS),
    BlendSpec("single-models", _SINGLE, note="not of the source: the mean of twelve of its single models"),
    BlendSpec(
        "winners",
        _WINNERS,
        _FIFTHS,
        note="not of the source: recipes after the 2nd and the 7th place, who blended others; no figure published",
    ),
    BlendSpec(
        "all-rungs",
        tuple(name for name in RECIPES if name != "demo"),
        note="not of the source: the mean of all recipes",
    ),
)
"""The ensembles of the source's ladder, in its order, and our own."""


def blend_path(runs: Path, name: str) -> Path:
    """Return the file of a fitted blend.

    Raises:
        UsageError: the name would make the folder of all blends look like a run.
    """
    if f"{name}.json".lower() in {RECIPE, RUN, FOLDS}:
        raise UsageError(f"a blend cannot be called {name!r}, as a file of a run is; choose another name")
    return runs / BLENDS / f"{name}.json"


def blend_files(runs: Path) -> list[Path]:
    """Return the files of all fitted blends; older versions let a run use their folder, whose own files are none."""
    paths = {path for path in listed(runs / BLENDS) if path.suffix == ".json"}
    return sorted(paths - {runs / BLENDS / name for name in (RECIPE, RUN, FOLDS)})


def read_blends(runs: Path) -> tuple[list[Blend], list[str]]:
    """Read every fitted blend below `runs`, and return a sentence for each that cannot be read."""
    blends, problems = [], []
    for path in blend_files(runs):
        try:
            blends.append(blend_from_json(path.read_bytes(), path))
        except (HMSError, OSError) as error:
            problems.append(str(error))
    return blends, problems


def find_blend(runs: Path, name: str) -> Blend:
    """Look up a blend: a fitted one below `runs`, or one of the ladder whose weights are given.

    Raises:
        UsageError: there is neither; the message lists what exists.
        DataError: the file of the fitted blend cannot be used.
    """
    path = blend_path(runs, name)
    if path.is_file():
        return blend_from_json(path.read_bytes(), path)
    given = [spec.name for spec in LADDER_BLENDS if spec.weights is not None]
    if name in given:
        return get_blend_spec(name).blend()
    known = [*(path.stem for path in blend_files(runs)), *given]
    raise UsageError(f"no blend {name!r}; {closest(name, known)}; `kagglehms blend` fits others")


def blend_members(runs: Path, names: Sequence[str]) -> tuple[str, ...]:
    """Return the runs that names on the command line stand for: themselves, or the members of one ensemble.

    Raises:
        UsageError: there are no names, or one is neither a run nor an ensemble of the ladder.
    """
    if not names:
        raise UsageError("name the runs to blend, or one blend of the ladder, such as kaggle-ensemble")
    if len(names) > 1 or RunFolder(runs / names[0]).begun:
        return tuple(names)
    given = {spec.name: spec.members for spec in LADDER_BLENDS}
    if names[0] not in given:
        known = [*(run.name for run in find_runs(runs)), *given]
        raise UsageError(f"no run or blend {names[0]!r}; {closest(names[0], known)}")
    return given[names[0]]

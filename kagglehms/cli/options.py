"""The options of each command: frozen dataclasses, from which tyro makes the command line and its help."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

if TYPE_CHECKING:
    from kagglehms.training.recipes import Recipe


@dataclass(frozen=True)
class Prepare:
    """Decode every recording that train.csv names, once, into a store that training memory-maps.

    Safe to interrupt: the next call goes on where it stopped. A finished store is left as it is.

    Attributes:
        data: the competition's folder.
        store: where the store is made.
        jobs: files decoded at a time (default: all CPU cores).
        backend: who decodes: threads of this process, `loky` processes, or the workers of a Dask or Ray cluster that
            see the same files.
        scheduler: address of the cluster, such as tcp://host:8786 (default: workers started on this machine).
    """

    data: Path
    store: Path = Path("store")
    jobs: int | None = None
    backend: Literal["threading", "loky", "dask", "ray"] = "threading"
    scheduler: str | None = None


@dataclass(frozen=True)
class Train:
    """Train the folds of one or more recipes and score them out of fold.

    Folds that are finished are not trained again.

    Attributes:
        names: recipes, such as `baseline`; `baseline-as-published` is the run of its notebook.
        data: the competition's folder.
        store: what `kagglehms prepare` made of it.
        out: the folder of all runs.
        folds: how many folds the records are cut into.
        fold: train only these folds (numbers from 0).
        limit: use only about so many records, of whole patients: for a quick pass.
        epochs: per stage, instead of the recipe's.
        batch_size: instead of the recipe's.
        backbone: any timm model, instead of the recipe's; `half:` before its name halves the images.
        weights: what networks start from: `auto` (timm's ImageNet weights, from the cache of the hub's client or from
            the hub), a .safetensors file, a folder with `<backbone>.safetensors`, or `none` to start from scratch.
        device: `cpu`, `cuda` (NVIDIA's or AMD's) or `mps` (Apple's) (default: `cuda` if it works).
        time_limit: stop in time with the state saved, such as `8.5h` or `90m`, counted from the start of this command;
            the same command goes on from there. Exit code 3 says that something is left.
        resume_from: an earlier session's folder of runs, only read: what it has trained is taken over first.
        save_every: the state is saved after each evaluation and so often in between, such as `10m`.
        compile: run networks through torch.compile: minutes at the start, faster steps on a GPU.
        tensorboard: write TensorBoard's event files as well.
    """

    names: tyro.conf.Positional[tuple[str, ...]]
    data: Path
    store: Path = Path("store")
    out: Path = Path("runs")
    folds: int = 5
    fold: tuple[int, ...] = ()
    limit: int | None = None
    epochs: int | None = None
    batch_size: int | None = None
    backbone: str | None = None
    weights: str = "auto"
    device: Literal["cpu", "cuda", "mps"] | None = None
    time_limit: str | None = None
    resume_from: Path | None = None
    save_every: str = "10m"
    compile: bool = False
    tensorboard: bool = False

    def changed(self, recipe: Recipe) -> Recipe:
        """The recipe as these options want it."""
        return recipe.changed(self.epochs, self.batch_size, self.backbone)


@dataclass(frozen=True)
class Ladder:
    """Show every recipe and every ensemble: what the source published, and what has been trained here.

    Attributes:
        names: only these recipes, runs or ensembles.
        runs: the folder of all runs.
        format: of the table, which for a terminal has the scores alone; `csv` and `json` have all and are unrounded.
        out: a file to write it to, instead of the terminal.
        run: train the recipes that are not trained yet; safe to interrupt.
        data: the competition's folder, for --run; of a simulated one, its truth is found beside it.
        store: what `kagglehms prepare` made of it, for --run.
        folds: how many folds the records are cut into.
        limit: use only about so many records, for a quick pass.
        epochs: per stage, instead of the recipes'.
        backbone: any timm model, instead of the recipes'; `half:` before its name halves the images.
        weights: as for `kagglehms train`.
        device: `cpu`, `cuda` (NVIDIA's or AMD's) or `mps` (Apple's) (default: `cuda` if it works).
        time_limit: as for `kagglehms train`.
        truth: train_truth.csv of the simulated competition that the runs are on; adds how far each has come from
            the class prior to the perfect predictor.
    """

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    runs: Path = Path("runs")
    format: Literal["table", "markdown", "csv", "json"] = "table"
    out: Path | None = None
    run: bool = False
    data: Path | None = None
    store: Path = Path("store")
    folds: int = 5
    limit: int | None = None
    epochs: int | None = None
    backbone: str | None = None
    weights: str = "auto"
    device: Literal["cpu", "cuda", "mps"] | None = None
    time_limit: str | None = None
    truth: Path | None = None

    def training(self, names: tuple[str, ...]) -> Train:
        """The options of `kagglehms train` that these amount to."""
        assert self.data is not None
        return Train(
            names,
            data=self.data,
            store=self.store,
            out=self.runs,
            folds=self.folds,
            limit=self.limit,
            epochs=self.epochs,
            backbone=self.backbone,
            weights=self.weights,
            device=self.device,
            time_limit=self.time_limit,
        )


@dataclass(frozen=True)
class FitBlend:
    """Fit the weights of a blend to out-of-fold predictions, and score it honestly: by patient-grouped nested
    cross-validation.

    Attributes:
        names: runs to blend, or one run to calibrate alone, or one blend of the ladder, such as `kaggle-ensemble`.
        name: of the fitted blend; it is kept in RUNS/blends.
        runs: the folder of all runs.
        population: fit to `all` records, or to those with `many` (at least 10) votes, as the hidden test set seems to
            have; scored on both.
        correct_prior: move each run's predictions from the class prior of the records that it learned from to that of
            the population, before anything else.
        prior_exponent: of that correction: 1 is Bayes' rule, 0 none at all, `fit` fits it.
        min_votes: leave records with fewer votes out of everything.
        space: what is averaged, probabilities or their logarithms; `auto` lets inner cross-validation choose.
        biases: whether each class gets a bias.
        shrinkage: the pull towards equal weights (default: inner cross-validation chooses).
        json: print weights and scores as JSON.
    """

    names: tyro.conf.Positional[tuple[str, ...]]
    name: str = "blend"
    runs: Path = Path("runs")
    population: Literal["all", "many"] = "all"
    correct_prior: bool = False
    prior_exponent: float | Literal["fit"] = 1.0
    min_votes: int = 1
    space: Literal["probability", "logit", "auto"] = "probability"
    biases: bool = False
    shrinkage: float | None = None
    json: bool = False


@dataclass(frozen=True)
class Rehearse:
    """Run a built kernel as Kaggle would: offline, in a fake /kaggle, in a process of its own.

    Attributes:
        kernel: which of dist/kernels: `infer`, `train` or `prepare`.
        data: the competition's folder; `infer` predicts its test set.
        dist: what build.py made.
        out: where submission.csv and the log are put, and what `train` and `prepare` put out, in folders of their
            names. What lies there is mounted where a kernel asks for it: `prepare`'s store for `train`, and
            `train`'s own last session.
        layout: of the mounts below /kaggle/input: by `owner` and kind, or every one by its `slug`; or `all` in turn.
        isolation: `namespaces` (a real /kaggle, read-only input, no network) or the weaker `guard` (default: the
            best that this machine allows).
        hidden: swap the test set for one of so many rows, which says what the hidden one will take.
        hidden_from: a competition folder whose test recordings they are (default: simulated ones).
        time: of the session, such as `9h` or `90s`, after which the kernel is killed.
        disk_gb: that /kaggle/working may take.
    """

    kernel: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="KERNEL")]
    data: Path
    dist: Path = Path("dist")
    out: Path = Path("rehearsal")
    layout: Literal["owner", "slug", "all"] = "owner"
    isolation: Literal["namespaces", "guard"] | None = None
    hidden: int | None = None
    hidden_from: Path | None = None
    time: str | None = None
    disk_gb: float = 20.0


@dataclass(frozen=True)
class Preflight:
    """Check what build.py made against every rule of Kaggle and its client that is known, before a push.

    All findings are listed at once, each with its cure; the exit code is 1 if there are any.

    Attributes:
        dist: what build.py made.
        json: print the findings as JSON.
    """

    dist: Path = Path("dist")
    json: bool = False


@dataclass(frozen=True)
class Status:
    """Say how the dataset and the kernels of a build stand on Kaggle.

    The exit code is 1 if the dataset is not of this build or a kernel failed.

    Attributes:
        dist: what build.py made.
    """

    dist: Path = Path("dist")


@dataclass(frozen=True)
class Fetch:
    """Fetch what the kernels on Kaggle left behind, and their logs.

    Attributes:
        names: kernels of dist/kernels.
        dist: what build.py made.
        out: where the outputs are put, one folder per kernel.
        wait: wait for the end of a kernel that still runs.
    """

    names: tyro.conf.Positional[tuple[str, ...]] = ("infer",)
    dist: Path = Path("dist")
    out: Path = Path("outputs")
    wait: bool = False


@dataclass(frozen=True)
class Simulate:
    """Make a simulated competition, in the real file formats, out of nothing.

    Its true class probabilities are put beside it, into OUT-truth. Safe to interrupt: the same command goes on.

    Attributes:
        out: the competition's folder; new, empty, or made by the same command before.
        eegs: EEG recordings to learn from.
        test: EEG recordings to predict.
        seed: decides every byte.
        threads: sessions simulated at a time (default: all CPU cores).
        truth: also score the perfect predictor, the class prior and a baseline on electrode energy.
        easy: quiet patients, mostly clear truths and many votes, as in the demo: not like real data, but little of
            it is enough to learn from.
    """

    out: Path
    eegs: int = 240
    test: int = 40
    seed: int = 0
    threads: int | None = None
    truth: bool = False
    easy: bool = False


@dataclass(frozen=True)
class Demo:
    """Go the whole way once, on a simulated competition: data, training, bundle, offline kernel, score.

    Attributes:
        out: where everything is put.
        seed: of the simulated competition.
    """

    out: Path = Path("demo")
    seed: int = 0

"""Train recipes, one after the other: the work of `kagglehms train`, of `ladder --run` and of the training kernel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from kagglehms.console import say, tell
from kagglehms.device import Precision, choose_device
from kagglehms.errors import HMSError, RunError, Stopped, UsageError, counted
from kagglehms.stop_signals import stop_signals
from kagglehms.timing import Clock, Duration, seconds_of
from kagglehms.training.trackers import Tracking, check_installed

if TYPE_CHECKING:
    from kagglehms.device import Device
    from kagglehms.runs.cross_validation import Outcome
    from kagglehms.runs.dataset import Dataset
    from kagglehms.training.recipes import Recipe
    from kagglehms.training.session import Session

_SAVE_EVERY = Duration("10m")


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How recipes are trained: options of commands, and of the training kernel's OPTIONS.

    Attributes:
        data: the competition's folder (default: KAGGLEHMS_DATA, or where `kagglehms doctor` finds it).
        store: folder of the recordings that `kagglehms prepare` decoded.
        runs: folder of all runs.
        folds: number of folds into which the records are cut.
        fold: train only these folds, numbered from 0 (default: all).
        limit: use only about this many records, of whole patients, for a quick pass.
        epochs: epochs of each stage, instead of the recipe's.
        batch_size: records in a batch, instead of the recipe's.
        backbone: any timm model, instead of the recipe's; `half:` before its name halves the images. For recipes of
            signals also `eeg:` and the name of a model of braindecode.
        lr: highest learning rate, instead of the recipe's.
        seed: seed of first weights, order and augmentations, instead of the recipe's.
        set: other settings of the recipe, such as `dropout=0.2`, `ema=0.998` or `stages.0.epochs=3`.
        name: name of the run, instead of the recipe's, to keep a variant apart.
        weights: first weights of the networks: `auto` (timm's ImageNet weights, from the cache of the hub's client or
            from the hub), a .safetensors file, a folder with `<backbone>.safetensors`, or `none` to start from scratch.
        device: `cpu`, `cuda` (NVIDIA's or AMD's) or `mps` (Apple's) (default: `cuda` if it works).
        precision: `float32`, `bfloat16` or `float16` (default: the half precision that a GPU has units for; on a CPU
            float32, where `bfloat16` is faster for dense networks on processors with AMX).
        time_limit: stop within this time from the start, such as `8.5h` or `90m`, with the state saved; the same
            command continues from there. Exit code 3 means that something is left to train.
        resume_from: folder of an earlier session's runs, which is only read: what it trained is copied first, and
            teachers are looked for there too.
        save_every: longest time between two saved states, such as `10m`; each evaluation saves one as well.
        compile: run networks through torch.compile: minutes at the start, faster steps on a GPU.
        cuda_graphs: let the GPU replay the launches of a step by itself, where one process trains: faster on a card
            that computes a step sooner than Python launches it, at up to twice the memory.
        log: trackers that get the scores as well: `tensorboard`, whose files are written into the folders of the folds;
            `wandb`, Weights & Biases; `mlflow`.
    """

    data: Path | None = None
    store: Path = Path("store")
    runs: Path = Path("runs")
    folds: int = 5
    fold: tuple[int, ...] = field(default=(), metadata={"metavar": "K"})
    limit: int | None = None
    epochs: int | None = None
    batch_size: int | None = None
    backbone: str | None = None
    lr: float | None = None
    seed: int | None = None
    set: tuple[str, ...] = field(default=(), metadata={"metavar": "FIELD=VALUE"})
    name: str | None = None
    weights: str = "auto"
    device: Literal["cpu", "cuda", "mps"] | None = None
    precision: Precision | None = None
    time_limit: Duration | None = None
    resume_from: Path | None = None
    save_every: Duration = _SAVE_EVERY
    compile: bool = False
    cuda_graphs: bool = False
    log: tuple[Tracking, ...] = ()

    def __post_init__(self) -> None:
        for text in (self.time_limit, self.save_every):
            seconds_of(text)
        if self.compile and self.cuda_graphs:
            raise UsageError("--compile and --cuda-graphs exclude each other; leave one out")
        for fold in self.fold:
            if not 0 <= fold < self.folds:
                raise UsageError(f"there is no fold {fold}; {self.folds} folds are 0 to {self.folds - 1}")

    def changed(self, recipe: Recipe) -> Recipe:
        """Return the recipe with what these options say instead of its own.

        Raises:
            UsageError: it cannot have one of these settings.
        """
        from kagglehms.training.variants import with_settings

        changed = recipe.changed(self.epochs, self.batch_size, self.backbone)
        own = {name: getattr(self, name) for name in ("lr", "seed", "name")}
        changed = replace(changed, **{name: value for name, value in own.items() if value is not None})
        return with_settings(changed, self.set) if self.set else changed

    def recipes(self, names: Sequence[str]) -> list[Recipe]:
        """Return the recipes to train.

        Args:
            names: names of recipes, and files of recipes, see `variants.find_recipes`.

        Raises:
            UsageError, DataError: as `variants.find_recipes` and `changed`; or several recipes would have one name.
        """
        from kagglehms.training.variants import find_recipes

        recipes = [self.changed(recipe) for name in names for recipe in find_recipes(name)]
        twice = [name for name, count in Counter(r.name for r in recipes).items() if count > 1]
        if twice:
            raise UsageError(
                f"several runs would be called {', '.join(sorted(twice))}; train one at a time, each with its --name"
            )
        return recipes


@dataclass
class Trained:
    """What `train_recipes` did.

    Attributes:
        outcomes: runs of the recipes that were trained, in order.
        left: recipes that are not finished, because the time was up or their turn has not come yet.
        problems: why other recipes failed, one line each.
    """

    outcomes: list[Outcome] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def train_recipes(
    names: Sequence[str],
    options: TrainingOptions,
    clock: Clock | None = None,
    keep_going: bool = False,
    only: Collection[str] | None = None,
    note: Callable[[Trained], None] | None = None,
) -> Trained:
    """Train recipes, one after the other, each in its folder of `options.runs`.

    Args:
        names: names of the recipes, or files of recipes, in this order.
        options: how they are trained; `data` is required here.
        clock: time that may be taken; None starts at the process's start and ends at `options.time_limit`.
        keep_going: note a recipe that fails and train the next one, and return when the time is up. Without it both
            raise. In a team of processes a recipe that fails raises either way, because the others may wait for the
            one that failed: only a new start, with `only` those of `Trained.left` behind it, can go on.
        only: names of the recipes to train, of those that `names` stands for; None trains all.
        note: called with what was done so far: before each recipe, which then stands first in `Trained.left`, by the
            process that leads; and when a recipe fails in a team, by the process in which it did.

    Raises:
        UsageError, DataError: something unknown was named, or the data cannot be used.
        RunError: see `cross_validate`, and `keep_going`.
        Stopped: the time was up, or a signal asked for the end.
    """
    from kagglehms.runs.dataset import open_dataset

    if options.data is None:
        raise UsageError("training needs the competition's folder, and no `data` was given")
    check_installed(options.log)
    recipes = [recipe for recipe in options.recipes(names) if only is None or recipe.name in only]
    dataset = open_dataset(options.data, options.store, options.folds, options.limit)
    with stop_signals() as stop:
        from kagglehms.training.distributed import assemble
        from kagglehms.training.session import Session

        clock = clock or Clock(seconds_of(options.time_limit))
        save_every_s = seconds_of(options.save_every)
        with assemble(options.device) as team:
            session = Session(
                clock, stop, team, save_every_s, options.compile, options.cuda_graphs, options.log
            )
            return _train_all(recipes, options, dataset, session, keep_going, note or (lambda _: None))


def _train_all(
    recipes: Sequence[Recipe],
    options: TrainingOptions,
    dataset: Dataset,
    session: Session,
    keep_going: bool,
    note: Callable[[Trained], None],
) -> Trained:
    device, team = choose_device(options.device, options.precision), session.team
    say(device.reason + (f"; {team.size} processes" if team.size > 1 else ""))
    trained = Trained()
    for number, recipe in enumerate(recipes):
        trained.left = [left.name for left in recipes[number:]]
        if team.leads:
            note(trained)
        try:
            epochs = sum(later.epochs for later in recipes[number + 1 :])
            later = epochs / recipe.epochs * len(options.fold or range(dataset.n_folds))
            place = f"recipe {number + 1} of {len(recipes)}, " if len(recipes) > 1 else ""
            own = replace(session, place=place, later=later)
            trained.outcomes.append(_train(recipe, options, dataset, device, own))
        except Stopped as stopped:
            if not keep_going:
                raise
            say(str(stopped))
            return trained
        except HMSError as error:
            if not keep_going:
                raise
            trained.problems.append(f"{recipe.name}: {error}")
            if team.size > 1:  # the other processes may wait for this one: only a new start can help
                note(trained)
                raise RunError(trained.problems[-1]) from error
            say(f"error: {trained.problems[-1]}")
    trained.left = []
    return trained


def _train(
    recipe: Recipe, options: TrainingOptions, dataset: Dataset, device: Device, session: Session
) -> Outcome:
    from kagglehms.runs.cross_validation import cross_validate
    from kagglehms.runs.identity import continue_from
    from kagglehms.runs.teachers import with_teachers

    earlier = () if options.resume_from is None else (options.resume_from,)
    if options.resume_from is not None and session.team.leads:
        taught = with_teachers(dataset, recipe, options.runs, *earlier)
        taken = continue_from(options.resume_from, options.runs, recipe, taught, options.weights)
        say(f"{recipe.name}: {counted(taken, 'fold')} taken over from {options.resume_from}")
    session.team.wait()
    outcome = cross_validate(
        recipe, dataset, options.runs, device, options.weights, options.fold or None, session, earlier
    )
    tell(outcome.sentence)
    return outcome

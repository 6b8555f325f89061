"""Trackers of experiments, to which a fold's scores go beside its own logs: TensorBoard, Weights & Biases, MLflow.

Each is an optional package, which is imported where it is asked for, and takes its settings from its own environment
variables: `WANDB_MODE=offline` and `WANDB_PROJECT`, `MLFLOW_TRACKING_URI` and `MLFLOW_EXPERIMENT_NAME`.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol

from kagglehms.errors import UsageError, first_line
from kagglehms.files import write_bytes

Tracking = Literal["tensorboard", "wandb", "mlflow"]
_PROJECT = "kagglehms"
_RUN_ID = "{}_run"
"""File of a fold's folder with the id of its run, by tracker: a later session continues that run."""


class Tracker(Protocol):
    """Where scores go."""

    def scores(self, values: Mapping[str, float], step: int) -> None:
        """Log scores of a training step."""

    def close(self) -> None:
        """Send what is left."""


class _TensorBoard:
    """Event files for TensorBoard, in `tensorboard` below the fold's folder."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"))

    def scores(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class _WandB:
    """One run of Weights & Biases for each fold, in the group of its recipe."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        try:
            import wandb
        except ImportError as error:
            raise _missing("wandb") from error
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT),
            group=folder.parent.name,
            name=_name(folder),
            config=dict(settings),
            dir=str(folder),
            id=_kept_id(folder, "wandb", lambda: uuid.uuid4().hex),
            resume="allow",
        )

    def scores(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


class _MLflow:
    """One run of MLflow for each fold, tagged with its recipe; in `mlruns` here unless another place is set.

    MLflow's own default is a database, which the package that is asked for, mlflow-skinny, cannot open.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        try:
            from mlflow.tracking import MlflowClient
        except ImportError as error:
            raise _missing("mlflow") from error
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # since 3.7 folders are refused without it
        self._client = MlflowClient(
            os.environ.get("MLFLOW_TRACKING_URI") or Path("mlruns").absolute().as_uri()
        )
        self._id = _kept_id(folder, "mlflow", lambda: self._begin(folder, settings))

    def _begin(self, folder: Path, settings: Mapping[str, Any]) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT)
        experiment = self._client.get_experiment_by_name(name)
        number = self._client.create_experiment(name) if experiment is None else experiment.experiment_id
        tags = {"recipe": folder.parent.name, "fold": folder.name}
        begun = str(self._client.create_run(number, tags=tags, run_name=_name(folder)).info.run_id)
        for key, value in settings.items():
            self._client.log_param(begun, key, str(value)[:_LONGEST_PARAMETER])
        return begun

    def scores(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._client.log_metric(self._id, name, value, step=step)

    def close(self) -> None:
        self._client.set_terminated(self._id)


_LONGEST_PARAMETER = 500
"""Characters of a parameter that every server of MLflow takes."""
_TRACKERS: Mapping[Tracking, Callable[[Path, Mapping[str, Any]], Tracker]] = {
    "tensorboard": _TensorBoard,
    "wandb": _WandB,
    "mlflow": _MLflow,
}


def check_installed(names: Iterable[Tracking]) -> None:
    """Refuse trackers whose packages are missing, before anything is trained.

    Raises:
        UsageError: one is not installed; the message says how to get it.
    """
    for name in names:
        spec = find_spec(name)
        if (
            spec is None or spec.origin is None
        ):  # a folder of that name, as trackers leave them, is no package
            raise _missing(name)


def open_tracker(name: Tracking, folder: Path, settings: Mapping[str, Any]) -> Tracker:
    """Open a tracker for a fold.

    Args:
        name: which one.
        folder: folder of the fold, RUNS/<recipe>/fold<k>.
        settings: settings of the recipe, which trackers show beside the scores.

    Raises:
        UsageError: it is not installed, or does not start.
    """
    check_installed([name])
    try:
        return _TRACKERS[name](folder, settings)
    except UsageError:
        raise
    except Exception as error:  # each package has errors of its own
        raise UsageError(f"--log {name} does not start: {first_line(error)}; {_REMEDIES[name]}") from error


_REMEDIES: Mapping[Tracking, str] = {
    "tensorboard": "pip install 'kagglehms[tensorboard]'",
    "wandb": "log in with `wandb login`, or set WANDB_MODE=offline",
    "mlflow": "see MLFLOW_TRACKING_URI, or unset it to log into this folder",
}


def _missing(name: Tracking) -> UsageError:
    return UsageError(f"--log {name} needs {name}, which is missing; pip install 'kagglehms[{name}]'")


def _name(folder: Path) -> str:
    return f"{folder.parent.name}/{folder.name}"


def _kept_id(folder: Path, tracker: str, make: Callable[[], str]) -> str:
    """Return the id of the fold's run, which is made and kept in its folder at the first call."""
    path = folder / _RUN_ID.format(tracker)
    if not path.is_file():
        write_bytes(path, make().encode())
    return path.read_text().strip()

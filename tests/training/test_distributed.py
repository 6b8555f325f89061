"""Several processes train as one: the same records, the same scores, within rounding."""

from __future__ import annotations

import itertools
import socket
import subprocess
import sys
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import children
import numpy as np
import polars as pl
import pytest
import torch
from children import THOROUGH
from devices import device_at
from hypothesis import given
from hypothesis import strategies as st
from striped import RECIPE, striped_feed

from kagglehms.data.competition import Competition
from kagglehms.data.preparing import prepare, recordings_of
from kagglehms.data.records import read_records
from kagglehms.training import distributed, step
from kagglehms.training.distributed import Team, share_batch_statistics
from kagglehms.training.models import make_model
from kagglehms.training.resume import STATE, read_state
from kagglehms.training.step import Learner


@given(st.integers(0, 50), st.integers(1, 7))
def test_shares_are_the_whole_once_and_in_order(n: int, size: int) -> None:
    shares = [Team(rank, size).share(np.arange(n)) for rank in range(size)]
    assert np.concatenate(shares).tolist() == list(range(n))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=20), st.integers(2, 4))
def test_weighted_shares_average_to_the_mean_of_the_whole(losses: list[float], size: int) -> None:
    """Gradients are averaged over members, whatever the size of their shares."""
    shares = [Team(rank, size).share(np.array(losses)) for rank in range(size)]
    parts = [
        Team(rank, size).weight(len(losses), len(share)) * share.mean()
        for rank, share in enumerate(shares)
        if len(share)
    ]
    assert sum(parts) / size == pytest.approx(np.mean(losses), abs=1e-9)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16, torch.float16])
def test_shared_statistics_are_those_of_the_whole_batch_in_every_precision(
    precision: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes whose shares are alike; in float16 their pixels are more than its largest number."""
    monkeypatch.setattr(distributed, "_sum_of_all", lambda own: 2 * own)
    torch.manual_seed(5)
    plain = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 1), torch.nn.BatchNorm2d(3, momentum=0.3)).train()
    shared = share_batch_statistics(deepcopy(plain), device_at("cpu")).train()
    image = torch.randn(2, 1, 200, 200) + 1.0
    wanted, found = image.clone().requires_grad_(), image.clone().requires_grad_()
    grade = torch.linspace(-1, 1, 200).square()
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        of_whole, of_share = plain(torch.cat([wanted, wanted.detach()])), shared(found)
    assert of_share.dtype == of_whole.dtype == precision
    close = {"rtol": 0.0, "atol": 1e-5 if precision == torch.float32 else 0.03}
    torch.testing.assert_close(of_share, of_whole[:2], **close)
    for output in (of_whole, of_share):
        (grade * output.float().square()).sum().backward()
    assert wanted.grad is not None
    assert found.grad is not None
    largest = float(wanted.grad.abs().max())
    assert largest > 0.1
    torch.testing.assert_close(found.grad, wanted.grad, rtol=0.0, atol=close["atol"] * largest)
    for name, value in plain[1].named_buffers():
        torch.testing.assert_close(dict(shared[1].named_buffers())[name], value, rtol=2e-3, atol=1e-4)


@pytest.mark.slow
@dataclass(frozen=True)
class BesideAnother(Team):
    """A process beside another one that always gives the same answer."""

    theirs: int = 0

    def agree(self, value: int) -> int:
        return max(value, self.theirs)


@pytest.mark.parametrize(("bad_at", "theirs_at", "first"), [(4, 3, 3), (2, 3, 2), (None, 3, 3), (4, None, 4)])
def test_every_process_names_the_step_at_which_a_loss_was_first_not_finite_in_any(
    bad_at: int | None, theirs_at: int | None, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradients are shared, so that a step later the losses of all are not finite, whoever began."""
    real, steps = step.weighted_loss, itertools.count(1)

    def loss(*arguments: Any) -> torch.Tensor:
        return real(*arguments) * (float("nan") if next(steps) == bad_at else 1)

    monkeypatch.setattr(step, "weighted_loss", loss)
    team = BesideAnother(theirs=-(theirs_at or step._NO_STEP))
    torch.manual_seed(0)
    recipe = replace(RECIPE, backbone="half:test_vit")
    model = make_model(recipe)[0].train()
    learner = Learner(recipe, model, model, 1000, 0, device_at("cpu"), team)
    batch = next(striped_feed(2).batches(np.arange(2), 2))
    for _ in range(4):
        learner.learn(batch, 0, False, 2)
    assert learner.first_bad_step() == first


def test_two_processes_train_what_one_trains(competition_folder: Path, tmp_path: Path) -> None:
    """Batch normalisation, pasted bands, mosaics, an odd number of records: all over both shares."""
    records = read_records(competition_folder / "train.csv")
    store = tmp_path / "store"
    prepare(recordings_of(Competition(competition_folder), records), store)
    # Dropout is drawn by each process for its share; everything else must come out the same.
    recipe = replace(THOROUGH, batch_size=5, dropout=0.0, drop_path_rate=0.0)
    dataset = children.open_dataset(competition_folder, store)
    n_train, n_valid = int((dataset.folds != 0).sum()), int((dataset.folds == 0).sum())
    assert n_train % 2 or n_valid % 2
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name, size in (("alone", 1), ("team", 2)):
        arguments = (size, port, competition_folder, store, tmp_path / name, recipe)
        members = [children.start(children.train_as_member, rank, *arguments) for rank in range(size)]
        for member in members:
            member.join()
        assert [member.exitcode for member in members] == [0] * size
    folders = [tmp_path / name / "baseline" / "fold0" for name in ("alone", "team")]
    states = [read_state(folder / STATE, {}) for folder in folders]
    assert states[0] is not None
    assert states[1] is not None
    # Sums of gradients: Adam's first moments. (What Adam makes of a gradient that is zero but for rounding, as before
    # a normalisation, differs between any two machines.)
    moments = [{k: v for k, v in s.part("optimizer").items() if k.endswith("exp_avg")} for s in states if s]
    assert len(moments[0]) > 40
    largest = max(float(value.abs().max()) for value in moments[0].values())
    for name, value in moments[0].items():
        np.testing.assert_allclose(moments[1][name], value, atol=1e-3 * largest, err_msg=name)
    histories = [pl.read_csv(folder / "history.csv") for folder in folders]
    assert histories[0]["step"].to_list() == histories[1]["step"].to_list()
    np.testing.assert_allclose(histories[1]["train_loss"], histories[0]["train_loss"], rtol=1e-4)
    np.testing.assert_allclose(histories[1]["score_all"], histories[0]["score_all"], atol=2e-3)
    predictions = [s.tensors["predictions/NK"] for s in states if s]
    assert len(predictions[0]) == n_valid  # each record once, no padding
    np.testing.assert_allclose(predictions[1], predictions[0], atol=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_torchrun_runs_the_command(precision: str, competition_folder: Path, tmp_path: Path) -> None:
    records = read_records(competition_folder / "train.csv")
    prepare(recordings_of(Competition(competition_folder), records), tmp_path / "store")
    options = ["--data", competition_folder, "--store", tmp_path / "store", "--runs", tmp_path / "runs"]
    options += ["--backbone", "half:test_efficientnet", "--epochs", "1", "--batch-size", "4", "--folds", "2"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [
            *torchrun,
            "-m",
            "kagglehms",
            "train",
            "baseline",
            *map(str, options),
            "--weights",
            "none",
            "--device",
            "cpu",
            "--precision",
            precision,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("out-of-fold score") == 1  # one of them speaks
    assert "2 processes" in done.stdout
    oof = pl.read_parquet(tmp_path / "runs" / "baseline" / "oof.parquet")
    assert oof["record"].to_list() == list(range(len(records)))

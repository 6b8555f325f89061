"""A tiny trained bundle: real code all the way, a network too small to be good."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from kagglehms.data.competition import Competition
from kagglehms.data.preparing import prepare, recordings_of
from kagglehms.data.records import read_records
from kagglehms.device import choose_device
from kagglehms.packing.build import build
from kagglehms.runs.cross_validation import cross_validate
from kagglehms.runs.dataset import Dataset
from kagglehms.training.recipes import Stage, get_recipe


def make_dist(competition_folder: Path, where: Path, name: str = "baseline") -> Path:
    """Prepare, train two folds for one epoch, and build; return the dist folder."""
    competition = Competition(competition_folder)
    records = read_records(competition.train_csv)
    store = prepare(recordings_of(competition, records), where / "store").store
    recipe = replace(
        get_recipe(name), backbone="half:test_efficientnet", batch_size=8, stages=(Stage(epochs=1),)
    )
    cross_validate(recipe, Dataset.of(store, records, 2), where / "runs", choose_device("cpu"))
    build(where / "runs", where / "dist", owner="somebody")
    return where / "dist"

"""The model card: every model and score, the blend, nothing that data could turn into markup."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from runs_folder import PRIOR, edit, forget_digests, make_run

from kagglehms.data.competition import CLASSES
from kagglehms.packing.build import build
from kagglehms.packing.model_card import MODEL_CARD
from kagglehms.runs.blends import Blend
from kagglehms.runs.prior_correction import PriorCorrection


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two runs of real recipes; one of them unfinished."""
    for name, finished in (("baseline", (0, 1)), ("eeg+percentiles", (1,))):
        make_run(tmp_path / "runs", name, finished)
    return tmp_path / "runs"


def card(runs: Path, blend: str | None = None) -> str:
    built = build(runs, runs.parent / "dist", blend=blend)
    assert MODEL_CARD in built.manifest.files
    return (built.dataset / MODEL_CARD).read_text()


def test_it_names_every_recipe_and_every_score(runs: Path) -> None:
    text = card(runs)
    assert "# Model card: 3 models of 2 recipes" in text
    assert "| baseline | panels, 400 × 300 | efficientnet\\_b2 | not recorded | 6 | 2 of 2 | 100 |" in text
    assert (
        "| eeg+percentiles | eeg+percentiles, 512 × 512 | efficientnet\\_b2 | not recorded | 6 | 1 of 2 |"
        in text
    )
    for fold in (0, 1):
        assert f"| baseline | {fold} | {0.9 + fold:.4f} | 1.4000 | 1.7000 | – | – | – |" in text
    assert "| eeg+percentiles | 1 | 1.9000 | 1.4000 | 1.7000 | – | – | – |" in text
    assert f"| {' | '.join(CLASSES)} |\n" in text
    assert f"| {' | '.join(f'{(100 * p + 1 / 6) / 101:.4f}' for p in PRIOR)} |" in text
    assert "- torch 2.10.0" in text
    assert "then recipes, all alike" in text
    assert "Not a medical device" in text


def test_models_worse_than_knowing_nothing_are_named(runs: Path) -> None:
    worse = "worse than the class prior and a uniform guess on all records"
    assert f"fold 1 of baseline is {worse}; fold 1 of eeg+percentiles is {worse}." in card(runs)
    for path in runs.glob("*/fold1/result.json"):
        changed = {"score_all": 1.3, "score_votes10": 0.9, "prior_votes10": 0.8, "uniform_votes10": 1.0}
        edit(path, **changed)
    text = card(runs)
    assert "fold 1 of baseline is worse than the class prior on those with many votes;" in text
    assert "| baseline | 1 | 1.3000 | 1.4000 | 1.7000 | 0.9000 | 0.8000 | 1.0000 |" in text
    for path in runs.glob("*/fold1/result.json"):
        edit(path, score_votes10=0.7)
    assert "Worse" not in card(runs)


def test_folds_of_an_earlier_version_have_no_floors(runs: Path) -> None:
    path = forget_digests(runs / "baseline") / "fold0/result.json"
    result = json.loads(path.read_text())
    path.write_text(
        json.dumps({name: v for name, v in result.items() if "prior" not in name and "uniform" not in name})
    )
    assert "| baseline | 0 | 0.9000 | – | – | – | – | – |" in card(runs)


def test_what_was_kept_is_told_once_for_all_recipes_of_its_kind(runs: Path) -> None:
    text = card(runs)
    assert text.count(": the best evaluation, chosen on the held-out records") == 1
    assert "Kept from each fold of baseline, eeg+percentiles: the best" in text
    path = forget_digests(runs / "baseline") / "recipe.json"
    edit(path, keep="last", ema=0.99)
    text = card(runs)
    assert "Kept from each fold of baseline: the last evaluation of the moving average, whatever" in text
    assert "Kept from each fold of eeg+percentiles: the best evaluation" in text


def test_tables_have_as_many_cells_in_every_row(runs: Path) -> None:
    widths: list[int] = []
    for line in card(runs).splitlines():
        if line.startswith("|"):
            widths.append(line.count("|") - line.count("\\|"))
        elif widths:
            assert len(set(widths)) == 1, widths
            widths = []


def test_the_origin_of_first_weights_is_told(runs: Path) -> None:
    assert card(runs).count("| not recorded |") == 2
    origin = {"source": "hub", "name": "timm/test_x.a_in1k", "sha256": "ab" * 32}
    for path in (runs / "baseline").rglob("*.json"):
        if path.name in {"run.json", "result.json"}:
            edit(path, first_weights=origin)
    text = card(runs)
    assert text.count("| not recorded |") == 1
    assert "| timm/test\\_x.a\\_in1k of the hub, sha256 abababababab |" in text


def test_a_blend_is_told_with_its_weights_and_scores(runs: Path) -> None:
    (runs / "blends").mkdir()
    blend = Blend(
        "mine", ("baseline", "eeg+percentiles"), (0.25, 0.75), temperature=0.9, scores={"nested": 0.5}
    )
    (runs / "blends/mine.json").write_bytes(blend.to_json())
    text = card(runs, "mine")
    assert "blend mine (probability space, temperature 0.900): baseline 0.250, eeg+percentiles 0.750." in text
    assert "nested 0.5000" in text


def test_a_blend_for_many_votes_is_told_with_its_prior(runs: Path) -> None:
    (runs / "blends").mkdir()
    prior = (0.05, 0.15, 0.1, 0.1, 0.1, 0.5)
    correction = PriorCorrection("many", prior, ((1 / 6,) * 6,), 0.75)
    blend = Blend("mine", ("baseline",), (1.0,), scores={"corrected_votes10": 0.5}, prior=correction)
    (runs / "blends/mine.json").write_bytes(blend.to_json())
    text = card(runs, "mine")
    assert "to that of records with many votes (exponent 0.750)" in text
    assert "corrected for class priors alone (many votes) 0.5000" in text
    assert f"| {' | '.join(f'{p:.4f}' for p in prior)} |" in text
    assert "the records' vote fractions where many voted" in text


def test_strings_of_the_runs_are_no_markup(runs: Path) -> None:
    path = runs / "baseline/run.json"
    hostile = "<script>x</script> | [a](javascript:x) `b`\n# c"
    edit(path, versions={hostile: hostile})
    text = card(runs)
    assert "<script>" not in text
    assert "\n# c" not in text
    assert "[a](" not in text.replace("\\[a\\](", "")

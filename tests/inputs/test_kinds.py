"""Every kind of input: its shape, its rows, the sides it shows, and the augmentations that fit it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_inputs import KINDS, NORMALISER, some_crop

from kagglehms.data.competition import CHAINS, CHANNELS
from kagglehms.errors import UsageError
from kagglehms.features.differences import DifferenceSpec
from kagglehms.features.fold import FoldSpec
from kagglehms.features.spectra import SPECTRA_50_10
from kagglehms.inputs import kinds
from kagglehms.inputs.drawing import stack
from kagglehms.inputs.kinds import Folded, Input, Signals, Spectra, Views, differences_of
from kagglehms.inputs.layouts import LAYOUTS, Crop, Layout
from kagglehms.training import options
from kagglehms.training.front_ends.options import FoldOptions, SpectrumOptions, WaveStackOptions
from kagglehms.training.options import Augmentation
from kagglehms.training.recipes import RECIPES, Recipe, Stage


def recipe(layout: Input, **settings: Any) -> Recipe:
    """A recipe for any kind of input."""
    front_end = WaveStackOptions() if isinstance(layout, Signals) else None
    return Recipe("some", layout, front_end=front_end, **settings)


EVERY = (
    options.SameClassCutMix(), options.HorizontalFlip(), options.VerticalFlip(), options.TimeMask(),
    options.FrequencyMask(), options.SignFlip(), options.Mixup(), options.Mirror(),
    options.Shift(), options.DropDifferences(), options.ChainPermutation(), options.BandPass(),
    options.Albumentations((options.Transform("HorizontalFlip", {}),)),
)  # fmt: skip


@pytest.mark.parametrize("augmentation", EVERY, ids=lambda a: a.kind)
@pytest.mark.parametrize("kind", KINDS)
def test_what_does_not_fit_is_refused_by_name(kind: str, augmentation: Augmentation) -> None:
    layout = KINDS[kind]
    if augmentation.kind in layout.fitting:
        assert recipe(layout, augmentations=(augmentation,)).augmentations == (augmentation,)
        return
    with pytest.raises(UsageError, match=f"{augmentation.kind} do not fit (this|both).* input.*mirror"):
        recipe(layout, augmentations=(augmentation,))
    if not isinstance(augmentation, options.Albumentations):
        with pytest.raises(UsageError, match=f"{augmentation.kind} do not fit"):
            recipe(layout, stages=(Stage(augmentations=(augmentation,)),))


@pytest.mark.parametrize(("step", "unit_uv", "named"), [(1, 1.0, "unit_uv"), (2, 32.0, "sfreq_hz")])
def test_spectra_of_signals_in_other_units_are_refused(step: int, unit_uv: float, named: str) -> None:
    layout = Signals(DifferenceSpec(midline=True, step=step))
    with pytest.raises(UsageError, match=f"{named} of the front end must be that of the signals"):
        Recipe("some", layout, front_end=SpectrumOptions(unit_uv=unit_uv))


def test_chains_change_places_only_where_a_place_does_not_tell_the_side() -> None:
    layout, augmentations = KINDS["signals"], (options.ChainPermutation(),)
    assert recipe(layout, augmentations=augmentations).augmentations == augmentations
    for front_end in (FoldOptions(), SpectrumOptions(unit_uv=32.0)):
        with pytest.raises(
            UsageError, match=r"chain-permutation do not fit this input; band-pass, (?!chain)"
        ):
            Recipe("some", layout, front_end=front_end, augmentations=augmentations)


def test_a_band_beyond_what_the_samples_hold_is_refused() -> None:
    augmentations = (options.BandPass(high_hz=(10.0, 20.0)),)
    coarse = Folded(FoldSpec(step=5, phases=5))  # 40 Hz
    with pytest.raises(
        UsageError, match="high_hz of band-pass must be below half of the input's 40 samples per"
    ):
        recipe(coarse, augmentations=augmentations)
    assert recipe(coarse, augmentations=(options.BandPass(high_hz=(10.0, 19.0)),)).augmentations


def test_the_documentation_says_what_fits() -> None:
    text = (Path(__file__).parents[2] / "docs" / "extending.md").read_text()
    rows = [
        line.strip("|").split("|")
        for line in text.split("| augmentation | what it does |")[1].splitlines()[2:15]
    ]
    said = {row[0].strip(" `"): [cell.strip() == "✓" for cell in row[2:]] for row in rows}
    layouts = [KINDS[name] for name in ("tiles", "folded", "spectra-50-10", "signals", "zoomed", "two views")]
    assert said == {type(a).__name__: [a.kind in layout.fitting for layout in layouts] for a in EVERY}


def test_rows_know_their_difference_and_their_bin() -> None:
    for layout, rows in ((KINDS["folded"], 10), (KINDS["spectra-50-10"], 28), (KINDS["signals"], 1)):
        assert not isinstance(layout, Layout)
        n_signals = 18 if rows == 28 else 16
        below = layout.shape[0] - rows * n_signals
        assert (
            layout.signal_rows.tolist() == [c for c in range(n_signals) for _ in range(rows)] + [-1] * below
        )
    spectra = KINDS["spectra-50-10"]
    assert isinstance(spectra, Spectra)
    assert spectra.bin_rows.tolist() == list(range(14)) * 36 + [-1] * 8


def test_a_row_of_a_zoomed_image_belongs_to_one_difference() -> None:
    assert kinds.MEL_ZOOM.array_shape == (3, 1024, 852)
    assert kinds.MEL_ZOOM.signal_rows.tolist() == [c for c in range(16) for _ in range(64)]


@pytest.mark.parametrize("sees", [True, False])
def test_two_views_see_sides_if_one_does(sees: bool) -> None:
    assert Views(LAYOUTS["panels" if sees else "summaries"], LAYOUTS["percentiles"]).sees_sides == sees


def test_two_views_name_both_images() -> None:
    assert (
        kinds.describe(kinds.FOLDED_AND_PANELS)
        == "raw EEG folded into an image, 160 × 1000 beside global-panels, 400 × 300"
    )
    assert kinds.describe(kinds.MEL_ZOOM).endswith("finer in the centre, 3 × 1024 × 852")


def test_what_fits_two_views_fits_both() -> None:
    """Even what fits both images is refused where it would not mean the same to both."""
    both = Views(KINDS["folded"], KINDS["folded-linear"])  # type: ignore[arg-type]
    for augmentation in (
        options.TimeMask(), options.DropDifferences(), options.BandPass(), options.SignFlip()
    ):  # fmt: skip
        assert augmentation.kind in KINDS["folded"].fitting
        with pytest.raises(
            UsageError, match=f"augmentations {augmentation.kind} do not fit both images of this input; "
        ):
            recipe(both, augmentations=(augmentation,))
    with pytest.raises(UsageError, match="same-class-cutmix do not fit both"):
        recipe(Views(KINDS["folded"], KINDS["zoomed"]), augmentations=(options.SameClassCutMix(),))  # type: ignore[arg-type]


def test_a_second_backbone_belongs_to_two_images() -> None:
    assert recipe(KINDS["two views"], second_backbone="test_vit").backbones == ("efficientnet_b2", "test_vit")
    assert recipe(KINDS["two views"]).backbones == ("efficientnet_b2", "efficientnet_b2")
    with pytest.raises(UsageError, match="second_backbone must be None where there is one image"):
        recipe(KINDS["folded"], second_backbone="test_vit")


def test_nothing_fits_that_does_not_exist() -> None:
    kinds = {a.kind for a in EVERY}
    for layout in (*KINDS.values(), *LAYOUTS.values(), *(known.layout for known in RECIPES.values())):
        assert layout.fitting <= kinds
        assert "mirror" in layout.fitting


@pytest.mark.parametrize("kind", [name for name in KINDS if name != "tiles"])
def test_mosaics_of_signals_are_refused(kind: str) -> None:
    with pytest.raises(UsageError, match="mosaics can only be made of images of tiles"):
        recipe(KINDS[kind], stages=(Stage(epochs=2, mosaic_epochs=1),))


def test_signals_need_a_front_end_and_images_must_have_none() -> None:
    for layout, front_end in ((KINDS["signals"], None), (KINDS["folded"], WaveStackOptions())):
        with pytest.raises(UsageError, match="signals need a front end"):
            Recipe("some", layout, front_end=front_end)


def test_inputs_of_equal_settings_are_equal_and_go_into_dictionaries() -> None:
    assert Folded(FoldSpec()) == kinds.FOLDED_CAUSAL
    assert Spectra(SPECTRA_50_10) == kinds.SPECTRA_50_AND_10_S
    assert len({*KINDS.values(), *KINDS.values()}) == len(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_an_input_is_made_of_the_differences_that_it_names(kind: str) -> None:
    """An electrode of none of them changes nothing, and one of theirs changes the input."""
    layout, crop = KINDS[kind], some_crop(3)
    assert crop.eeg_uv is not None
    drawn = stack([crop], layout, NORMALISER)
    named = {name for pair in differences_of(layout) for name in pair}
    assert {name for chain in CHAINS.values() for name in chain} <= named
    for column, name in enumerate(CHANNELS):
        changed = crop.eeg_uv.copy()
        changed[:, column] = changed[::-1, column]
        again = stack([Crop(crop.log_power, changed)], layout, NORMALISER)
        assert np.array_equal(again, drawn) == (name not in named), name

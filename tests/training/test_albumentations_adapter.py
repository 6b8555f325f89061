"""albumentations draws by (seed, epoch, record), whatever the threads, and does not clip our images."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from kagglehms.errors import RunError, UsageError
from kagglehms.training.albumentations_adapter import AlbumentationsAdapter, albumentations_adapter
from kagglehms.training.options import Albumentations, HorizontalFlip, Transform

SHAPE = (40, 60)
IMAGE = np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)

COMMON = [
    Transform("XYMasking", {"num_masks_x": [1, 3], "num_masks_y": 1, "mask_x_length": [1, 20], "p": 1.0})
    if name == "XYMasking"
    else Transform(name, {"p": 1.0, **options})
    for name, options in {
        "XYMasking": {},
        "CoarseDropout": {},
        "GaussNoise": {"std_range": [0.01, 0.05]},
        "RandomBrightnessContrast": {},
        "Affine": {"scale": [0.8, 1.2], "translate_percent": [-0.1, 0.1]},
        "ElasticTransform": {"alpha": 20},
        "GridDistortion": {},
        "PixelDropout": {},
        "RandomGamma": {},
    }.items()
]


def drawn(transforms: list[Transform], threads: int, seed: int = 1, epoch: int = 0) -> list[np.ndarray]:
    """Sixteen records of one and the same image, drawn by so many threads."""
    adapter = AlbumentationsAdapter(transforms, SHAPE)
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda record: adapter(IMAGE, seed, epoch, record), range(16)))


def distinct(images: list[np.ndarray]) -> int:
    return len({image.tobytes() for image in images})


@pytest.mark.parametrize("transform", COMMON, ids=lambda t: t.name)
def test_sixteen_records_give_sixteen_draws_for_any_number_of_threads(transform: Transform) -> None:
    alone = drawn([transform], threads=1)
    assert distinct(alone) == 16
    assert all(image.dtype == np.float32 and image.shape == SHAPE for image in alone)
    assert np.isfinite(alone).all()
    for threads in (2, 4, 8):
        np.testing.assert_array_equal(drawn([transform], threads), alone)


def test_all_transforms_together_too() -> None:
    alone = drawn(COMMON, threads=1)
    assert distinct(alone) == 16
    for threads in (2, 4, 8):
        np.testing.assert_array_equal(drawn(COMMON, threads), alone)


def test_draws_change_with_seed_and_epoch_and_come_back() -> None:
    runs = [drawn([COMMON[0]], 2, seed, epoch) for seed, epoch in ((1, 0), (1, 1), (2, 0), (1, 0))]
    np.testing.assert_array_equal(runs[0], runs[3])
    assert distinct([image for run in runs[:3] for image in run]) == 48


def test_a_record_is_drawn_alike_whatever_was_drawn_before_it() -> None:
    adapter = AlbumentationsAdapter(COMMON, SHAPE)
    forwards = [adapter(IMAGE, 1, 0, record) for record in range(4)]
    backwards = [adapter(IMAGE, 1, 0, record) for record in reversed(range(4))]
    np.testing.assert_array_equal(forwards, backwards[::-1])


def test_transforms_draw_independently_of_each_other() -> None:
    flips = [Transform("HorizontalFlip", {"p": 0.5}), Transform("VerticalFlip", {"p": 0.5})]
    adapter = AlbumentationsAdapter(flips, SHAPE)
    expected = [IMAGE, IMAGE[:, ::-1], IMAGE[::-1], IMAGE[::-1, ::-1]]
    counts = [0] * 4
    for record in range(200):
        image = adapter(IMAGE, 1, 0, record)
        same = [np.allclose(image, other, atol=1e-5) for other in expected]
        assert sum(same) == 1
        counts[same.index(True)] += 1
    assert min(counts) >= 30  # 50 each are expected


def test_values_outside_of_0_and_1_are_not_clipped() -> None:
    noise = Transform("GaussNoise", {"std_range": [0.001, 0.001], "p": 1.0})
    image = AlbumentationsAdapter([noise], SHAPE)(IMAGE, 1, 0, 0)
    assert 0 < np.abs(image - IMAGE).max() < 0.01 * np.ptp(IMAGE)
    assert image.min() < -2


def test_a_fill_of_0_is_the_images_minimum() -> None:
    mask = Transform("XYMasking", {"num_masks_x": [1, 1], "mask_x_length": [7, 7], "fill": 0, "p": 1.0})
    image = AlbumentationsAdapter([mask], SHAPE)(IMAGE, 1, 0, 0)
    masked = np.flatnonzero((image == IMAGE.min()).all(axis=0))
    assert len(masked) == 7
    np.testing.assert_array_equal(np.diff(masked), 1)
    kept = np.setdiff1d(np.arange(SHAPE[1]), masked)
    np.testing.assert_allclose(image[:, kept], IMAGE[:, kept], atol=1e-5)


def test_the_image_given_is_left_alone_and_constant_images_pass() -> None:
    adapter = AlbumentationsAdapter(COMMON, SHAPE)
    before = IMAGE.copy()
    adapter(IMAGE, 1, 0, 0)
    np.testing.assert_array_equal(IMAGE, before)
    flip = AlbumentationsAdapter([Transform("HorizontalFlip", {"p": 1.0})], SHAPE)
    np.testing.assert_array_equal(flip(np.full(SHAPE, -3, np.float32), 1, 0, 0), -3)


def test_a_recipes_augmentations_give_one_adapter_or_none() -> None:
    assert albumentations_adapter((), SHAPE) is None
    assert albumentations_adapter((HorizontalFlip(),), SHAPE) is None
    flip = (Transform("HorizontalFlip", {"p": 1.0}),)
    adapter = albumentations_adapter((Albumentations(flip), HorizontalFlip(), Albumentations(flip)), SHAPE)
    assert adapter is not None
    np.testing.assert_allclose(adapter(IMAGE, 1, 0, 0), IMAGE, atol=1e-6)  # flipped twice


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (Transform("XYMaskin", {}), "has no transform 'XYMaskin'; did you mean XYMasking"),
        (Transform("Compose", {}), "has no transform 'Compose'"),
        (Transform("os", {}), "has no transform 'os'"),
        (
            Transform("GaussNoise", {"sigma": 1}),
            "options of albumentations.GaussNoise are std_range, .*got sigma",
        ),
        (
            Transform("GaussNoise", {"std_range": [3, 4]}),
            "GaussNoise refuses its options: .*must be >= 0 and <= 1",
        ),
        (Transform("RandomCrop", {"height": 50, "width": 50}), "RandomCrop fails on such images"),
        (
            Transform("RandomCrop", {"height": 20, "width": 50, "p": 1e-9}),
            r"RandomCrop makes .*\(20, 50\) of an",
        ),
        (Transform("FromFloat", {"dtype": "uint8"}), "FromFloat makes ndarray uint8"),
    ],
    ids=lambda value: value.name if isinstance(value, Transform) else "",
)
def test_what_cannot_be_applied_is_refused_before_the_run(transform: Transform, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        AlbumentationsAdapter([transform], SHAPE)
    assert "\n" not in str(caught.value)


def test_it_is_imported_without_asking_the_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = "import os\nraise ImportError('update check off: ' + os.environ['NO_ALBUMENTATIONS_UPDATE'])\n"
    (tmp_path / "albumentations.py").write_text(fake)
    monkeypatch.setenv("NO_ALBUMENTATIONS_UPDATE", "0")
    monkeypatch.delitem(sys.modules, "albumentations", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RunError, match="cannot be imported \\(update check off: 1\\)"):
        AlbumentationsAdapter(COMMON, SHAPE)


def test_it_is_imported_only_where_it_is_used() -> None:
    code = "import sys, kagglehms.training.albumentations_adapter; print('albumentations' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"

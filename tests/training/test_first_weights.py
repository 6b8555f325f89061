"""First weights: whatever a file is like, either all of it is in the network afterwards, or it is refused."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from loopback_hub import Hub, serving
from safetensors.torch import load_file, save, save_file

from kagglehms.environment import child_environment
from kagglehms.errors import DataError, UsageError
from kagglehms.training.checkpoint import save_weights
from kagglehms.training.first_weights import FirstWeights, Origin, find_weights
from kagglehms.training.models import make_model
from kagglehms.training.recipes import Recipe, get_recipe

State = dict[str, torch.Tensor]
SMALL = replace(get_recipe("baseline"), backbone="test_efficientnet", drop_path_rate=0.0)


def timms(name: str, **options: Any) -> State:
    """Weights as timm serves them: three channels, a thousand classes."""
    torch.manual_seed(1)
    state: State = timm.create_model(name, **options).state_dict()
    return {key: tensor.contiguous() for key, tensor in state.items()}


@pytest.fixture(scope="module")
def original() -> State:
    return timms("test_efficientnet")


def loaded(state: State, folder: Path, recipe: Recipe = SMALL) -> State:
    """The network's tensors after it was filled from a file of these."""
    path = folder / "w.safetensors"
    save_file(state, path)
    torch.manual_seed(0)
    model, _ = make_model(recipe, str(path))
    return dict(model.state_dict())


def expected(state: State) -> State:
    """What must be in the small network: all but the classifier, with a stem of one channel."""
    state = {key: tensor for key, tensor in state.items() if not key.startswith("classifier.")}
    return state | {"conv_stem.weight": state["conv_stem.weight"].sum(dim=1, keepdim=True)}


def assert_loaded(found: State, wanted: State) -> None:
    assert {key for key in found if not key.startswith("classifier.")} == set(wanted)
    for key, tensor in wanted.items():
        torch.testing.assert_close(found[key], tensor, rtol=1e-6, atol=1e-7)


def test_all_but_the_classifier_is_loaded(original: State, tmp_path: Path) -> None:
    found = loaded(original, tmp_path)
    assert_loaded(found, expected(original))
    torch.manual_seed(0)
    fresh, _ = make_model(SMALL)
    assert torch.equal(found["classifier.weight"], fresh.state_dict()["classifier.weight"])
    assert not torch.equal(found["conv_head.weight"], fresh.state_dict()["conv_head.weight"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_computed_with_in_single(
    original: State, tmp_path: Path, dtype: torch.dtype
) -> None:
    stored = {k: t.to(dtype) if t.is_floating_point() else t for k, t in original.items()}
    rounded = {k: t.float() if t.is_floating_point() else t for k, t in stored.items()}
    assert_loaded(loaded(stored, tmp_path), expected(rounded))


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "model.", "backbone.", "module._orig_mod.", "model.backbone."]
)
def test_a_prefix_of_all_names_is_taken_off(original: State, tmp_path: Path, prefix: str) -> None:
    prefixed = {prefix + key: tensor for key, tensor in original.items()}
    assert_loaded(loaded(prefixed, tmp_path), expected(original))


def test_a_file_without_classifier_or_counters_is_whole(original: State, tmp_path: Path) -> None:
    bare = {
        key: tensor
        for key, tensor in original.items()
        if not key.startswith("classifier.") and not key.endswith("num_batches_tracked")
    }
    wanted = {k: t for k, t in expected(original).items() if not k.endswith("num_batches_tracked")}
    found = loaded(bare, tmp_path)
    assert_loaded({k: t for k, t in found.items() if not k.endswith("num_batches_tracked")}, wanted)


def test_a_trained_fold_is_taken_as_well(tmp_path: Path) -> None:
    torch.manual_seed(3)
    trained, _ = make_model(SMALL)
    save_weights(trained, tmp_path / "weights.safetensors")
    model, _ = make_model(SMALL, str(tmp_path / "weights.safetensors"))
    kept = {k: t for k, t in trained.state_dict().items() if not k.startswith("classifier.")}
    assert_loaded(dict(model.state_dict()), kept)


def half_of(state: State) -> State:
    return {key: state[key] for key in list(state)[::2]}


Change = Callable[[State], State]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s | {"extra.weight": torch.ones(1)}, r"1 of \d+ are unknown \(extra\.weight\)"),
        (half_of, r"\d+ of \d+ tensors are missing \(.+, .+, .+ …\)"),
        (
            lambda s: {k: t for k, t in s.items() if k != "bn2.weight"},
            r"1 of \d+ tensors are missing \(bn2\.weight\)",
        ),
        (
            lambda s: {(f"module.{k}" if i % 2 else k): t for i, (k, t) in enumerate(s.items())},
            r"are missing \(.*\); \d+ of \d+ are unknown \(module\.",
        ),
        (lambda s: {f"mine.{k}": t for k, t in s.items()}, r"are unknown \(mine\."),
        (
            lambda s: s | {"conv_head.weight": torch.ones(3, 3)},
            r"conv_head\.weight is \(3, 3\) instead of \(256, ",
        ),
        (lambda s: s | {"conv_stem.weight": torch.ones(3, 2, 3, 3)}, r"conv_stem\.weight is \(3, 2, 3, 3\)"),
        (
            lambda s: s | {"bn2.weight": torch.full_like(s["bn2.weight"], torch.nan)},
            r"not finite, in bn2\.weight;",
        ),
        (lambda s: {}, r"tensors are missing"),
        (lambda s: {"anything": torch.ones(1)}, r"tensors are missing .* 1 of 1 are unknown \(anything\)"),
        (lambda s: timms("test_resnet"), r"does not hold weights of test_efficientnet: .* are missing"),
    ],
)
def test_whatever_is_not_of_this_network_is_refused_and_named(
    original: State, tmp_path: Path, change: Change, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        loaded(change(original), tmp_path)


@pytest.mark.parametrize("backbone", ["vit_tiny_patch16_224", "swin_s3_tiny_224", "test_convnext"])
def test_a_file_of_another_network_never_ends_in_a_raw_error(
    original: State, tmp_path: Path, backbone: str
) -> None:
    with pytest.raises(DataError, match=f"does not hold weights of {backbone}"):
        loaded(original, tmp_path, replace(SMALL, backbone=backbone))


@pytest.mark.parametrize(
    "backbone",
    [
        "test_vit",
        "vit_tiny_patch16_224",
        "test_convnext",
        "test_resnet",
        "resnetv2_50",
        "maxvit_rmlp_pico_rw_256",
    ],
)
def test_networks_are_filled_as_timm_fills_them(tmp_path: Path, backbone: str) -> None:
    path = tmp_path / "w.safetensors"
    save_file(timms(backbone), path)
    recipe = replace(SMALL, backbone=backbone)
    model, _ = make_model(recipe, str(path))
    options = {"img_size": (416, 320)} if timm.get_pretrained_cfg_value(backbone, "fixed_input_size") else {}
    timm_s = timm.create_model(
        backbone,
        pretrained=True,
        pretrained_cfg_overlay={"file": str(path), "custom_load": False},
        in_chans=1,
        num_classes=6,
        **options,
    ).state_dict()
    named = model.pretrained_cfg["classifier"]
    found = model.state_dict()
    assert found.keys() == timm_s.keys()
    for key, tensor in timm_s.items():
        if not key.startswith(f"{named}."):
            torch.testing.assert_close(found[key], tensor)


def test_position_embeddings_are_resized_to_the_image(tmp_path: Path) -> None:
    state = timms("vit_tiny_patch16_224")
    rows, columns = 416 // 16, 320 // 16
    # Positions that are a linear function of row and column stay one, whatever the resizing.
    grid = torch.stack(torch.meshgrid(torch.arange(14.0), torch.arange(14.0), indexing="ij"), -1)
    state["pos_embed"][0, 1:, :2] = grid.reshape(-1, 2)
    found = loaded(state, tmp_path, replace(SMALL, backbone="vit_tiny_patch16_224"))["pos_embed"]
    assert found.shape == (1, rows * columns + 1, 192)
    torch.testing.assert_close(found[0, 0], state["pos_embed"][0, 0])
    row_of = found[0, 1:, 0].reshape(rows, columns)
    wanted = (torch.arange(rows) + 0.5) * 14 / rows - 0.5
    torch.testing.assert_close(row_of[4:-4, 5], wanted[4:-4], rtol=0, atol=0.03)


@pytest.mark.parametrize("content", [b"", b"truncated", b"\x08\0\0\0\0\0\0\0{}      "])
def test_what_is_no_safetensors_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(DataError, match=r"w\.safetensors: (cannot be read|does not hold)"):
        make_model(SMALL, str(tmp_path / "w.safetensors"))


def test_files_that_are_none_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        find_weights("test_efficientnet", str(tmp_path / "none.safetensors"))
    (tmp_path / "pickled.pth").write_bytes(b"x")
    with pytest.raises(DataError, match="pickled weights can run code"):
        find_weights("test_efficientnet", str(tmp_path / "pickled.pth"))


@pytest.mark.parametrize(
    ("there", "backbone", "taken"),
    [
        (["efficientnet_b0"], "half:efficientnet_b0", "efficientnet_b0"),
        (["efficientnet_b0.ra_in1k"], "efficientnet_b0", "efficientnet_b0.ra_in1k"),
        (["efficientnet_b0.ra_in1k", "efficientnet_b0"], "efficientnet_b0", "efficientnet_b0"),
        (["efficientnet_b0"], "efficientnet_b0.ra_in1k", "efficientnet_b0"),
        (["tf_efficientnet_b0_ns", "tf_efficientnet_b0"], "tf_efficientnet_b0_ns", "tf_efficientnet_b0_ns"),
        (["tf_efficientnet_b0.ns_jft_in1k"], "tf_efficientnet_b0_ns", "tf_efficientnet_b0.ns_jft_in1k"),
        (["resnet18", "efficientnet_b0"], "efficientnet_b0", "efficientnet_b0"),
    ],
)
def test_in_a_folder_the_file_of_the_network_is_found(
    tmp_path: Path, there: list[str], backbone: str, taken: str
) -> None:
    for stem in there:
        (tmp_path / f"{stem}.safetensors").write_bytes(stem.encode())
    found = find_weights(backbone, str(tmp_path))
    assert found.path == tmp_path / f"{taken}.safetensors"
    assert found.origin == Origin("file", f"{taken}.safetensors", hashlib.sha256(taken.encode()).hexdigest())


@pytest.mark.parametrize(
    ("there", "backbone", "message"),
    [
        ([], "efficientnet_b0", r"has no efficientnet_b0\.safetensors; it holds no \.safetensors file"),
        (["resnet18"], "efficientnet_b0", r"it holds resnet18\.safetensors"),
        # Other weights than those that were named must not be taken for them.
        (
            ["efficientnet_b2.other"],
            "efficientnet_b2.ra_in1k",
            r"has no efficientnet_b2\.ra_in1k\.safetensors",
        ),
        (
            ["efficientnet_b0.a", "efficientnet_b0.b"],
            "efficientnet_b0",
            "holds several files for efficientnet_b0",
        ),
    ],
)
def test_a_folder_without_the_right_file_says_what_it_holds(
    tmp_path: Path, there: list[str], backbone: str, message: str
) -> None:
    for stem in there:
        (tmp_path / f"{stem}.safetensors").write_bytes(b"")
    with pytest.raises(DataError, match=message):
        find_weights(backbone, str(tmp_path))


def test_an_origin_is_written_down_and_read_back() -> None:
    for origin in (
        Origin(),
        Origin("file", "w.safetensors", "ab" * 32),
        Origin("hub", "timm/x.y", "cd" * 32),
    ):
        assert Origin.from_json(json.loads(json.dumps(origin.to_json()))) == origin
    assert Origin("file", "a", "ab").key == Origin("hub", "b", "ab").key != Origin("hub", "b", "cd").key
    assert str(Origin()) == "none, from scratch"


@pytest.mark.parametrize(
    "content",
    [
        None,
        "hub",
        {"source": "hub"},
        {"source": "elsewhere", "name": "x", "sha256": "ab"},
        {"source": "hub", "name": "x", "sha256": ""},
        {"source": "none", "name": "", "sha256": "ab"},
        {"source": "hub", "name": 3, "sha256": "ab"},
    ],
)
def test_what_is_no_origin_is_refused(content: Any) -> None:
    with pytest.raises(ValueError, match="no origin of weights"):
        Origin.from_json(content)


def test_a_network_that_was_asked_to_start_at_random_looks_for_nothing() -> None:
    assert find_weights("test_efficientnet", "none") == FirstWeights(Origin(), None)
    with pytest.raises(UsageError, match="unknown backbone"):
        find_weights("test_efficientne", "none")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_imagenet_weights_are_loaded(imagenet_weights: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    state = load_file(imagenet_weights)
    stored = {k: t.to(dtype) if t.is_floating_point() else t for k, t in state.items()}
    found = loaded(stored, tmp_path, replace(SMALL, backbone="half:tf_efficientnet_lite0"))
    rounded = {k: t.float() if t.is_floating_point() else t for k, t in stored.items()}
    assert_loaded(found, expected(rounded))


# -- the hub -----------------------------------------------------------------------------------------------------------

REPOSITORY = "timm/test_efficientnet.r160_in1k"
ASK = """
import json, sys
from kagglehms.errors import UsageError
from kagglehms.training.first_weights import find_weights
try:
    for _ in range(int(sys.argv[1])):
        origin = find_weights("half:test_efficientnet", "auto").origin
    print(json.dumps(origin.to_json()))
except UsageError as error:
    print(json.dumps({"error": str(error)}))
"""


def ask(cache: Path, times: int = 1, **environment: str) -> dict[str, str]:
    """Ask for `auto` weights in a process of its own, as the client reads its environment when it is imported."""
    clean = {k: v for k, v in child_environment().items() if not k.upper().startswith("HF_")}
    clean = {k: v for k, v in clean.items() if not k.upper().endswith("_PROXY")}
    done = subprocess.run(
        [sys.executable, "-c", ASK, str(times)],
        env=clean | {"HF_HOME": str(cache), "HF_HUB_DISABLE_TELEMETRY": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return answer


def nowhere() -> str:
    """An address on which nobody listens."""
    with Hub("x/y", b"") as hub:
        return hub.url


@pytest.mark.slow
def test_auto_asks_the_cache_then_the_hub_wherever_it_is(original: State, tmp_path: Path) -> None:
    content = save(original)
    wanted = {"source": "hub", "name": REPOSITORY, "sha256": hashlib.sha256(content).hexdigest()}
    with serving(REPOSITORY, content) as hub:
        assert ask(tmp_path / "mirror", times=2, HF_ENDPOINT=hub.url, NO_PROXY="127.0.0.1") == wanted
        asked = [line.split()[0] for line in hub.asked]
        hub.asked.clear()
        proxied = ask(tmp_path / "proxy", HF_ENDPOINT="http://hub.invalid", HTTP_PROXY=hub.url)
        assert proxied == wanted
        assert all("http://hub.invalid" in line for line in hub.asked)
        # Twice was no more than once: what is in the cache is not asked for again.
        assert [line.split()[0] for line in hub.asked] == asked
        assert asked.count("GET") == 1
    assert ask(tmp_path / "mirror", HF_HUB_OFFLINE="1") == wanted


@pytest.mark.slow
def test_auto_without_hub_and_cache_is_an_error_and_never_a_start_from_scratch(tmp_path: Path) -> None:
    error = ask(tmp_path, HF_ENDPOINT=nowhere(), NO_PROXY="127.0.0.1")["error"]
    assert "timm's hub gave no weights of test_efficientnet" in error
    assert "--weights none to train from scratch" in error
    assert "\n" not in error
    with serving("timm/another", b"") as hub:
        error = ask(tmp_path, HF_ENDPOINT=hub.url, NO_PROXY="127.0.0.1")["error"]
        assert "gave no weights" in error
        assert len(hub.asked) == 1  # asked once


def test_weights_that_timm_does_not_have_are_not_looked_for() -> None:
    without = next(
        name
        for name in timm.list_models("resnet*")
        if (cfg := timm.get_pretrained_cfg(name)) and not cfg.has_weights
    )
    with pytest.raises(UsageError, match=f"timm has no pretrained weights of {without}; give a file"):
        find_weights(without, "auto")
    with pytest.raises(UsageError, match="are pickled ones, which are not opened"):
        find_weights("legacy_xception", "auto")

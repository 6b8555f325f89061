"""Networks: shape, gradients, and where first weights come from."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from kagglehms.errors import DataError, UsageError
from kagglehms.features import FoldSpec
from kagglehms.inputs.kinds import Folded, Views
from kagglehms.training.backbones import timm_name
from kagglehms.training.checkpoint import load_weights, save_weights
from kagglehms.training.classifiers import classifier_layers
from kagglehms.training.first_weights import FirstWeights
from kagglehms.training.front_ends.options import FoldOptions, PanelResNetOptions
from kagglehms.training.models import check_model, head_layers, make_model
from kagglehms.training.recipes import RECIPES, Recipe, get_recipe

SMALL = replace(get_recipe("baseline"), backbone="test_efficientnet")
Head: TypeAlias = torch.nn.Linear | torch.nn.Conv1d | torch.nn.Conv2d


def inputs_of(recipe: Recipe, n: int = 1) -> torch.Tensor:
    """Noise of the shape that the recipe's network takes."""
    return torch.randn(n, *recipe.layout.array_shape)


def check_head(model: torch.nn.Module, recipe: Recipe, images: torch.Tensor) -> None:
    """The classifier starts as it should, and its first logits lose little more than a guess."""
    with torch.no_grad():
        _, seen = logits_and_what_heads_see(model, recipe, images)
    check_layers(seen, recipe)


def logits_and_what_heads_see(
    model: torch.nn.Module, recipe: Recipe, images: torch.Tensor
) -> tuple[torch.Tensor, dict[Head, torch.Tensor]]:
    """Of one pass in training: the logits, and the input of each layer that computes them."""
    seen: dict[Head, torch.Tensor] = {}
    hooks = [
        layer.register_forward_pre_hook(lambda layer, inputs: seen.update({layer: inputs[0].detach()}))
        for layer in head_layers(model, recipe)
    ]
    logits = model.train()(images)
    for hook in hooks:
        hook.remove()
    return logits, seen


def check_layers(seen: dict[Head, torch.Tensor], recipe: Recipe) -> None:
    """Layers that compute the logits, by their inputs: they start as an image network's do, or an embedding's."""
    embeds = isinstance(recipe.layout, Views) or recipe.encoder_of(recipe.layout) is not None
    (check_small_layers if embeds else check_fresh_layers)(seen)


def check_small_layers(seen: dict[Head, torch.Tensor]) -> None:
    """The weights are a hundredth, and the first predictions nearly a guess (ln 6)."""
    losses = []
    for layer, inputs in seen.items():
        assert layer.weight.std().item() == pytest.approx(0.01, rel=0.1)
        assert not layer.bias.any()
        for seed in range(16):
            generator = torch.Generator().manual_seed(seed)
            weight = 0.01 * torch.randn(layer.weight.shape, generator=generator)
            losses.append(-(inputs.float() @ weight.T).log_softmax(dim=1).mean())
    assert np.mean(losses) <= 1.95


def check_fresh_layers(seen: dict[Head, torch.Tensor]) -> None:
    """The weights are those of a fresh `nn.Linear`.

    One draw of a head says little (six rows of weights), so the loss is the mean over several draws on the same
    features. With balanced targets it is the cross-entropy with equal shares.
    """
    for layer in seen:
        n_inputs = layer.weight[0].numel()
        for values in (layer.weight.detach().double(), layer.bias.detach().double()):
            assert values.abs().max() <= n_inputs**-0.5
        # Uniform in ±a: deviation a / √3.
        assert layer.weight.std().item() == pytest.approx((3 * n_inputs) ** -0.5, rel=0.06)
        assert layer.weight.mean().abs() < 0.1 * n_inputs**-0.5
    losses = []
    for seed in range(16):
        torch.manual_seed(seed)
        for layer in seen:
            layer.reset_parameters()
        with torch.no_grad():
            logits = torch.stack([layer(inputs) for layer, inputs in seen.items()]).mean(dim=0)
        losses.append(-logits.flatten(1).log_softmax(dim=1).mean())
    assert np.mean(losses) <= 2.0


NETWORKS = {recipe.backbones: name for name, recipe in reversed(RECIPES.items()) if recipe.backbones}
"""Image networks, each with the first recipe that has it."""
DISTINCT = {
    (recipe.backbones, recipe.front_end, recipe.layout.array_shape): name for name, recipe in RECIPES.items()
}


@pytest.mark.slow
@pytest.mark.parametrize("name", DISTINCT.values())
def test_the_contract_of_every_recipes_network(name: str, tmp_path: Path) -> None:
    """Six logits, gradients for all parameters, finite in half precision, the same after export and import."""
    # With drop path a whole branch may be left out of a step.
    recipe = replace(get_recipe(name), drop_path_rate=0.0, dropout=0.0)
    torch.manual_seed(0)
    model, where_from = make_model(recipe)
    assert "from scratch" in where_from
    images = inputs_of(recipe)
    corner = images if fixed(recipe) else images[..., :128, :96]
    with torch.no_grad():
        assert model.eval()(images).shape == (1, 6)
    # What else there is to a network shows in a tenth of the time: at a corner, where it takes any size, and in two
    # blocks, where all are alike.
    shorten(model)
    logits, seen = logits_and_what_heads_see(model, recipe, corner)
    logits.square().sum().backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert not without
    check_layers(seen, recipe)
    model.eval()
    with torch.inference_mode():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.isfinite(model(corner)).all()
        before = model(corner)
        save_weights(model, tmp_path / "w.safetensors")
        torch.manual_seed(1)
        fresh = make_model(recipe)[0].eval()
        shorten(fresh)
        load_weights(fresh, tmp_path / "w.safetensors")
        assert torch.equal(fresh(corner), before)


def shorten(model: torch.nn.Module) -> None:
    """Leave two of a transformer's blocks, if all of them have the same weights but for their values."""
    blocks = list(getattr(model, "blocks", []))
    shapes = [{name: value.shape for name, value in block.state_dict().items()} for block in blocks]
    if len(blocks) > 2 and all(found == shapes[0] for found in shapes):
        model.blocks = torch.nn.Sequential(*blocks[:2])


def fixed(recipe: Recipe) -> bool:
    """Whether the network takes inputs of one size only."""
    import timm

    if recipe.front_end is not None or isinstance(recipe.layout, Views):
        return True
    return bool(timm.get_pretrained_cfg_value(timm_name(recipe.backbone), "fixed_input_size"))


@pytest.mark.parametrize("name", [n for n in NETWORKS.values() if not fixed(get_recipe(n))])
def test_the_head_of_every_convolutional_recipe_starts_as_a_linear_layer(name: str) -> None:
    recipe = replace(get_recipe(name), drop_path_rate=0.0, dropout=0.0)
    torch.manual_seed(recipe.seed)
    model, _ = make_model(recipe)
    check_head(model, recipe, torch.randn(6, recipe.layout.array_shape[0], 96, 96))


@pytest.mark.parametrize(
    ("backbone", "n_heads"),
    [
        ("vit_tiny_patch16_224", 1),
        ("ast:deit_tiny_distilled_patch16_224", 2),
        ("half:deit_tiny_distilled_patch16_224", 2),
        ("test_convnext", 1),  # normalises before the layer
        ("caformer_s18", 1),  # a layer before the last one, which is not the classifier
        ("resnetv2_50", 1),  # a convolution makes the logits
    ],
)
def test_the_head_of_any_network_starts_as_a_linear_layer(backbone: str, n_heads: int) -> None:
    recipe = replace(get_recipe("baseline"), backbone=backbone, drop_path_rate=0.0, dropout=0.0)
    torch.manual_seed(recipe.seed)
    model, _ = make_model(recipe)
    assert len(classifier_layers(model, backbone)) == n_heads
    check_head(model, recipe, torch.randn(2, 1, 400, 300))


@pytest.mark.parametrize(
    ("backbone", "n_heads"),
    [
        ("repvit_m0_9", 2),  # within a block, behind a normalisation
        ("crossvit_9_240", 2),  # a list of heads
        ("levit_128s", 2),  # both
        ("volo_d1_224", 2),  # one beside it that timm does not call a classifier
        ("dla34", 1),  # a convolution
    ],
)
def test_all_heads_of_a_network_are_found(backbone: str, n_heads: int) -> None:
    import timm

    model = timm.create_model(backbone, num_classes=6)
    assert len(classifier_layers(model, backbone)) == n_heads


def test_the_head_on_imagenet_features_starts_as_a_linear_layer(imagenet_weights: Path) -> None:
    recipe = replace(
        get_recipe("baseline"), backbone="tf_efficientnet_lite0", drop_path_rate=0.0, dropout=0.0
    )
    torch.manual_seed(recipe.seed)
    model, where_from = make_model(recipe, str(imagenet_weights))
    assert "tf_efficientnet_lite0.safetensors" in where_from
    check_head(model, recipe, torch.randn(6, 1, 128, 128))


def test_the_head_is_a_function_of_the_seed() -> None:
    heads = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        heads.append(make_model(SMALL)[0].get_classifier().weight.detach())
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_an_encoder_without_a_classifier_is_refused() -> None:
    import timm

    encoder = timm.create_model("test_efficientnet", num_classes=0)
    with pytest.raises(UsageError, match="'encoder' has no classifier"):
        classifier_layers(encoder, "encoder")


@pytest.mark.parametrize(
    "backbone", ["convnext_atto", "resnet10t", "mobilenetv3_small_050", "efficientnet_lite0"]
)
def test_any_cnn_of_timm_takes_the_images(backbone: str) -> None:
    model = make_model(replace(get_recipe("baseline"), backbone=backbone))[0].eval()
    with torch.inference_mode():
        assert model(torch.randn(1, 1, 400, 300)).shape == (1, 6)


def test_a_backbone_that_cannot_take_the_images_is_named() -> None:
    with pytest.raises(UsageError, match=r"backbone 'ast:resnet10t' cannot take \(400, 300\) images"):
        make_model(replace(get_recipe("baseline"), backbone="ast:resnet10t"))


def test_ast_cuts_overlapping_patches() -> None:
    recipe = replace(get_recipe("baseline"), backbone="ast:deit_tiny_distilled_patch16_224")
    model, _ = make_model(recipe)
    rows, columns = (400 - 16) // 10 + 1, (300 - 16) // 10 + 1
    assert model.patch_embed.grid_size == (rows, columns)
    assert model.pos_embed.shape[1] == rows * columns + 2  # class and distillation token
    patches = model.patch_embed(torch.randn(1, 1, 400, 300))
    assert patches.shape == (1, rows * columns, 192)


def test_ast_takes_imagenet_weights_and_resizes_their_position_embedding(tmp_path: Path) -> None:
    import timm

    torch.manual_seed(1)
    state = timm.create_model("deit_tiny_distilled_patch16_224", in_chans=3, num_classes=1000).state_dict()
    save_file(state, tmp_path / "deit_tiny_distilled_patch16_224.safetensors")
    recipe = replace(get_recipe("baseline"), backbone="ast:deit_tiny_distilled_patch16_224")
    model, _ = make_model(recipe, str(tmp_path))
    loaded = model.state_dict()
    torch.testing.assert_close(loaded["blocks.3.mlp.fc1.weight"], state["blocks.3.mlp.fc1.weight"])
    assert loaded["pos_embed"].shape[1] == 39 * 29 + 2
    torch.testing.assert_close(loaded["pos_embed"][:, :2], state["pos_embed"][:, :2])
    kernel = state["patch_embed.proj.weight"].sum(dim=1, keepdim=True)
    torch.testing.assert_close(loaded["patch_embed.proj.weight"], kernel)


def test_images_that_a_transformer_cannot_cut_are_padded_with_zeros() -> None:
    recipe = replace(get_recipe("baseline"), backbone="vit_tiny_patch16_224", drop_path_rate=0.0)
    model = make_model(recipe)[0].eval()
    assert model.patch_embed.grid_size == (416 // 16, 320 // 16)
    images = torch.randn(1, 1, 400, 300)
    padded = torch.zeros(1, 1, 416, 320)
    padded[:, :, :400, :300] = images
    with torch.inference_mode():
        torch.testing.assert_close(model(images), model(padded))


@pytest.mark.parametrize("backbone", ["test_efficientnet", "test_vit", "ast:deit_tiny_distilled_patch16_224"])
def test_half_shows_the_network_means_of_two_by_two_pixels(backbone: str) -> None:
    recipe = replace(get_recipe("baseline"), backbone=f"half:{backbone}", drop_path_rate=0.0)
    model = make_model(recipe)[0].eval()
    seen: list[tuple[int, ...]] = []
    next(m for m in model.modules() if isinstance(m, torch.nn.Conv2d)).register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0].shape[-2:])
    )
    images = torch.randn(1, 1, 400, 300)
    means = images.reshape(1, 1, 200, 2, 150, 2).mean(dim=(3, 5))
    with torch.inference_mode():
        torch.testing.assert_close(
            model(images), model(means.repeat_interleave(2, 2).repeat_interleave(2, 3))
        )
    assert seen[0][0] in (200, 201, 224)  # 201: padded by its first convolution, 224: to whole patches


def test_an_input_that_a_network_cannot_take_is_refused_before_training() -> None:
    check_model(SMALL, FirstWeights())
    # Its constructor takes the size and its first step would not.
    with pytest.raises(UsageError, match=r"backbone 'crossvit_9_240' cannot take \(400, 300\) images"):
        check_model(replace(SMALL, backbone="crossvit_9_240"), FirstWeights())


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("backbone", ["tf_efficientnet_b0_ns", "half:swsl_resnet18"])
def test_networks_that_timm_has_renamed_are_made(backbone: str) -> None:
    model, _ = make_model(replace(SMALL, backbone=backbone))
    assert classifier_layers(model, backbone)


def image_networks(model: torch.nn.Module, recipe: Recipe) -> list[Any]:
    """The timm networks of a model, which may stand beside an encoder or behind a front end."""
    if isinstance(recipe.layout, Views):
        return [part for part in (model.first, model.second) if hasattr(part, "pretrained_cfg")]
    return [model if recipe.front_end is None else model.backbone]


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS.values())
def test_every_recipes_network_starts_from_weights_of_timm(name: str, tmp_path: Path) -> None:
    """Three channels, a thousand classes, an image size of its own: all of it fits, and the head is a new one."""
    import timm

    recipe = replace(get_recipe(name), drop_path_rate=0.0, dropout=0.0)
    torch.manual_seed(1)
    state = timm.create_model(timm_name(recipe.backbone)).state_dict()
    path = tmp_path / "w.safetensors"
    save_file({key: tensor.contiguous() for key, tensor in state.items()}, path)
    model, where_from = make_model(recipe, str(path))
    path.unlink()
    assert "w.safetensors" in where_from
    for network in image_networks(model, recipe):
        same = [k for k, t in network.state_dict().items() if k in state and torch.equal(t, state[k])]
        assert len(same) > 0.9 * len(state)
    images = inputs_of(recipe)
    check_head(model, recipe, images if fixed(recipe) else images[..., :128, :96])


# ---- two views, planes, pooling

VIEWS = replace(
    get_recipe("two-views"),
    backbone="half:test_efficientnet",
    layout=Views(SMALL.layout, Folded(FoldSpec(step=4, phases=5))),
    dropout=0.0,
    drop_path_rate=0.0,
)


def check_one_layer_on_both(
    model: Any, values_BN: torch.Tensor, first: tuple[int, ...], second: tuple[int, ...]
) -> list[torch.Tensor]:
    """The logits of two views of these shapes are one layer on both embeddings, which are returned."""
    one, other = values_BN.split([math.prod(first), math.prod(second)], dim=1)
    with torch.inference_mode():
        embeddings = [model.first(one.reshape(-1, *first)), model.second(other.reshape(-1, *second))]
        wanted = torch.cat(embeddings, dim=1) @ model.head.weight.T + model.head.bias
        torch.testing.assert_close(model(values_BN), wanted)
    return embeddings


def test_the_logits_of_two_views_are_one_layer_on_both_embeddings() -> None:
    model = make_model(VIEWS)[0].eval()
    embeddings = check_one_layer_on_both(model, inputs_of(VIEWS, 3), (1, 400, 300), (1, 80, 500))
    assert model.head.weight.shape == (6, sum(e.shape[1] for e in embeddings))


def test_dropout_of_two_views_comes_once_after_both() -> None:
    model = make_model(replace(VIEWS, dropout=0.5))[0]
    probabilities = {name: m.p for name, m in model.named_modules() if isinstance(m, torch.nn.Dropout)}
    assert {name: p for name, p in probabilities.items() if p} == {"dropout": 0.5}
    assert (model.first.drop_rate, model.second.drop_rate) == (0, 0)


def test_each_of_two_views_has_logits_of_its_own_in_training() -> None:
    model = make_model(replace(VIEWS, view_loss=0.3))[0].train()
    seen: dict[str, torch.Tensor] = {}
    for name in ("first", "second"):
        model.get_submodule(name).register_forward_hook(lambda *call, name=name: seen.update({name: call[2]}))
    values_BN = inputs_of(VIEWS, 3)
    both, *alone = model(values_BN)
    wanted = torch.cat(list(seen.values()), dim=1) @ model.head.weight.T + model.head.bias
    torch.testing.assert_close(both, wanted)
    for logits, embedding, head in zip(alone, seen.values(), model.own_heads, strict=True):
        torch.testing.assert_close(logits, embedding @ head.weight.T + head.bias)
    assert model.eval()(values_BN).shape == both.shape == (3, 6)
    assert head_layers(model, VIEWS) == [model.head]
    assert not make_model(VIEWS)[0].own_heads


def test_two_views_may_have_two_networks() -> None:
    model, _ = make_model(replace(VIEWS, second_backbone="test_vit"))
    assert type(model.first).__name__ == "EfficientNet"
    assert type(model.second).__name__ == "VisionTransformer"
    check_model(replace(VIEWS, second_backbone="test_vit"), FirstWeights())


def test_first_weights_of_two_different_networks_come_out_of_a_folder(tmp_path: Path) -> None:
    import timm

    states = {name: timm.create_model(name).state_dict() for name in ("test_efficientnet", "test_vit")}
    for name, state in states.items():
        save_file({k: t.contiguous() for k, t in state.items()}, tmp_path / f"{name}.safetensors")
    model, where_from = make_model(replace(VIEWS, second_backbone="test_vit"), str(tmp_path))
    assert "test_efficientnet.safetensors and test_vit.safetensors" in where_from
    name = "blocks.0.0.conv.weight"
    assert torch.equal(model.first.state_dict()[name], states["test_efficientnet"][name])
    name = "blocks.0.attn.qkv.weight"
    assert torch.equal(model.second.state_dict()[name], states["test_vit"][name])
    with pytest.raises(DataError, match="does not hold weights of test_vit"):
        make_model(
            replace(VIEWS, second_backbone="test_vit"), str(tmp_path / "test_efficientnet.safetensors")
        )


def test_a_network_for_two_views_that_cannot_take_one_is_refused_before_training() -> None:
    with pytest.raises(UsageError, match=r"'half:test_efficientnet beside crossvit_9_240' cannot take"):
        check_model(replace(VIEWS, second_backbone="crossvit_9_240"), FirstWeights())


def test_three_planes_meet_a_stem_of_three_channels() -> None:
    recipe = replace(get_recipe("mel-zoom"), backbone="test_efficientnet")
    model, _ = make_model(recipe)
    assert model.conv_stem.weight.shape[1] == 3
    assert make_model(SMALL)[0].conv_stem.weight.shape[1] == 1


@pytest.mark.parametrize("backbone", ["test_efficientnet", "resnet10t", "half:regnetx_002"])
def test_generalised_mean_of_the_last_feature_map(backbone: str) -> None:
    recipe = replace(SMALL, backbone=backbone, dropout=0.0, drop_path_rate=0.0, pooling="gem")
    torch.manual_seed(0)
    model = make_model(recipe)[0].eval()
    torch.manual_seed(0)
    own = make_model(replace(recipe, pooling=None))[0].eval()
    own.load_state_dict(model.state_dict())  # it has no weights of its own
    images = torch.randn(2, 1, 96, 96)
    seen = {}
    (pool,) = (m for m in model.modules() if type(m).__name__ == "GeMPool")
    pool.register_forward_hook(lambda _, inputs, output: seen.update(map=inputs[0], pooled=output))
    with torch.inference_mode():
        assert not torch.allclose(model(images), own(images))
    cubes = seen["map"].double().clamp(min=1e-6).pow(3).mean(dim=(2, 3)).pow(1 / 3)
    torch.testing.assert_close(seen["pooled"].double(), cubes, rtol=1e-5, atol=1e-6)


def test_a_network_whose_pooling_cannot_be_replaced_is_named() -> None:
    with pytest.raises(UsageError, match="backbone 'test_vit' has no pooling that could be 'gem'"):
        make_model(replace(SMALL, backbone="test_vit", pooling="gem"))


# ---- signals that are embedded


@pytest.mark.parametrize("name", ["squeeze-1d", "effnet1d", "resnet1d"])
def test_the_logits_of_an_encoder_are_one_layer_on_its_embedding(name: str) -> None:
    check_one_layer(replace(get_recipe(name), dropout=0.0))


def check_one_layer(recipe: Recipe) -> None:
    """The logits of an encoder are one layer on its embedding."""
    model: Any = make_model(recipe)[0].eval()
    inputs = inputs_of(recipe, 2)
    (head,) = head_layers(model, recipe)
    with torch.inference_mode():
        wanted = model.front_end(inputs) @ head.weight.T + head.bias
        torch.testing.assert_close(model(inputs), wanted)
    assert head.weight.shape == (6, model.front_end.width)


@pytest.mark.parametrize("name", ["squeeze-1d", "effnet1d", "resnet1d"])
def test_the_first_predictions_of_an_encoder_are_nearly_equal(name: str) -> None:
    recipe = replace(get_recipe(name), dropout=0.0)
    torch.manual_seed(0)
    with torch.inference_mode():
        probabilities = make_model(recipe)[0].eval()(3 * inputs_of(recipe, 4)).softmax(dim=1)
    assert 1 / 9 < float(probabilities.min()) < float(probabilities.max()) < 1 / 4


def test_an_encoder_stands_beside_an_image_network() -> None:
    recipe = replace(get_recipe("raw+spectrogram"), dropout=0.0, backbone="half:test_efficientnet")
    model = make_model(recipe)[0].eval()
    check_one_layer_on_both(model, inputs_of(recipe, 2), (16, 10_000), (1, 400, 300))
    assert recipe.network == "squeeze beside half:test_efficientnet"
    assert recipe.image_shapes == ((400, 300),)


def test_two_encoders_need_no_image_network() -> None:
    recipe = replace(get_recipe("resnet1d+panels"), dropout=0.0)
    model = make_model(recipe)[0].eval()
    embeddings = check_one_layer_on_both(model, inputs_of(recipe, 2), (16, 2500), (1, 400, 300))
    assert [each.shape[1] for each in embeddings] == [4 * 192, 3 * 192]
    assert (recipe.network, recipe.backbones) == ("resnet1d beside panel-resnet", ())


def test_panels_may_be_embedded_by_themselves() -> None:
    recipe = replace(get_recipe("global-norm"), backbone="", panel_encoder=PanelResNetOptions(), dropout=0.0)
    check_model(recipe, FirstWeights())
    check_one_layer(recipe)
    assert recipe.network == "panel-resnet"


@pytest.mark.parametrize(("name", "changes"), [
    ("resnet1d", {"panel_encoder": PanelResNetOptions()}),  # no image
    ("panels+global", {"panel_encoder": PanelResNetOptions(), "backbone": ""}),  # two tiles
    ("global-norm", {"panel_encoder": PanelResNetOptions()}),  # a backbone that would see nothing
    ("global-norm", {"view_loss": 0.3}),  # one view
    ("two-views", {"view_loss": -0.1}),
    ("two-views", {"view_loss": float("nan")}),
    ("two-views", {"view_loss": float("inf")}),
])  # fmt: skip
def test_encoders_and_losses_of_views_that_are_not_there_are_refused(
    name: str, changes: dict[str, Any]
) -> None:
    with pytest.raises(UsageError, match="panel_encoder|backbone|view_loss"):
        replace(get_recipe(name), **changes)


def test_signals_may_become_an_image_beside_another() -> None:
    recipe = replace(
        get_recipe("raw+spectrogram"), front_end=FoldOptions(), backbone="half:test_efficientnet"
    )
    check_model(recipe, FirstWeights())
    assert recipe.image_shapes == ((160, 1000), (400, 300))
    assert recipe.network == "half:test_efficientnet beside half:test_efficientnet"


def test_an_encoder_has_no_first_weights(tmp_path: Path) -> None:
    _, where_from = make_model(get_recipe("squeeze-1d"), str(tmp_path / "no-such-file"))
    assert where_from == "weights: none, from scratch"


def test_an_encoder_has_no_backbone_to_replace() -> None:
    with pytest.raises(UsageError, match="squeeze-1d has no image network that resnet10t could replace"):
        get_recipe("squeeze-1d").changed(backbone="resnet10t")
    with pytest.raises(UsageError, match="backbone must name a timm model"):
        replace(get_recipe("squeeze-1d"), backbone="resnet10t")
    with pytest.raises(UsageError, match="backbone must name a timm model"):
        replace(get_recipe("baseline"), backbone="")


def test_an_unknown_backbone_suggests_others() -> None:
    with pytest.raises(UsageError, match="unknown backbone 'efficientnet_b22'; did you mean efficientnet_b2"):
        make_model(replace(SMALL, backbone="efficientnet_b22"))

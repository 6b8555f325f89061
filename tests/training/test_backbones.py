"""Names of networks: those of timm, of today and of before."""

from __future__ import annotations

import pytest
import timm

from kagglehms.errors import UsageError
from kagglehms.training.backbones import timm_name


@pytest.mark.parametrize(
    ("backbone", "name"),
    [
        ("efficientnet_b2", "efficientnet_b2"),
        ("efficientnet_b2.ra_in1k", "efficientnet_b2.ra_in1k"),
        ("half:test_efficientnet", "test_efficientnet"),
        ("half:ast:deit_tiny_distilled_patch16_224", "deit_tiny_distilled_patch16_224"),
        ("tf_efficientnet_b0_ns", "tf_efficientnet_b0.ns_jft_in1k"),
        ("half:tf_efficientnet_b0_ap", "tf_efficientnet_b0.ap_in1k"),
        ("swsl_resnet18", "resnet18.fb_swsl_ig1b_ft_in1k"),
        ("tf_efficientnet_b0_ns.aa_in1k", "tf_efficientnet_b0.aa_in1k"),
    ],
)
def test_names_are_those_of_timm(backbone: str, name: str) -> None:
    assert timm_name(backbone) == name


@pytest.mark.filterwarnings("ignore:Mapping deprecated model name")
@pytest.mark.parametrize("given", ["tf_efficientnet_b0_ns", "tf_efficientnet_b0_ap", "swsl_resnet18"])
def test_a_renamed_network_is_the_one_that_timm_makes(given: str) -> None:
    made = timm.create_model(given).pretrained_cfg
    assert timm_name(given) == f"{made['architecture']}.{made['tag']}"


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        ("efficientnet_b22", "unknown backbone 'efficientnet_b22'; did you mean efficientnet_b2"),
        ("half:nothing_like_it", "unknown backbone 'nothing_like_it'; timm.list_models"),
        ("", "unknown backbone ''"),
        (
            "efficientnet_b2.nope",
            "'efficientnet_b2': timm has no weights 'nope' of it; those it has: ra_in1k",
        ),
    ],
)
def test_a_name_that_timm_does_not_know_is_refused(backbone: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        timm_name(backbone)

"""Names of backbones in recipes, and their names in timm and braindecode."""

from __future__ import annotations

import difflib

from kagglehms.errors import UsageError

AST = "ast:"
"""Prefix of a timm ViT for patches of 16 × 16 with a stride of 10, as in the Audio Spectrogram Transformer."""
HALF = "half:"
"""Prefix of any model for images of half the height and width, a quarter of the work, for quick runs."""
EEG = "eeg:"
"""Prefix of a network of braindecode, which sees signals."""


def given_name(backbone: str) -> str:
    """Return the name of a backbone without its prefixes."""
    return backbone.removeprefix(HALF).removeprefix(AST)


def timm_name(backbone: str) -> str:
    """Return the name of a backbone in the installed timm, with the tag of its pretrained weights if it has one.

    Names that timm has replaced are resolved by its own table: `tf_efficientnet_b0_ns` becomes
    `tf_efficientnet_b0.ns_jft_in1k`.

    Args:
        backbone: name of the backbone, with its prefixes.

    Raises:
        UsageError: timm has no such model, has removed it, or has no weights with this tag.
    """
    import timm
    from timm.models import get_deprecated_models

    name, dot, tag = given_name(backbone).partition(".")
    renamed = get_deprecated_models()
    if name in renamed:
        current = renamed[name]
        if not current:
            raise UsageError(f"backbone {name!r}: timm {timm.__version__} has removed it; choose another")
        # A tag in the name takes precedence over that of timm's table, as in timm.
        name, dot, tag = (
            f"{current.partition('.')[0]}.{tag}".partition(".") if tag else current.partition(".")
        )
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "timm.list_models() lists them"
        raise UsageError(f"unknown backbone {name!r}; {hint}")
    tags = [model.partition(".")[2] for model in timm.list_models(f"{name}.*", include_tags=True)]
    if tag and tag not in tags:
        known = ", ".join(filter(None, tags)) or "none"
        raise UsageError(f"backbone {name!r}: timm has no weights {tag!r} of it; those it has: {known}")
    return name + dot + tag

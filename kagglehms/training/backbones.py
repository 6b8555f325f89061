"""A recipe's backbone → the name by which timm knows the network."""

from __future__ import annotations

import difflib

from kagglehms.errors import UsageError

AST = "ast:"
"""Before the name of a timm ViT: patches of 16 × 16 with stride 10, as the Audio Spectrogram Transformer has them."""
HALF = "half:"
"""Before any name: the network sees means of 2 × 2 pixels, a quarter of the work, for quick passes."""


def given_name(backbone: str) -> str:
    """The timm model that a recipe names, as it is spelt there."""
    return backbone.removeprefix(HALF).removeprefix(AST)


def timm_name(backbone: str) -> str:
    """The name of a recipe's network in today's timm, with the tag of its pretrained weights if one was given.

    Names that timm has given up are resolved by timm's own table: `tf_efficientnet_b0_ns` is
    `tf_efficientnet_b0.ns_jft_in1k`.

    Args:
        backbone: of a recipe, with its prefixes.

    Raises:
        UsageError: timm has no such model, has it no more, or has no such tag of it.
    """
    import timm
    from timm.models import get_deprecated_models

    name, dot, tag = given_name(backbone).partition(".")
    renamed = get_deprecated_models()
    if name in renamed:
        current = renamed[name]
        if not current:
            raise UsageError(f"backbone {name!r}: timm {timm.__version__} has it no more; choose another")
        # A tag of one's own goes before that of timm's table, as in timm.
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

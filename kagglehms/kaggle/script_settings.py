"""Whether what a kernel's script sets at its top fits the bundle beside it and the library in it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from kagglehms.bundle.manifest import Manifest
from kagglehms.errors import UsageError
from kagglehms.kaggle.bundle_rules import package_findings
from kagglehms.kaggle.findings import Finding
from kagglehms.kaggle.scripts import Wheel
from kagglehms.kaggle.stamping import STAMPS

_TRAINING = ("RECIPES", "OPTIONS")
"""Variables of the training kernel that its owner edits."""


def stamp_findings(script: Path, bundle_id: str | None, manifest: Manifest | None) -> Iterator[Finding]:
    """Yield the stamps that name another bundle than the one in the same build.

    Args:
        script: file of the kernel's script.
        bundle_id: owner/slug of the bundle; None leaves it unchecked.
        manifest: manifest of the bundle; None leaves the digest unchecked.
    """
    text = _text(script)
    if text is None:
        return
    owner, _, slug = bundle_id.partition("/") if bundle_id is not None else (None, None, None)
    expected = {"OWNER": owner, "BUNDLE": slug, "DIGEST": manifest.digest if manifest else None}
    for name in STAMPS:
        found = re.findall(rf'^{name} = "([^"]*)"', text, flags=re.MULTILINE)
        if len(found) != 1:
            yield Finding(str(script), f'has {len(found)} lines `{name} = "…"` instead of one', "build again")
        elif expected[name] is not None and found[0] != expected[name]:
            yield Finding(
                str(script),
                f"{name} is {found[0][:40]!r}, and the bundle beside it has {str(expected[name])[:40]!r}",
                "build again: bundle and kernels belong together",
                cause="bundle",
            )


def training_findings(script: Path, wheels: Mapping[str, Wheel]) -> Iterator[Finding]:
    """Yield what the training kernel would refuse of the recipes and options that its owner wrote into it.

    Args:
        script: file of the kernel's script.
        wheels: wheels of the bundle by the name of their distribution.
    """
    from kagglehms.kernel.training_session import training_options

    try:
        tree = ast.parse(_text(script) or "")
    except (ValueError, SyntaxError):
        return  # reported by script_findings
    written = {}
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for target in targets:
            if isinstance(target, ast.Name) and target.id in _TRAINING:
                written[target.id] = getattr(node, "value", None)
    if len(written) < len(_TRAINING):
        return
    try:
        recipes, options = (ast.literal_eval(written[name] or "") for name in _TRAINING)
    except (ValueError, TypeError, SyntaxError):
        return  # computed values, which only the kernel can check
    try:
        checked = training_options(recipes, options)
        for recipe in checked.recipes(recipes):
            yield from package_findings(script, recipe, wheels)
    except UsageError as error:
        yield Finding(str(script), str(error), "correct it in the script")


def _text(script: Path) -> str | None:
    """Return a script's text; None if it cannot be read, which script_findings reports."""
    try:
        return script.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None

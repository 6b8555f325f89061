"""A build as text for people: its files, its models, and the commands that come next."""

from __future__ import annotations

import shlex

from kagglehms.bundle.manifest import Model
from kagglehms.data.competition import SLUG
from kagglehms.errors import counted
from kagglehms.kaggle.dist import UNSCORED, choose_kernels, kernel_ref
from kagglehms.kaggle.stamping import PLACEHOLDER_OWNER
from kagglehms.packing.build import Built


def describe(built: Built, pushes: bool = False) -> str:
    """Return tables of what was built, and the commands that come next, unless the same command `pushes` by itself."""
    manifest = built.manifest
    lines = [f"{'file':<48} {'bytes':>13}  sha256"]
    lines += [f"{name:<48} {file.size:>13,}  {file.sha256[:12]}" for name, file in manifest.files.items()]
    lines += ["", f"{'model':<43} {'fold':>4}  out-of-fold score"]
    lines += [f"{model.recipe:<43} {model.fold:>4}  {_scores_line(model)}" for model in manifest.models]
    files, models = counted(len(manifest.files), "file"), counted(len(manifest.models), "model")
    lines += [
        "",
        f"{built.dataset}: {files}, {manifest.size / 1e6:.1f} MB, {models}",
        f"digest {manifest.digest}",
        f"owner {built.owner} (from {built.owner_source})",
        *([] if pushes else ["", *_next_commands(built)]),
    ]
    if built.owner == PLACEHOLDER_OWNER:
        lines += [
            "",
            f"warning: no Kaggle user name is known, and nothing can be uploaded for {PLACEHOLDER_OWNER!r};",
            "build again with --owner NAME, or set KAGGLE_USERNAME",
        ]
    return "\n".join(lines)


def _next_commands(built: Built) -> list[str]:
    """Return what brings the build to Kaggle: its scored kernels, or, without any, those that train."""
    dataset, short = shlex.quote(str(built.dataset)), built.manifest.digest[:12]
    folders = choose_kernels(built.dataset.parent, [folder.name for folder in built.kernels])
    scored = [folder for folder in folders if folder.name not in UNSCORED]
    pushed = scored or folders
    names = " ".join(shlex.quote(folder.name) for folder in pushed)
    submit = f"kaggle competitions submit {SLUG} -f submission.csv -m {short}"
    return [
        f"next: the same command with --push {names} does all of this and waits; by hand, in this order:",
        f"  kaggle datasets create -p {dataset}",
        f"  kaggle datasets version -p {dataset} -m {short}   # instead, if the dataset exists already",
        f"  kaggle datasets status {built.owner}/{built.slug}   # until it says `ready`",
        *(f"  kaggle kernels push -p {shlex.quote(str(folder))}" for folder in pushed),
        *(f"  {submit} -k {kernel_ref(folder)} -v VERSION   # by hand in any case" for folder in scored),
    ]


def _scores_line(model: Model) -> str:
    text = ", ".join(f"{name} {score:.4f}" for name, score in model.scores.items() if score is not None)
    if model.onnx is not None:
        text += f"; ONNX within {model.onnx.max_difference:.1e}"
    if model.precision == "float32":
        return text
    if model.changes is None:
        return f"{text}; float16, its change not measured (give --data and --store)"
    known = [(name, change) for name, change in model.changes.items() if change is not None]
    return f"{text}; float16 changes {', '.join(f'{name} {change:+.6f}' for name, change in known)}"

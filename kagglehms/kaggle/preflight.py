"""Everything that is known to go wrong on Kaggle, checked before anything is uploaded: all findings at once.

The rules are in `metadata.py`, `bundle_rules.py`, `scripts.py` and `script_settings.py`; here they are applied to what
a build has left.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kagglehms.bundle.manifest import CARD
from kagglehms.errors import EXIT_FAILURE, EXIT_OK, counted
from kagglehms.kaggle.bundle_rules import (
    file_findings,
    readable_wheels,
    recipe_findings,
    verified_manifest,
)
from kagglehms.kaggle.dist import kernel_folders, require_bundle
from kagglehms.kaggle.findings import Finding
from kagglehms.kaggle.image import kaggle_image
from kagglehms.kaggle.metadata import card_findings, kernel_findings, slug_of
from kagglehms.kaggle.script_settings import stamp_findings, training_findings
from kagglehms.kaggle.scripts import LIBRARY, script_findings
from kagglehms.kaggle.stamping import KERNEL_METADATA
from kagglehms.strict_json import JSONError, parse_object


@dataclass(frozen=True)
class Preflight:
    """What was checked and what was found.

    Attributes:
        findings: everything that would go wrong; if empty, a push may begin.
        dataset: owner/slug of the bundle as its card gives it; None if it has no card that can be read.
        digest: digest of the bundle; None if it has no readable manifest.
        files: number of files in the dataset, without the card.
        size: total bytes of those files.
        kernels: owner/slug of each kernel by the name of its folder.
    """

    findings: tuple[Finding, ...]
    dataset: str | None
    digest: str | None
    files: int
    size: int
    kernels: dict[str, str]

    @property
    def ok(self) -> bool:
        return not self.findings

    @property
    def exit_code(self) -> int:
        """Exit code of a command that ends with this result."""
        return EXIT_OK if self.ok else EXIT_FAILURE

    @property
    def causes(self) -> list[list[Finding]]:
        """The findings in their order, those that have one cause together: what people are told of, and how many."""
        causes: dict[str, list[Finding]] = {}
        for number, finding in enumerate(self.findings):
            causes.setdefault(finding.cause or str(number), []).append(finding)
        return list(causes.values())

    def to_json(self) -> str:
        """Return the result as JSON, for other programs."""
        return json.dumps({"ok": self.ok} | asdict(self), indent=2, ensure_ascii=False)

    @property
    def text(self) -> str:
        """The result as text for people."""
        name, digest = self.dataset or "of unknown name", self.digest[:12] if self.digest else "unknown"
        seen = f"dataset {name}: {counted(self.files, 'file')}, {self.size / 1e6:.1f} MB, digest {digest}; "
        seen += f"kernels: {', '.join(self.kernels.values()) or 'none'}"
        if self.ok:
            return f"preflight: nothing found. {seen}"
        causes = self.causes
        lines = [f"preflight: {counted(len(causes), 'finding')}. {seen}"]
        for finding, *others in causes:
            lines += [f"  {finding.where}", f"    {finding.what}", f"    fix: {finding.fix}"]
            if others:
                where = ", ".join(dict.fromkeys(other.where for other in others))
                lines.append(f"    for the same reason {counted(len(others), 'other finding')}, in {where}")
        return "\n".join(lines)


def preflight(dist: Path) -> Preflight:
    """Check what a build has left in `dist`.

    Raises:
        UsageError: there is nothing to check.
    """
    require_bundle(dist)
    dataset = dist / "dataset"
    findings: list[Finding] = []
    card = _read(dataset / CARD, findings, "bundle")
    findings += card_findings(card, dataset) if card is not None else ()
    findings += file_findings(dataset)
    manifest = verified_manifest(dataset, findings)
    bundle_id = None if card is None else str(card.get("id"))
    folders = kernel_folders(dist)
    if not folders:
        findings.append(Finding(str(dist / "kernels"), "there is no kernel", "build again"))
    wheels = readable_wheels(dataset, findings)
    findings += recipe_findings(dataset, manifest, wheels) if manifest else ()
    kernels: dict[str, Mapping[str, Any]] = {}
    for folder in folders:
        metadata = _read(folder / KERNEL_METADATA, findings)
        if metadata is None:
            continue
        kernels[folder.name] = metadata
        findings += kernel_findings(metadata, folder, bundle_id)
        script = folder / str(metadata.get("code_file"))
        if script.is_file() and metadata.get("kernel_type") == "script":
            findings += stamp_findings(script, bundle_id, manifest)
            findings += training_findings(script, wheels)
            findings += script_findings(script, kaggle_image(), wheels.get(LIBRARY), list(wheels.values()))
    findings += _clashes({dataset.name: card or {}} | {f"kernel {name}": kernels[name] for name in kernels})
    files = [path for path in dataset.rglob("*") if path.is_file() and path != dataset / CARD]
    return Preflight(
        tuple(findings),
        bundle_id,
        manifest.digest if manifest else None,
        len(files),
        sum(path.stat().st_size for path in files),
        {name: str(metadata.get("id")) for name, metadata in kernels.items()},
    )


def _read(path: Path, findings: list[Finding], cause: str = "") -> dict[str, Any] | None:
    try:
        return parse_object(path.read_bytes())
    except (OSError, JSONError) as error:
        reason = str(error) if isinstance(error, JSONError) else f"cannot be read ({error.strerror})"
        findings.append(Finding(str(path), reason, "build again", cause))
        return None


def _clashes(metadata: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    """Yield slugs that are used twice: a dataset and a kernel of one owner cannot share one, nor can two kernels.

    Args:
        metadata: content of the metadata files by the names under which they are reported.
    """
    holders: dict[str, str] = {}
    for name, content in metadata.items():
        slug = slug_of(content)
        if slug in holders:
            yield Finding(
                name, f"has the slug {slug!r} of {holders[slug]}", "choose another slug in the template"
            )
        elif slug:
            holders[slug] = name

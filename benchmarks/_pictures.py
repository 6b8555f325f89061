"""Pictures of the documentation as files that are small enough for a repository."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from PIL import Image

MOST_BYTES = 300_000


def rendered(figure: Any, dpi: int) -> Image.Image:
    """Return matplotlib's figure as a picture."""
    raw = io.BytesIO()
    figure.savefig(raw, dpi=dpi)
    return Image.open(raw).convert("RGB")


def save(picture: Image.Image, path: Path, n_colours: int, method: Image.Quantize) -> None:
    """Write a picture of few colours, or refuse one that is too large."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.quantize(n_colours, method, dither=Image.Dither.NONE).save(path, optimize=True)
    size = path.stat().st_size
    print(f"{path}: {size / 1000:.0f} kB")
    if size > MOST_BYTES:
        raise SystemExit(f"{path}: expected at most {MOST_BYTES / 1000:.0f} kB")

"""Mel bands of many bins as sums of three squares.

After its first stage a frame is a vector a: R rows of either parity, and its level. Bin k has the power
(e_k · a)² + (o_k · a)², by an even and an odd row, and a band is a weighted sum of bins. For either parity that is a
quadratic form,

    Σ w_k (e_k · a)² = |√w E a|² = Σ_q (s_q v_q · a)²

with the singular values s and right singular vectors v of √w E. Where bins are much closer together than the window can
resolve, three terms make the whole sum, because the others are negligible. So three rows of either parity replace all
bins of a band. Squares do not cancel: weak bands keep their digits.
"""

from __future__ import annotations

import functools

import numpy as np

from kagglehms.features.mel_plan import MelPlan, MelSpec, plan
from kagglehms.features.transform_plan import F64, TILE, untile

TOLERANCE = 1e-4
"""Greatest amplitude that may be left out, relative to the greatest of a band: 80 dB below its power."""


@functools.lru_cache(maxsize=8)
def condensed(spec: MelSpec) -> MelPlan:
    """Derive the tables of `spec`, with three rows a band where these suffice and are fewer than its bins.

    Raises:
        UsageError: `spec.tolerance` is below what float32 coefficients can reach.
    """
    found = plan(spec)
    transform = found.transform
    even, odd = untile(transform.combine, transform.rank + 1)
    weight_MT = found.band_weight.astype(np.float64).reshape(spec.n_mels, found.n_taps)
    bins_MT = found.band_start[:, None] + np.arange(found.n_taps)
    (even_MQR, even_most, even_left), (odd_MQR, odd_most, odd_left) = (
        _condensed(rows[bins_MT], weight_MT) for rows in (even, odd)
    )
    left = max(even_left, odd_left) / max(even_most, odd_most)
    if found.n_taps <= TILE or left > TOLERANCE:
        return found
    # A band is a tile of (R + 1, 3 even and 3 odd rows).
    tiles = np.stack([even_MQR, odd_MQR], axis=1).transpose(0, 3, 1, 2)
    return found._replace(
        transform=transform._replace(
            n_bins=TILE * spec.n_mels, combine=np.ascontiguousarray(tiles, np.float32).reshape(-1)
        ),
        n_taps=TILE,
        band_start=TILE * np.arange(spec.n_mels),
        band_weight=np.ones(TILE * spec.n_mels, np.float32),
    )


def _condensed(rows_MTR: F64, weight_MT: F64) -> tuple[F64, float, float]:
    """Return (M, 3, R) rows, the greatest amplitude of a band, and the greatest that its three rows leave out."""
    _, s_MQ, v_MQR = np.linalg.svd(np.sqrt(weight_MT)[..., None] * rows_MTR, full_matrices=False)
    kept_MQR = np.zeros((len(s_MQ), TILE, rows_MTR.shape[-1]))
    kept_MQR[:, : s_MQ.shape[1]] = (s_MQ[..., None] * v_MQR)[:, :TILE]
    most, left = (float(np.linalg.norm(part_MQ, axis=1).max()) for part_MQ in (s_MQ, s_MQ[:, TILE:]))
    return kept_MQR, most, left

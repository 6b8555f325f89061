"""Missing samples of signals: bridged by straight lines, for filters that need a value everywhere."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def bridge(signals_CT: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Fill missing samples in place: by a straight line between neighbours, by the nearest value at the ends.

    Args:
        signals_CT: (C, T) signals; NaN or infinite where a sample is missing. One without any sample becomes zero.

    Returns:
        (C, T) whether a sample was missing.
    """
    missing_CT = ~np.isfinite(signals_CT)
    at = np.arange(signals_CT.shape[1])
    for signal_T, missing_T in zip(signals_CT, missing_CT, strict=True):
        if missing_T.all():
            signal_T[:] = 0
        elif missing_T.any():
            signal_T[missing_T] = np.interp(at[missing_T], at[~missing_T], signal_T[~missing_T])
    return missing_CT

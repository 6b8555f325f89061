"""The folded image on the device: each signal becomes p rows, one per phase.

    I[p·c + q, w] = x[c, p·w + q],   c a signal, q = 0 … p − 1, w a column

Nothing is computed, samples only change places: a column holds p neighbouring samples of every signal, a row every p-th
sample of one.

Shape legend: B batch, C signals, T samples, H and W image rows and columns.
"""

from __future__ import annotations

from torch import Tensor, nn

from kagglehms.errors import UsageError
from kagglehms.training.front_ends.options import FoldOptions


class Fold(nn.Module):
    """Fold signals into an image; no parameters.

    Args:
        options: how many phases.
    """

    def __init__(self, options: FoldOptions | None = None) -> None:
        super().__init__()
        self.options = options or FoldOptions()

    def forward(self, signals_BCT: Tensor) -> Tensor:
        """(B, C, T) → (B, 1, C·p, T/p) of the same dtype, contiguous.

        Raises:
            UsageError: T is no multiple of p.
        """
        n_batch, n_signals, n_times = signals_BCT.shape
        phases = self.options.phases
        if n_times % phases:
            raise UsageError(f"Fold: {n_times} samples are no multiple of {phases} phases")
        folded = signals_BCT.reshape(n_batch, n_signals, n_times // phases, phases).transpose(2, 3)
        return folded.reshape(n_batch, 1, n_signals * phases, n_times // phases)

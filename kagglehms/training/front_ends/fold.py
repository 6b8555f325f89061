"""The folded image on the device, in which each signal becomes p rows, one for each phase.

    I[p·c + q, w] = x[c, p·w + q]   for signals c, phases q = 0 … p − 1 and columns w

Samples are only rearranged: a column has p neighbouring samples of every signal, and a row every p-th sample of one.

Shape legend: B batch, C signals, T samples, H and W image rows and columns.
"""

from __future__ import annotations

from torch import Tensor, nn

from kagglehms.errors import UsageError
from kagglehms.training.front_ends.options import FoldOptions


class Fold(nn.Module):
    """Folds signals into an image; has no parameters.

    Args:
        options: number of phases.
    """

    def __init__(self, options: FoldOptions | None = None) -> None:
        super().__init__()
        self.options = options or FoldOptions()

    def forward(self, signals_BCT: Tensor) -> Tensor:
        """Fold signals into (B, 1, C·p, T/p) images of the same dtype.

        Raises:
            UsageError: the number of samples is not a multiple of the number of phases.
        """
        n_batch, n_signals, n_times = signals_BCT.shape
        phases = self.options.phases
        if n_times % phases:
            raise UsageError(f"Fold: {n_times} samples are no multiple of {phases} phases")
        folded = signals_BCT.reshape(n_batch, n_signals, n_times // phases, phases).transpose(2, 3)
        return folded.reshape(n_batch, 1, n_signals * phases, n_times // phases)

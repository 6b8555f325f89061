"""A residual network that is applied to each panel of a spectrogram, and another that sees all panels together.

An image of four panels, stacked, is no photograph: what is 100 rows further down is the same frequency of another part
of the head. A network that runs over the whole image has to learn what a pattern looks like once for each panel, and
meets the places where panels touch. Here the same layers see one panel after another, as `resnet1d` sees one chain
after another, and learn four times as often. Then the panels are laid on one another, so that the layers that follow
see the whole head at the same time and frequency, and which of the panels have what.

What is pooled is the whole recording, mean and maximum, and the mean of its middle, which is what the experts voted on.

Shape legend: B batch, H and W image rows and columns, N panels of the whole batch (B · panels), F and T rows and
columns of a panel, L positions in time, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from kagglehms.errors import UsageError
from kagglehms.training.front_ends.options import PanelResNetOptions
from kagglehms.training.front_ends.pooling import in_the_middle
from kagglehms.training.front_ends.residual import Residual, activated, convolved

_STEM_KERNEL, _KERNEL = 5, 3


class PanelResNet(nn.Module):
    """Turns an image of stacked panels into an embedding.

    Args:
        height: number of rows of the image, a multiple of the number of panels.
        options: sizes of the network.

    Raises:
        UsageError: the rows cannot be divided into panels of equal height.
    """

    def __init__(self, height: int, options: PanelResNetOptions | None = None) -> None:
        super().__init__()
        self.options = options or PanelResNetOptions()
        options = self.options
        if height % options.n_panels:
            raise UsageError(
                f"PanelResNet: {height} rows do not make {options.n_panels} panels of one height"
            )
        width = options.widths[0]
        self.stem = nn.Conv2d(1, width, _STEM_KERNEL, stride=2, padding=_STEM_KERNEL // 2, bias=False)
        stages = [_stage(options, stage) for stage in range(len(options.widths))]
        self.of_panels = nn.Sequential(*stages[:-1])
        self.of_recordings = nn.Sequential(stages[-1], *activated(options.widths[-1], axes=2))

    @property
    def width(self) -> int:
        """Number of features of the embedding."""
        return self.options.width

    def forward(self, images_B1HW: Tensor) -> Tensor:
        """Compute (B, D) embeddings of normalised (B, 1, H, W) images."""
        n_batch, _, height, n_times = images_B1HW.shape
        panels_N1FT = images_B1HW.reshape(-1, 1, height // self.options.n_panels, n_times)
        smaller_N1FT = functional.avg_pool2d(panels_N1FT, self.options.shrink, ceil_mode=True)
        by_panel_NDFT = self.of_panels(self.stem(smaller_N1FT))
        together_BDFT = by_panel_NDFT.reshape(n_batch, -1, *by_panel_NDFT.shape[2:])
        return _pooled(self.of_recordings(together_BDFT), self.options.middle)


def _stage(options: PanelResNetOptions, stage: int) -> nn.Sequential:
    """Return the layers of a stage.

    Before them, in all stages after the first, is a convolution: that of the last stage mixes the panels at each
    position, those of the others halve the height and the width.
    """
    width = options.widths[stage]
    layers: list[nn.Module] = []
    if stage == len(options.widths) - 1:
        layers += convolved(options.n_panels * options.widths[stage - 1], width, 1, axes=2)
    elif stage:
        layers += convolved(options.widths[stage - 1], width, _KERNEL, axes=2, stride=2)
    layers += [
        Residual(width, _KERNEL, 2, drop_path=options.drop_path_rate) for _ in range(options.layers[stage])
    ]
    return nn.Sequential(*layers)


def _pooled(features_BDFT: Tensor, middle: float) -> Tensor:
    """Return (B, 3 D) means and maxima of all positions, and means of a share of the columns in the middle."""
    flat_BDL, middle_BDL = features_BDFT.flatten(2), in_the_middle(features_BDFT, middle).flatten(2)
    return torch.cat([flat_BDL.mean(dim=2), flat_BDL.amax(dim=2), middle_BDL.mean(dim=2)], dim=1)

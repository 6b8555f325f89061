"""Options of the front ends, as frozen dataclasses that can be written as JSON.

This module imports no PyTorch, so that recipes can be read quickly. In JSON every front end carries its `kind`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Discriminator

from kagglehms.data.competition import SFREQ_HZ
from kagglehms.errors import UsageError
from kagglehms.features.differences_plan import n_differences
from kagglehms.features.transform_plan import bins_within, n_frames

PoolingName: TypeAlias = Literal["mean", "gem", "mean+max"]
"""Pooling of a feature map: its mean, its generalised mean (p = 3), or its mean plus its maximum."""


class _Strict:
    """Base of what Pydantic makes from JSON: a mistyped key or a value of another type is refused."""

    __pydantic_config__ = {"extra": "forbid", "strict": True}  # noqa: RUF012


@dataclass(frozen=True)
class FoldOptions(_Strict):
    """Options of the folded image, see `fold.Fold`.

    Attributes:
        phases: number of rows for each signal, by which its number of samples must be divisible.
    """

    phases: int = 10
    kind: Literal["fold"] = field(default="fold", kw_only=True)

    def __post_init__(self) -> None:
        _check(self, phases=self.phases >= 1)

    def image_shape(self, n_signals: int, n_times: int) -> tuple[int, int]:
        """Return (height, width) of the image of `n_signals` signals with `n_times` samples."""
        return n_signals * self.phases, n_times // self.phases


@dataclass(frozen=True)
class DifferencesOptions(_Strict):
    """Options of differences between neighbouring electrodes, see `differences.Differences`.

    Attributes:
        midline: whether Fz − Cz and Cz − Pz follow the sixteen differences of the double banana.
        clip_uv: largest absolute value in µV, to which larger ones are clipped; None for no limit.
        unit_uv: number of µV by which the differences are divided.
    """

    midline: bool = False
    clip_uv: float | None = 1024.0
    unit_uv: float = 32.0
    kind: Literal["differences"] = field(default="differences", kw_only=True)

    def __post_init__(self) -> None:
        _check(self, clip_uv=self.clip_uv is None or self.clip_uv > 0, unit_uv=self.unit_uv > 0)

    @property
    def n_signals(self) -> int:
        """Number of differences: 16, or 18 with the midline."""
        return n_differences(self.midline)


@dataclass(frozen=True)
class BandPassOptions(_Strict):
    """Options of a causal Butterworth band-pass, see `band_pass.CausalBandPass`.

    Attributes:
        low_hz: lower cut-off frequency (−3 dB).
        high_hz: upper cut-off frequency (−3 dB).
        order: order of the prototype; the band-pass has twice as many poles.
        sfreq_hz: sampling frequency.
        tail: value below which the end of the impulse response is cut off.
    """

    low_hz: float = 0.5
    high_hz: float = 20.0
    order: int = 2
    sfreq_hz: float = SFREQ_HZ
    tail: float = 1e-7
    kind: Literal["band-pass"] = field(default="band-pass", kw_only=True)

    def __post_init__(self) -> None:
        _check(
            self,
            low_hz=self.low_hz > 0,
            high_hz=self.low_hz < self.high_hz < self.sfreq_hz / 2,
            order=self.order >= 1,
            tail=0 < self.tail < 1e-3,
        )


@dataclass(frozen=True)
class SpectrumOptions(_Strict):
    """Options of spectrograms of every signal, see `spectrum.Spectrum`.

    Attributes:
        win_length: number of samples in a frame and its window.
        blocks: for each block, the number of samples in the middle of the recording, the hop between frames, and the
            number of frames to drop at either end. All blocks must have the same number of frames.
        band_hz: lowest and highest frequency of the bins.
        detrend: whether to subtract the mean of each frame, like `scipy.signal.spectrogram` by default.
        trainable: whether each block learns its window.
        planes: whether blocks are planes of the image instead of being stacked.
        size: (height, width) of the image.
        unit_uv: number of µV that 1 in the signals stands for.
        sfreq_hz: sampling frequency.
    """

    win_length: int = 144
    blocks: tuple[tuple[int, int, int], ...] = ((10_000, 21, 3), (2_000, 4, 0))
    band_hz: tuple[float, float] = (0.5, 20.0)
    detrend: bool = True
    trainable: bool = False
    planes: bool = False
    size: tuple[int, int] = (512, 512)
    unit_uv: float = 1.0
    sfreq_hz: float = SFREQ_HZ
    kind: Literal["spectrum"] = field(default="spectrum", kw_only=True)

    def __post_init__(self) -> None:
        _check(self, sfreq_hz=self.sfreq_hz > 0)
        possible = len(self.blocks) >= 1 and all(hop >= 1 and trim >= 0 for _, hop, trim in self.blocks)
        columns = {self._columns(*block) for block in self.blocks} if possible else set()
        first, last = self.bins if self.win_length >= 2 else (0, -1)
        _check(
            self,
            win_length=self.win_length >= 2,
            blocks=len(columns) == 1 and min(columns) >= 1,
            band_hz=1 <= first <= last < self.win_length / 2,
            unit_uv=self.unit_uv > 0,
        )

    @property
    def bins(self) -> tuple[int, int]:
        """First and last bin in the band; the frequency of bin k is k · sfreq_hz / win_length."""
        return bins_within(self.band_hz, self.sfreq_hz / self.win_length)

    def image_shape(self, n_signals: int, n_times: int) -> tuple[int, int]:
        """Return (height, width) of the image, which is filled up with zeros."""
        del n_signals, n_times
        return self.size

    @property
    def n_columns(self) -> int:
        """Number of frames in each block."""
        return self._columns(*self.blocks[0])

    def _columns(self, n_block: int, hop: int, trim: int) -> int:
        return n_frames(n_block, self.win_length, hop) - 2 * trim

    def content_shape(self, n_signals: int) -> tuple[int, int, int]:
        """Return (planes, rows, columns) of the spectrograms of `n_signals` signals, without the zeros around them."""
        first, last = self.bins
        rows = n_signals * (last - first + 1)
        n_blocks = len(self.blocks)
        return (n_blocks, rows, self.n_columns) if self.planes else (1, n_blocks * rows, self.n_columns)


@dataclass(frozen=True)
class WaveStackOptions(_Strict):
    """Options of the wave stack, see `wave_stack.WaveStack`.

    Attributes:
        widths: number of features of each block.
        layers: number of dilated layers of each block, with dilations 1, 2, 4, …
        kernel: odd number of taps of every convolution along time.
        n_columns: width of the image.
        n_chains: number of chains of equal size that the signals are divided into, in order.
        recompute: whether to store only the inputs of the layers for the backward pass, and compute the rest again.
            This needs a third of the memory (180 instead of 560 MB in float32 for a record of 16 signals and 50 s)
            and about a third more computation.
    """

    widths: tuple[int, ...] = (8, 16, 32, 64)
    layers: tuple[int, ...] = (12, 8, 4, 1)
    kernel: int = 3
    n_columns: int = 256
    n_chains: int = 4
    recompute: bool = False
    kind: Literal["wave-stack"] = field(default="wave-stack", kw_only=True)

    def __post_init__(self) -> None:
        _check(
            self,
            widths=len(self.widths) >= 1 and min(self.widths, default=0) >= 1,
            layers=len(self.layers) == len(self.widths) and min(self.layers, default=0) >= 1,
            kernel=self.kernel >= 1 and self.kernel % 2 == 1,
            n_columns=self.n_columns >= 1,
            n_chains=self.n_chains >= 1,
        )

    def image_shape(self, n_signals: int, n_times: int) -> tuple[int, int]:
        """Return (height, width) of the image, which does not depend on the signals."""
        del n_signals, n_times
        return self.n_chains * self.widths[-1], self.n_columns


@dataclass(frozen=True)
class SqueezeOptions(_Strict):
    """Options of a Squeezeformer, see `squeeze.Squeeze`.

    Attributes:
        width: even number of features of a frame and of the embedding.
        n_blocks: number of blocks of attention and convolution.
        n_heads: number of heads of an attention.
        kernel: odd number of taps of a block's convolution along time.
        n_halvings: number of convolutions with stride 2 that turn samples into frames.
        stem_kernel: odd number of taps of these convolutions.
        expansion: ratio between the hidden features of a feed-forward layer and the width.
        dropout: dropout rate of everything that is added to the frames.
        pooling: pooling of the frames.
    """

    width: int = 128
    n_blocks: int = 3
    n_heads: int = 4
    kernel: int = 51
    n_halvings: int = 5
    stem_kernel: int = 5
    expansion: int = 4
    dropout: float = 0.1
    pooling: PoolingName = "gem"
    kind: Literal["squeeze"] = field(default="squeeze", kw_only=True)

    def __post_init__(self) -> None:
        _check(
            self,
            width=self.width >= 2 and self.width % 2 == 0,
            n_blocks=self.n_blocks >= 1,
            n_heads=self.n_heads >= 1 and self.width % self.n_heads == 0,
            kernel=self.kernel >= 1 and self.kernel % 2 == 1,
            n_halvings=self.n_halvings >= 1,
            stem_kernel=self.stem_kernel >= 1 and self.stem_kernel % 2 == 1,
            expansion=self.expansion >= 1,
            dropout=0 <= self.dropout < 1,
        )

    def n_frames(self, n_times: int) -> int:
        """Return the number of frames of `n_times` samples."""
        return -(-n_times // 2**self.n_halvings)


@dataclass(frozen=True)
class EffNet1dOptions(_Strict):
    """Options of a one-dimensional EfficientNet, see `effnet1d.EffNet1d`.

    Attributes:
        n_times: number of samples used, in the middle of a recording.
        step: distance between the samples that are used.
        n_chains: number of chains of equal size that the signals are divided into, in order.
        stem_width: number of features of the first convolution.
        widths: number of features of each stage.
        kernels: odd number of taps of each stage's depthwise convolutions.
        layers: number of layers of each stage, the first of which halves the number of samples.
        expansion: ratio between the hidden and the input features of a layer; it is 1 in the first stage.
        n_mixers: number of layers that mix the chains.
        drop_path_rate: probability that the last layer is skipped in training; it rises linearly towards it.
        pooling: pooling of the frames of all chains.
    """

    n_times: int = 9_600
    step: int = 5
    n_chains: int = 4
    stem_width: int = 32
    widths: tuple[int, ...] = (64, 96, 160, 256, 384)
    kernels: tuple[int, ...] = (3, 3, 5, 5, 3)
    layers: tuple[int, ...] = (1, 2, 2, 2, 1)
    expansion: int = 4
    n_mixers: int = 1
    drop_path_rate: float = 0.0
    pooling: PoolingName = "gem"
    kind: Literal["effnet1d"] = field(default="effnet1d", kw_only=True)

    def __post_init__(self) -> None:
        n_stages = len(self.widths)
        _check(
            self,
            n_times=self.n_times >= 1,
            step=self.step >= 1,
            n_chains=self.n_chains >= 1,
            stem_width=self.stem_width >= 1,
            widths=n_stages >= 1 and min(self.widths, default=0) >= 1,
            kernels=len(self.kernels) == n_stages and all(k >= 1 and k % 2 == 1 for k in self.kernels),
            layers=len(self.layers) == n_stages and min(self.layers, default=0) >= 1,
            expansion=self.expansion >= 1,
            n_mixers=self.n_mixers >= 0,
            drop_path_rate=0 <= self.drop_path_rate < 1,
        )

    @property
    def width(self) -> int:
        """Number of features of the embedding."""
        return self.widths[-1]


@dataclass(frozen=True)
class ResNet1dOptions(_Strict):
    """Options of a one-dimensional residual network, see `resnet1d.ResNet1d`.

    Attributes:
        n_chains: number of chains of equal size that the signals are divided into, in order.
        n_shared: number of stages, from the first, that see one chain at a time; those after them see all chains.
        knee: absolute value above which signals are compressed to their logarithm, in the unit of the signals.
        stem_kernel: odd number of taps of the first convolution.
        stem_stride: distance in samples between its frames.
        widths: number of features of each stage, each of which after the first halves the number of frames.
        kernels: odd number of taps of the convolutions of each stage's layers.
        layers: number of residual layers of each stage, with dilations 1, 2, 4, …
        drop_path_rate: probability in training that a layer after the first stage is skipped.
        middle: share of the frames, in the middle of the recording, that are also pooled by themselves.
    """

    n_chains: int = 4
    n_shared: int = 2
    knee: float = 0.625
    stem_kernel: int = 25
    stem_stride: int = 5
    widths: tuple[int, ...] = (64, 128, 192)
    kernels: tuple[int, ...] = (9, 7, 7)
    layers: tuple[int, ...] = (2, 2, 3)
    drop_path_rate: float = 0.1
    middle: float = 0.2
    kind: Literal["resnet1d"] = field(default="resnet1d", kw_only=True)

    def __post_init__(self) -> None:
        n_stages = len(self.widths)
        _check(
            self,
            n_chains=self.n_chains >= 1,
            n_shared=1 <= self.n_shared < n_stages,
            knee=self.knee > 0,
            stem_kernel=self.stem_kernel >= 1 and self.stem_kernel % 2 == 1,
            stem_stride=self.stem_stride >= 1,
            widths=n_stages >= 1 and min(self.widths, default=0) >= 1,
            kernels=len(self.kernels) == n_stages and all(k >= 1 and k % 2 == 1 for k in self.kernels),
            layers=len(self.layers) == n_stages and min(self.layers, default=-1) >= 0,
            drop_path_rate=0 <= self.drop_path_rate < 1,
            middle=0 < self.middle <= 1,
        )

    @property
    def width(self) -> int:
        """Number of features of the embedding: means and maxima of the whole recording and of its middle."""
        return 4 * self.widths[-1]


@dataclass(frozen=True)
class PanelResNetOptions(_Strict):
    """Options of a residual network for stacked panels, see `panel_resnet.PanelResNet`.

    Attributes:
        n_panels: number of panels of equal height that the rows are divided into, in order.
        shrink: number of rows, and of columns, that are averaged beforehand.
        widths: number of features of each stage; the last one sees all panels, the others one at a time.
        layers: number of residual layers of each stage.
        drop_path_rate: probability in training that a layer is skipped.
        middle: share of the columns, in the middle of the recording, that are also pooled by themselves.
    """

    n_panels: int = 4
    shrink: int = 2
    widths: tuple[int, ...] = (32, 64, 128, 192)
    layers: tuple[int, ...] = (0, 2, 2, 1)
    drop_path_rate: float = 0.1
    middle: float = 0.15
    kind: Literal["panel-resnet"] = field(default="panel-resnet", kw_only=True)

    def __post_init__(self) -> None:
        n_stages = len(self.widths)
        _check(
            self,
            n_panels=self.n_panels >= 1,
            shrink=self.shrink >= 1,
            widths=n_stages >= 2 and min(self.widths, default=0) >= 1,
            layers=len(self.layers) == n_stages and min(self.layers, default=-1) >= 0,
            drop_path_rate=0 <= self.drop_path_rate < 1,
            middle=0 < self.middle <= 1,
        )

    @property
    def width(self) -> int:
        """Number of features of the embedding: means and maxima of the whole recording, and means of its middle."""
        return 3 * self.widths[-1]


ImageFrontEnd: TypeAlias = FoldOptions | SpectrumOptions | WaveStackOptions
"""Front ends that turn signals into an image."""
Encoder: TypeAlias = SqueezeOptions | EffNet1dOptions | ResNet1dOptions
"""Front ends that turn signals into an embedding, which needs a head and no image network."""
AnyEncoder: TypeAlias = Encoder | PanelResNetOptions
"""Networks that turn signals or an image into an embedding."""
FrontEnd: TypeAlias = Annotated[ImageFrontEnd | Encoder, Discriminator("kind")]
"""Front ends that a recipe can use."""


def _check(options: Any, **holds: bool) -> None:
    """Raise UsageError for the first field whose condition is False."""
    for name, fine in holds.items():
        if not fine:
            raise UsageError(f"{type(options).__name__}.{name}: cannot be {getattr(options, name)!r}")

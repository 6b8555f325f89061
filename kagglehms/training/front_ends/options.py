"""What a front end can be asked for: frozen dataclasses of numbers and names that go to JSON and back.

No torch here, so that recipes are read quickly. In JSON each carries its `kind`.
"""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Discriminator

from kagglehms.data.competition import SFREQ_HZ
from kagglehms.errors import UsageError

PoolingName: TypeAlias = Literal["mean", "gem", "mean+max"]
"""What becomes of a feature map: its mean, its generalised mean (p = 3), or its mean plus its maximum."""


class _Strict:
    """Read by pydantic where JSON becomes one of these: a mistyped key or value must not pass."""

    __pydantic_config__ = {"extra": "forbid", "strict": True}  # noqa: RUF012


@dataclass(frozen=True)
class FoldOptions(_Strict):
    """The folded image, see `fold.Fold`.

    Attributes:
        phases: p, how many rows each signal becomes; the length of a signal is a multiple of it.
    """

    phases: int = 10
    _: KW_ONLY
    kind: Literal["fold"] = "fold"

    def __post_init__(self) -> None:
        _check(self, phases=self.phases >= 1)

    def image_shape(self, n_signals: int, n_times: int) -> tuple[int, int]:
        """(height, width) of the image of `n_signals` signals of `n_times` samples."""
        return n_signals * self.phases, n_times // self.phases


@dataclass(frozen=True)
class DifferencesOptions(_Strict):
    """Differences of neighbouring electrodes, see `differences.Differences`.

    Attributes:
        midline: whether Fz − Cz and Cz − Pz follow the sixteen of the double banana.
        clip_uv: what larger values are cut to, µV; None for no limit.
        unit_uv: what is divided by, µV.
    """

    midline: bool = False
    clip_uv: float | None = 1024.0
    unit_uv: float = 32.0
    _: KW_ONLY
    kind: Literal["differences"] = "differences"

    def __post_init__(self) -> None:
        _check(self, clip_uv=self.clip_uv is None or self.clip_uv > 0, unit_uv=self.unit_uv > 0)

    @property
    def n_signals(self) -> int:
        """How many differences there are."""
        return 18 if self.midline else 16


@dataclass(frozen=True)
class BandPassOptions(_Strict):
    """A causal Butterworth band-pass, see `band_pass.CausalBandPass`.

    Attributes:
        low_hz: lower edge (− 3 dB).
        high_hz: upper edge (− 3 dB).
        order: of the prototype; a band-pass has twice as many poles.
        sfreq_hz: samples per second.
        tail: where the impulse response stays below this, it ends.
    """

    low_hz: float = 0.5
    high_hz: float = 20.0
    order: int = 2
    sfreq_hz: float = SFREQ_HZ
    tail: float = 1e-7
    _: KW_ONLY
    kind: Literal["band-pass"] = "band-pass"

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
    """Spectrograms of every signal, see `spectrum.Spectrum`.

    Attributes:
        win_length: samples of a frame and of its window.
        blocks: for each block how many samples in the middle of the recording it looks at, the hop between frames, and
            how many frames are left out at either end; as many remain in every block.
        band_hz: which bins are kept.
        detrend: whether the mean of a frame is taken off it, as `scipy.signal.spectrogram` does by default.
        trainable: whether each block learns its window.
        planes: whether blocks are planes of the image, and do not stand one upon the other.
        size: (height, width) of the image.
        unit_uv: µV that a value of 1 in the signals stands for.
        sfreq_hz: samples per second.
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
    _: KW_ONLY
    kind: Literal["spectrum"] = "spectrum"

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
        """The first and the last bin within the band; bin k is k · sfreq_hz / win_length Hz."""
        bin_hz = self.sfreq_hz / self.win_length
        rounding = 1e-9  # an edge that is a bin's own frequency is within
        return math.ceil(self.band_hz[0] / bin_hz - rounding), math.floor(self.band_hz[1] / bin_hz + rounding)

    def image_shape(self, n_signals: int, n_times: int) -> tuple[int, int]:
        """(height, width) of the image; zeros stand where the signals do not fill it."""
        del n_signals, n_times
        return self.size

    @property
    def n_columns(self) -> int:
        """Frames of every block."""
        return self._columns(*self.blocks[0])

    def _columns(self, n_block: int, hop: int, trim: int) -> int:
        # A Hann window of an even length begins with a zero; with the zero that follows it, a frame is one longer.
        return (n_block - self.win_length - 1) // hop + 1 - 2 * trim

    def content_shape(self, n_signals: int) -> tuple[int, int, int]:
        """(planes, rows, columns) that `n_signals` signals fill, before zeros are added."""
        first, last = self.bins
        rows = n_signals * (last - first + 1)
        n_blocks = len(self.blocks)
        return (n_blocks, rows, self.n_columns) if self.planes else (1, n_blocks * rows, self.n_columns)


@dataclass(frozen=True)
class WaveStackOptions(_Strict):
    """The wave stack, see `wave_stack.WaveStack`.

    Attributes:
        widths: channels of each block.
        layers: dilated layers of each block, with dilations 1, 2, 4, …
        kernel: taps of every convolution along time, odd.
        n_columns: width of the image.
        n_chains: chains that the signals are divided into, one after the other and all of one size.
        recompute: keep only the inputs of the layers for the way back, and compute the rest once more: a third of the
            memory (180 instead of 560 MB in float32 for a record of 16 signals and 50 s) for about a third more work.
    """

    widths: tuple[int, ...] = (8, 16, 32, 64)
    layers: tuple[int, ...] = (12, 8, 4, 1)
    kernel: int = 3
    n_columns: int = 256
    n_chains: int = 4
    recompute: bool = False
    _: KW_ONLY
    kind: Literal["wave-stack"] = "wave-stack"

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
        """(height, width) of the image, whatever the number and the length of the signals."""
        del n_signals, n_times
        return self.n_chains * self.widths[-1], self.n_columns

    @property
    def receptive_field(self) -> int:
        """Samples of a signal that one column reaches before the adaptive mean."""
        reach = 0
        for block, n_layers in enumerate(self.layers):
            dilations = 2**n_layers - 1
            reach += 2**block * (self.kernel - 1) * (dilations + 1)  # + 1: the convolution of stride 2
        return 1 + reach


@dataclass(frozen=True)
class SqueezeOptions(_Strict):
    """A Squeezeformer, see `squeeze.Squeeze`.

    Attributes:
        width: D, features of a frame and of the embedding, even.
        n_blocks: blocks of attention and convolution.
        n_heads: heads of an attention.
        kernel: taps of a block's convolution along time, odd.
        n_halvings: convolutions of stride 2 that make frames of samples.
        stem_kernel: taps of each of them, odd.
        expansion: hidden features of a feed-forward layer, in widths.
        dropout: of whatever is added to the frames.
        pooling: what becomes of the frames.
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
    _: KW_ONLY
    kind: Literal["squeeze"] = "squeeze"

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
        """Frames that `n_times` samples become."""
        return -(-n_times // 2**self.n_halvings)


@dataclass(frozen=True)
class EffNet1dOptions(_Strict):
    """A one-dimensional EfficientNet, see `effnet1d.EffNet1d`.

    Attributes:
        n_times: samples in the middle of a recording that are looked at.
        step: every how many of them one is taken.
        n_chains: chains that the signals are divided into, one after the other and all of one size.
        stem_width: features of the first convolution.
        widths: features of each stage.
        kernels: taps of each stage's depthwise convolutions, odd.
        layers: layers of each stage; the first halves the number of samples.
        expansion: hidden features of a layer, in features that come in; 1 in the first stage.
        n_mixers: how often chains are mixed.
        drop_path_rate: probability that the last layer is left out in training, of those before it in proportion.
        pooling: what becomes of the frames of all chains.
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
    _: KW_ONLY
    kind: Literal["effnet1d"] = "effnet1d"

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
        """D, features of the embedding."""
        return self.widths[-1]


FrontEnd: TypeAlias = Annotated[FoldOptions | SpectrumOptions | WaveStackOptions, Discriminator("kind")]
"""What a recipe can name to turn its signals into the image that its backbone sees."""


def _check(options: Any, **holds: bool) -> None:
    """Refuse the first field whose condition does not hold."""
    for name, fine in holds.items():
        if not fine:
            raise UsageError(f"{type(options).__name__}.{name}: cannot be {getattr(options, name)!r}")

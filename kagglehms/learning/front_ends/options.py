"""What a front end can be asked for: frozen dataclasses of numbers and names that go to JSON and back.

No torch here, so that recipes are read quickly. In JSON each carries its `kind`.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal, TypeAlias

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
class WaveStackOptions(_Strict):
    """The wave stack, see `wave_stack.WaveStack`.

    Attributes:
        widths: channels of each block.
        layers: dilated layers of each block, with dilations 1, 2, 4, …
        kernel: taps of every convolution along time, odd.
        n_columns: width of the image.
        n_chains: chains that the signals are divided into, one after the other and all of one size.
        recompute: keep only the inputs of the layers for the way back, and compute the rest once more: about a
            quarter of the memory for a third more work.
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

    @property
    def image_shape(self) -> tuple[int, int]:
        """(height, width) of the image, whatever the length of the signals."""
        return self.n_chains * self.widths[-1], self.n_columns

    @property
    def receptive_field(self) -> int:
        """Samples of a signal that one column reaches before the adaptive mean."""
        reach = 0
        for block, n_layers in enumerate(self.layers):
            dilations = 2**n_layers - 1
            reach += 2**block * (self.kernel - 1) * (dilations + 1)  # + 1: the convolution of stride 2
        return 1 + reach


def _check(options: Any, **holds: bool) -> None:
    """Refuse the first field whose condition does not hold."""
    for name, fine in holds.items():
        if not fine:
            raise UsageError(f"{type(options).__name__}.{name}: cannot be {getattr(options, name)!r}")

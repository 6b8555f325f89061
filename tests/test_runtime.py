"""Files are written whole or not at all; devices are chosen for a reason."""

from __future__ import annotations

import io
import math
import os
import re
import signal
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from kagglehms import runtime
from kagglehms.errors import RunError, UsageError
from kagglehms.runtime import (
    Clock,
    be_quiet,
    choose_device,
    coloured,
    duration,
    home,
    in_advance,
    progress,
    say,
    seconds_of,
    stop_signals,
    sweep_partials,
    tell,
    write_bytes,
    writing,
)


class Terminal(io.StringIO):
    """A stream that says it is one."""

    def isatty(self) -> bool:
        return True


def test_colours_are_for_terminals_and_for_those_who_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert coloured("stop", "red", Terminal()) == "\033[31mstop\033[0m"
    assert coloured("stop", "red", io.StringIO()) == "stop"
    monkeypatch.setenv("TERM", "dumb")
    assert coloured("stop", "red", Terminal()) == "stop"
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    assert coloured("stop", "red", Terminal()) == "stop"


def test_quiet_silences_progress_and_lines_but_passes_items_on(capsys: pytest.CaptureFixture[str]) -> None:
    be_quiet()
    try:
        say("a line")
        assert list(progress(range(3), 3, "count", every_s=0)) == [0, 1, 2]
    finally:
        be_quiet(False)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""
    say("a line")
    assert capsys.readouterr().out == "a line\n"


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    write_bytes(path, b"before")
    with pytest.raises(TypeError), writing(path) as file:
        file.writelines([b"half", None])  # type: ignore[list-item]
    assert path.read_bytes() == b"before"
    assert os.listdir(path.parent) == ["file"]


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bytes(tmp_path / "file", b"before")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"file: cannot be written \(No space left on device\); free space"):
        write_bytes(tmp_path / "file", b"after")
    assert (tmp_path / "file").read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["file"]


def test_stale_partial_files_are_swept(tmp_path: Path) -> None:
    (tmp_path / f".model.1234{runtime.PARTIAL_SUFFIX}").write_bytes(b"x")
    (tmp_path / "model").write_bytes(b"y")
    sweep_partials(tmp_path)
    assert os.listdir(tmp_path) == ["model"]


def test_what_was_asked_for_is_told_even_if_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    be_quiet()
    try:
        say("how it goes")
        tell("what it is")
    finally:
        be_quiet(False)
    assert capsys.readouterr().out == "what it is\n"


def test_progress_passes_everything_on_and_speaks_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress(range(4), 4, "count", every_s=0)) == [0, 1, 2, 3]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines] == ["count: 1/4", "count: 2/4", "count: 3/4"]


def test_progress_says_what_was_done_before_and_how_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress("ab", 5, "count", every_s=0, before=3, status=lambda: "loss 0.5")) == ["a", "b"]
    (line,) = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"count: 4/5, [\d.e+]+/s, about 0 s left, loss 0\.5", line)


def test_only_the_leader_of_a_team_speaks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    say("hello")
    assert list(progress("ab", 2, "count", every_s=0)) == ["a", "b"]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("text", "seconds"), [("8.5h", 30600), ("90m", 5400), ("45s", 45), ("45", 45), (" .5 h ", 1800)]
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "-3h", "0", "0.0m", "3d", "1h30m", "nan"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no duration; write hours, minutes or seconds"):
        seconds_of(text)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (89, "89 s"), (91, "2 min"), (3600, "60 min"), (9000, "2.5 h")]
)
def test_durations_are_written_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_clock_counts_down() -> None:
    assert Clock().left_s == math.inf
    clock = Clock(100, started=time.monotonic() - 40)
    assert 59 < clock.left_s <= 60
    assert Clock(1, started=time.monotonic() - 2).left_s < 0


@pytest.fixture(params=[signal.default_int_handler, signal.SIG_IGN], ids=["foreground", "background"])
def interrupt_handler(request: pytest.FixtureRequest) -> Iterator[Any]:
    """What Ctrl-C does before; a shell has it ignored by what it starts in the background."""
    before = signal.signal(signal.SIGINT, request.param)
    yield request.param
    signal.signal(signal.SIGINT, before)


def test_the_first_signal_is_a_request_and_the_second_ends(interrupt_handler: Any) -> None:
    with pytest.raises(KeyboardInterrupt), stop_signals() as stop:  # noqa: PT012
        assert stop.signal is None
        signal.raise_signal(signal.SIGINT)
        assert stop.signal == signal.SIGINT
        assert stop.exit_code == 130
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is interrupt_handler
    with stop_signals() as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="a system without terminals that hang up")
def test_a_terminal_that_goes_asks_for_the_end_however_often(monkeypatch: pytest.MonkeyPatch) -> None:
    with stop_signals() as stop:
        signal.raise_signal(signal.SIGHUP)
        assert (stop.signal, stop.exit_code) == (signal.SIGHUP, 143)
        signal.raise_signal(signal.SIGHUP)  # the shell's, after the terminal's
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with stop_signals() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert stop.signal is None
            signal.raise_signal(signal.SIGTERM)
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_signals_that_a_system_lacks_are_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(signal, "SIGHUP", raising=False)
    with stop_signals() as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop.exit_code == 143


ONES = torch.ones


class FakeGpu:
    """What torch says of a GPU, without one; a GPU can warn, fail, or compute something else."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], hip: str | None = None
    ) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Fake")
        monkeypatch.setattr(
            torch.cuda, "get_device_properties", lambda: SimpleNamespace(gcnArchName="gfx1100")
        )
        monkeypatch.setattr(torch.version, "hip", hip)
        self.failure: Exception | None = None
        self.value = 1.0

        def ones(size: int, device: str) -> torch.Tensor:
            warnings.warn("this GPU is not compatible with this torch", stacklevel=2)
            if self.failure:
                raise self.failure
            return self.value * ONES(size)

        monkeypatch.setattr(torch, "ones", ones)


def test_precision_follows_the_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeGpu(monkeypatch, (7, 5))
    assert (choose_device().name, choose_device().amp) == ("cuda", "float16")
    FakeGpu(monkeypatch, (8, 6))
    assert choose_device().amp == "bfloat16"


@pytest.mark.parametrize(
    ("capability", "hip", "built"),
    [
        ((9, 0), None, ["sm_75", "sm_90a"]),
        ((13, 0), None, ["sm_90", "compute_120"]),  # compiled when it is first met
        ((11, 0), "6.4", ["gfx900", "gfx1100"]),
    ],
)
def test_a_gpu_that_computes_is_used_whatever_its_architecture_is_called(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], hip: str | None, built: list[str]
) -> None:
    FakeGpu(monkeypatch, capability, hip)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: built)
    device = choose_device()
    assert (device.name, device.amp) == ("cuda", "bfloat16")
    assert ("gfx1100" if hip else f"sm_{capability[0]}{capability[1]}") in device.reason


@pytest.mark.parametrize(
    "failure",
    [
        RuntimeError("no kernel image is available"),
        AssertionError("no kernel image is available"),
        OSError("no kernel image is available"),
    ],
)
def test_a_gpu_that_fails_at_a_tiny_sum_is_not_used(
    monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    FakeGpu(monkeypatch, (6, 0)).failure = failure
    device = choose_device()
    assert device.name == "cpu"
    assert "Fake fails at a tiny sum (no kernel image is available)" in device.reason
    with pytest.raises(UsageError, match="no usable GPU: Fake fails at a tiny sum"):
        choose_device("cuda")


def test_a_gpu_that_computes_something_else_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeGpu(monkeypatch, (8, 0)).value = 0.5
    assert "Fake gets a tiny sum wrong" in choose_device().reason


def test_the_cpu_can_be_asked_for() -> None:
    assert choose_device("cpu").reason == "device: cpu in float32, as asked for"
    with pytest.raises(UsageError, match="device must be one of cpu, cuda, mps, but got 'tpu'"):
        choose_device("tpu")


@pytest.mark.parametrize(
    ("built", "available", "says"),
    [(False, False, "without Metal"), (True, False, "torch sees no GPU of Apple's")],
)
def test_apples_gpu_is_refused_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, built: bool, available: bool, says: str
) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_built", lambda: built)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: available)
    with pytest.raises(UsageError, match=f"no usable GPU: .*{says}"):
        choose_device("mps")


def test_apples_gpu_is_used_where_it_is_asked_for_and_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = FakeGpu(monkeypatch, (0, 0))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_built", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    device = choose_device("mps")
    assert (device.name, device.amp) == ("mps", None)
    assert choose_device().name == "cpu"
    gpu.failure = RuntimeError("out of order")
    with pytest.raises(UsageError, match="fails at a tiny sum"):
        choose_device("mps")


@pytest.mark.parametrize("variables", [{}, {"HOME": "/somewhere"}])
def test_a_user_can_have_no_home(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    pwd = pytest.importorskip("pwd", reason="of users that a system does not know")

    def unknown(_: int) -> None:
        raise KeyError("no such user")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.delenv("HOME")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert home() == (Path("/somewhere") if variables else None)


def test_results_come_in_order_and_only_so_many_are_asked_for_in_advance() -> None:
    asked: list[int] = []

    def futures() -> Iterator[Future[int]]:
        for number in range(6):
            asked.append(number)
            future: Future[int] = Future()
            future.set_result(number)
            yield future

    results = in_advance(futures(), 2)
    for number in range(6):
        assert next(results) == number
        assert asked == list(range(min(number + 3, 6)))
    assert list(results) == []


def test_what_was_asked_for_in_vain_is_cancelled() -> None:
    waiting: list[Future[int]] = [Future() for _ in range(3)]
    waiting[0].set_result(7)
    results = in_advance(iter(waiting), 2)
    assert next(results) == 7
    results.close()
    assert [future.cancelled() for future in waiting] == [False, True, True]


def test_an_error_comes_in_its_place_and_cancels_the_rest() -> None:
    waiting: list[Future[int]] = [Future() for _ in range(3)]
    waiting[0].set_result(1)
    waiting[1].set_exception(ValueError("broken"))
    results = in_advance(iter(waiting), 1)
    assert next(results) == 1
    with pytest.raises(ValueError, match="broken"):
        next(results)
    assert waiting[2].cancelled()

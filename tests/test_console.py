"""Streams of any encoding, closed ones, and readers that go: nothing of it ends work."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from markupsafe import Markup

from kagglehms.cli.command import Result
from kagglehms.cli.commands import main
from kagglehms.console import be_quiet, coloured, open_streams, printable, say, show, tell, visible
from kagglehms.environment import child_environment
from kagglehms.progress import progress
from kagglehms.report.templating import environment

SIGNS = "≥ – → ╭ 脳波"


class Full(io.RawIOBase):
    """A disk on which there is no space."""

    def writable(self) -> bool:
        return True

    def write(self, _: object) -> int:
        raise OSError(28, "No space left on device")


def run(code: str, *redirections: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """Run Python through a shell, which can close what it hands on."""
    command = f'exec "{sys.executable}" -c "$CODE" {" ".join(redirections)}'
    environment = child_environment() | variables | {"CODE": code}
    return subprocess.run(["sh", "-c", command], env=environment, capture_output=True, check=False)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp932", "utf-8"])
def test_what_an_encoding_lacks_becomes_a_question_mark(encoding: str) -> None:
    code = f"from kagglehms.console import open_streams; open_streams(); print({SIGNS!r})"
    done = run(code, PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == SIGNS.encode(encoding, "replace")


def test_what_somebody_chose_for_such_characters_stays() -> None:
    code = "from kagglehms.console import open_streams; open_streams(); print('≥')"
    assert run(code, PYTHONIOENCODING="ascii:xmlcharrefreplace").stdout.strip() == b"&#8805;"


@pytest.mark.parametrize("encoding", ["ascii", "cp932"])
def test_a_line_is_told_to_a_stream_that_nobody_prepared(
    monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    for function in (say, tell):
        function(SIGNS)
    assert stream.buffer.getvalue().decode(encoding).splitlines() == [printable(SIGNS, stream)] * 2  # type: ignore[attr-defined]


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_closed_streams_lead_nowhere_and_not_into_a_file(closed: str, tmp_path: Path) -> None:
    code = (
        "import os, subprocess, sys\n"
        "from kagglehms.console import open_streams\n"
        "open_streams()\n"
        "file = open(sys.argv[1], 'w')\n"
        "assert file.fileno() > 2\n"
        "print('out', flush=True); print('err', file=sys.stderr, flush=True)\n"
        "os.write(1, b'raw'); os.write(2, b'raw')\n"
        "subprocess.run([sys.executable, '-c', 'print(1)'], check=True)\n"
        "file.write('done')\n"
    )
    path = tmp_path / "file"
    done = run(code, str(path), closed)
    assert done.returncode == 0, done.stderr
    assert path.read_text() == "done"


def test_progress_goes_on_without_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a window of Python's own on Windows, where nobody has prepared anything."""
    from kagglehms.console import coloured
    from kagglehms.progress import progress

    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    say("a line")
    show("a piece")
    assert coloured("word", "red", sys.stderr) == "word"
    assert list(progress(range(3), 3, "count", every_s=0)) == [0, 1, 2]


def test_a_full_disk_ends_no_progress_and_a_reader_who_has_gone_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BufferedWriter(Full()), encoding="utf-8"))
    say("a line")

    class Gone(Full):
        def write(self, _: object) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BufferedWriter(Gone()), encoding="utf-8"))
    with pytest.raises(BrokenPipeError):
        say("a line")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_unfailing_streams_lose_what_cannot_be_written(stream: str) -> None:
    code = (
        "import sys; from kagglehms.console import open_streams\n"
        "open_streams(unfailing=True); open_streams(unfailing=True)\n"
        f"for _ in range(10_000): print('a line', file=sys.{stream}, flush=True)\n"
        f"assert sys.{stream}.encoding and not sys.{stream}.closed\n"
    )
    assert run(code, f"{1 if stream == 'stdout' else 2}>/dev/full").returncode == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
def test_a_command_whose_answer_is_lost_has_failed() -> None:
    code = "from kagglehms.cli.commands import main; raise SystemExit(main(['ladder', '--format', 'csv']))"
    done = run(code, ">/dev/full")
    assert done.returncode == 1
    assert b"No space left" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_streams_are_left_as_they_are_where_nothing_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    open_streams()
    assert sys.stdout is stream
    assert os.fstat(0) is not None


def test_a_stream_that_cannot_be_set_is_written_to_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stubborn(io.TextIOWrapper):
        def reconfigure(self, **_: Any) -> None:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    stream = Stubborn(io.BytesIO(), encoding="ascii", errors="strict")
    monkeypatch.setattr(sys, "stdout", stream)
    open_streams()
    say("all the same")
    assert stream.buffer.getvalue() == b"all the same\n"


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


def test_what_was_asked_for_is_told_even_if_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    be_quiet()
    try:
        say("how it goes")
        tell("what it is")
    finally:
        be_quiet(False)
    assert capsys.readouterr().out == "what it is\n"


def test_only_the_leader_of_a_team_speaks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    say("hello")
    assert list(progress("ab", 2, "count", every_s=0)) == ["a", "b"]
    assert capsys.readouterr().out == ""


HOSTILE = {
    "\x1b[31mred\x1b[0m": r"\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07": r"\x1b]0;title\x07",
    "abc\u202etxt.exe": r"abc\u202etxt.exe",
    "\u2066a\u2069 \u200fb": r"\u2066a\u2069 \u200fb",
    "over\rwritten": r"over\rwritten",
    "\x9b2J": r"\x9b2J",
    "half \ud83d": r"half \ud83d",
    "脳波 é ≥ \t kept\n": "脳波 é ≥ \t kept\n",
}


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_what_a_terminal_would_obey_is_shown(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert visible(text) == HOSTILE[text]
    tell(text)
    Result(text=text).print(as_json=False)
    assert capsys.readouterr().out == 2 * (HOSTILE[text] + "\n")


def test_an_error_and_a_page_show_it_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "\x1b[2Jgone\u202e"
    assert main(["report", "--runs", str(tmp_path / name)]) == 2
    assert r"\x1b[2Jgone\u202e: no such folder" in capsys.readouterr().err
    page = (
        environment().from_string("{{ name }} {{ kept }}").render(name=f"<{name}>", kept=Markup("<b>\u200e"))
    )
    assert page == "&lt;\\x1b[2Jgone\\u202e&gt; <b>\u200e"


def test_bars_of_a_rehearsed_kernel_are_still_bars(capsys: pytest.CaptureFixture[str]) -> None:
    show("\r10 %\r20 %\x1b[A\n")
    assert capsys.readouterr().out == "\r10 %\r20 %\\x1b[A\n"

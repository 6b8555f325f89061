"""What a command ends with: its page, opened where somebody looks."""

from __future__ import annotations

import sys
import webbrowser
from pathlib import Path

import pytest
from runs_folder import make_run

from kagglehms.cli.commands import main


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the browser is asked to open, on a machine with a display."""
    asked: list[str] = []
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(webbrowser, "open", lambda address: not asked.append(address))
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("DISPLAY", ":0")
    return asked


def report(tmp_path: Path, *words: str) -> Path:
    make_run(tmp_path / "runs", "baseline")
    page = tmp_path / "a page.html"
    assert main(["report", "--runs", str(tmp_path / "runs"), "--out", str(page), *words]) == 0
    assert page.read_text().startswith("<!doctype html>")
    return page


def test_a_page_is_opened_if_asked_for(tmp_path: Path, opened: list[str]) -> None:
    page = report(tmp_path, "--open")
    assert opened == [f"file://{page.parent}/a%20page.html"]


@pytest.mark.parametrize("words", [(), ("--open", "--json"), ("--open", "--quiet")], ids=str)
def test_no_page_is_opened_unasked_or_for_a_program(
    tmp_path: Path, opened: list[str], words: tuple[str, ...]
) -> None:
    report(tmp_path, *words)
    assert opened == []


def test_where_there_is_no_display_a_line_says_so(
    tmp_path: Path,
    opened: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("DISPLAY")
    page = report(tmp_path, "--open")
    assert opened == []
    assert capsys.readouterr().out.splitlines()[-1] == f"--open: no display was found; open {page} yourself"


def test_where_no_browser_starts_a_line_says_so(
    tmp_path: Path,
    opened: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(webbrowser, "open", lambda _: False)
    page = report(tmp_path, "--open")
    assert capsys.readouterr().out.splitlines()[-1] == f"--open: no browser was found; open {page} yourself"

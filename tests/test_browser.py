"""The browser of the pages' tests: it sees what a page does, and a page that hangs fails."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from browser import Chromium, launch, why_no_browser

POLICY = (
    "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'; script-src 'unsafe-inline'\">"
)
CRASHES = "#!/bin/sh\necho no graphics >&2\nexit 1\n"


def page(folder: Path, body: str) -> Path:
    file = folder / "page.html"
    file.write_text(f"<!doctype html><title>page</title><body>{body}</body>")
    return file


def fake_chromium(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this shell script be the chromium that is found first."""
    folder.mkdir()
    (folder / "chromium").write_text(script)
    (folder / "chromium").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("<script>console.log('said so')</script>", "log: said so"),
        ("<script>throw new Error('not caught')</script>", "exception: not caught"),
        ("<script>Promise.reject(new Error('not awaited'))</script>", "exception: not awaited"),
        (POLICY + "<img src='https://example.org/a.png'>", "Content Security Policy"),
        (POLICY + "<script>fetch('https://example.org/a.json').catch(() => 0)</script>", "Content Security Policy"),
        ("<img src='https://example.org/a.png'>", "https://example.org/a.png: net::"),
        ("<script src='gone.js'></script>", "gone.js: net::"),
    ],
)  # fmt: skip
def test_what_a_page_does_is_seen(chromium: Chromium, tmp_path: Path, body: str, complaint: str) -> None:
    with chromium.open(page(tmp_path, body)) as shown:
        shown.pixels()
        assert any(complaint in said for said in shown.complaints), shown.complaints
        addresses = {"example.org/a.png", "gone.js"}
        asked_for = {a for a in addresses if any(request.endswith(a) for request in shown.requests)}
        assert asked_for == {a for a in addresses if a in body}


def test_a_quiet_page_does_nothing(chromium: Chromium, tmp_path: Path) -> None:
    file = page(tmp_path, "quiet")
    with chromium.open(file, 500, 300) as shown:
        assert shown.pixels().shape == (300, 500, 3)
        assert shown.complaints == []
        assert shown.requests == [file.as_uri()]
        assert shown.value("document.title") == "page"


@pytest.mark.parametrize("when", ["load", "keydown"])
def test_a_page_that_hangs_fails(chromium: Chromium, tmp_path: Path, when: str) -> None:
    from playwright.sync_api import TimeoutError

    def use(file: Path) -> None:
        with chromium.open(file, patience_s=2) as shown:
            shown.press("a")

    with pytest.raises(TimeoutError):
        use(page(tmp_path, f"<script>addEventListener('{when}', () => {{ for (;;) {{}} }})</script>"))


def test_a_browser_that_crashes_at_its_start_is_started_once_more(
    chromium: Chromium, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from playwright.sync_api import Error

    kind = chromium.browser.browser_type
    tried = tmp_path / "tried"
    first_crashes = (
        f'#!/bin/sh\n[ -e {tried} ] || {{ touch {tried}; exit 1; }}\nexec {shutil.which("chromium")} "$@"\n'
    )
    fake_chromium(tmp_path / "once", first_crashes, monkeypatch)
    with launch(kind) as second:
        assert tried.exists()
        assert second.is_connected()
    fake_chromium(tmp_path / "always", CRASHES, monkeypatch)
    with pytest.raises(Error):
        launch(kind)


def test_the_reason_why_there_is_no_browser_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_chromium(tmp_path / "broken", CRASHES, monkeypatch)
    assert "cannot run here: no graphics" in (why_no_browser.__wrapped__() or "")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "apt-get install chromium" in (why_no_browser.__wrapped__() or "")

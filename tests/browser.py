"""Debian's chromium, headless, driven by Playwright: opens pages and tells what they did."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserType, Page, ViewportSize

FLAGS = ("--disable-gpu", "--disable-dev-shm-usage", "--host-resolver-rules=MAP * ~NOTFOUND")
"""Beside Playwright's own: no graphics card, no small /dev/shm, and no name leads anywhere."""
STARTED_WITHIN_S = 90
"""On a machine that is busy with other tests."""


LEAST_PX = 11
"""Size of the smallest text that can be read on a phone, in CSS pixels."""
_KEEP_CANVAS_TEXTS = """(() => { window.painted = new Map();
  const pen = CanvasRenderingContext2D.prototype, fill = pen.fillText;
  pen.fillText = function (text, ...place) {
    const { a, b, c, d } = this.getTransform(), scale = this.canvas.width / this.canvas.clientWidth;
    const px = (parseFloat(this.font.match(/[\\d.]+px/)[0]) * Math.sqrt(Math.abs(a * d - b * c))) / scale;
    painted.set(text, Math.min(px, painted.get(text) ?? px));
    return fill.call(this, text, ...place);
  };
})()"""
_TEXTS = """(() => {
  const found = [...(window.painted ?? [])], range = document.createRange();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode, element = node.parentElement;
    range.selectNodeContents(node);
    if (!node.data.trim() || !range.getClientRects().length) continue;
    let px = parseFloat(getComputedStyle(element).fontSize);
    if (element instanceof SVGGraphicsElement) {
      const { a, b, c, d } = element.getScreenCTM();
      px *= Math.sqrt(Math.abs(a * d - b * c));
    }
    found.push([node.data.trim(), px]);
  }
  return found;
})()"""


@cache
def why_no_browser() -> str | None:
    """Why pages cannot be opened here; None where they can."""
    needed = {
        "Debian's chromium (apt-get install chromium)": ["chromium", "--version"],
        "Playwright (pip install -e '.[test]')": [sys.executable, "-m", "playwright", "--version"],
    }
    for what, command in needed.items():
        if shutil.which(command[0]) is None:
            return f"needs {what}"
        tried = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if tried.returncode != 0:
            said = (tried.stderr.strip() or "it says nothing").splitlines()[-1]
            return f"needs {what}, which cannot run here: {said}"
    return None


@contextmanager
def running_chromium() -> Iterator[Chromium]:
    """A chromium of its own, which ends with the `with` statement."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright, launch(playwright.chromium) as browser:
        yield Chromium(browser)


def launch(kind: BrowserType) -> Browser:
    """Start chromium, once more if it crashes or hangs meanwhile: it is the tool of a test and not what is tested."""
    from playwright.sync_api import Error

    def once() -> Browser:
        return kind.launch(
            executable_path=shutil.which("chromium"), args=FLAGS, timeout=1000 * STARTED_WITHIN_S
        )

    try:
        return once()
    except Error:
        return once()


@dataclass
class Opened:
    """A page and what it did.

    Attributes:
        page: Playwright's page. Its locators end in an error if the page hangs; `page.evaluate` and `page.keyboard`
            would wait for ever, hence `value` and `press`.
        requests: every address that it has asked for.
        complaints: what it wrote on the console, exceptions it did not catch, requests that failed or were blocked.
    """

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def press(self, key: str) -> None:
        """Press and release a key, such as `ArrowRight`."""
        self.page.locator("body").press(key)

    def value(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        return self.page.wait_for_function(f"() => ({{value: {expression}}})").json_value()["value"]

    def assert_legible(self, width: int) -> list[str]:
        """Open everything that can be opened; assert that all fits a width and all text is large enough to read.

        Args:
            width: of the window, in CSS pixels.

        Returns:
            Every text that is rendered, in HTML, in SVG and on canvases.
        """
        self.value("document.querySelectorAll('details').forEach((details) => { details.open = true; })")
        texts: list[tuple[str, float]] = self.value(_TEXTS)
        assert [(text, px) for text, px in texts if px < LEAST_PX - 0.01] == []
        assert self.value("document.documentElement.scrollWidth") <= width
        return [text for text, _ in texts]

    def pixels(self) -> NDArray[np.uint8]:
        """(H, W, 3) pixels of the window."""
        from PIL import Image

        with Image.open(BytesIO(self.page.screenshot())) as image:
            return np.asarray(image.convert("RGB"))


@dataclass(frozen=True)
class Chromium:
    """A running browser."""

    browser: Browser

    @contextmanager
    def open(
        self,
        file: Path,
        width: int = 1280,
        height: int = 900,
        dark: bool = False,
        patience_s: float = 60,
        before: str = "",
        fragment: str = "",
    ) -> Iterator[Opened]:
        """Open a file in a fresh profile and wait until it is loaded.

        Args:
            file: the page.
            width: of the window, in CSS pixels; below 600 it is a phone's, which is touched.
            height: of the window, in CSS pixels.
            dark: whether dark pages are preferred.
            patience_s: how long anything that the page is asked for may take before it counts as hanging.
            before: JavaScript that runs before anything of the page's does.
            fragment: end of the address, such as `#section`.
        """
        scheme: Literal["dark", "light"] = "dark" if dark else "light"
        size: ViewportSize = {"width": width, "height": height}
        phone = width < 600
        context = self.browser.new_context(
            viewport=size, is_mobile=phone, has_touch=phone, color_scheme=scheme
        )
        context.set_default_timeout(1000 * patience_s)
        with context:
            opened = Opened(context.new_page())
            for script in (_KEEP_CANVAS_TEXTS, before):
                opened.page.add_init_script(script)
            complain = opened.complaints.append
            context.on("request", lambda request: opened.requests.append(request.url))
            context.on("requestfailed", lambda request: complain(f"{request.url}: {request.failure}"))
            context.on("console", lambda message: complain(f"{message.type}: {message.text}"))
            context.on("weberror", lambda web_error: complain(f"exception: {web_error.error}"))
            opened.page.goto(file.resolve().as_uri() + fragment)
            yield opened

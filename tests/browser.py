"""Debian's chromium, headless, spoken to over a pipe: opens a page and tells what it did.

The DevTools protocol needs no library: one JSON object a message, a zero byte behind it, over two inherited pipes.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-default-apps", "--hide-scrollbars",
    "--disable-dev-shm-usage", "--host-resolver-rules=MAP * ~NOTFOUND", "--remote-debugging-pipe",
)  # fmt: skip
_INHERIT = """
import os, sys
reads, writes = os.dup2(int(sys.argv[1]), 30), os.dup2(int(sys.argv[2]), 31)
os.dup2(reads, 3), os.dup2(writes, 4)
os.execvp(sys.argv[3], sys.argv[3:])
"""
"""Chromium wants to read from descriptor 3 and to write to 4."""


def why_no_browser() -> str | None:
    """Why pages cannot be opened here; None where they can."""
    return None if shutil.which("chromium") else "needs Debian's chromium (apt-get install chromium)"


class Browser:
    """One browser with one tab, to be used in a `with` statement.

    Attributes:
        requests: every address that the page has asked for.
        complaints: what it wrote on the console, exceptions it did not catch, requests that failed or were blocked.
    """

    def __init__(self, profile: Path) -> None:
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._number = 0
        self._buffer = b""
        ours_read, theirs_write = os.pipe()
        theirs_read, ours_write = os.pipe()
        wrapper = [sys.executable, "-I", "-S", "-c", _INHERIT, str(theirs_read), str(theirs_write)]
        self._process = subprocess.Popen(
            [*wrapper, "chromium", *FLAGS, f"--user-data-dir={profile}"],
            pass_fds=(theirs_read, theirs_write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(theirs_read)
        os.close(theirs_write)
        os.set_blocking(ours_read, False)
        self._read, self._write = ours_read, ours_write
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session: str | None = None
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._read)
        os.close(self._write)

    def open(self, page: Path, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Open a page in a window of this size (CSS pixels) and wait until it is loaded."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self._call("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])
        self.requests.clear()
        self._loaded = False
        self._call("Page.navigate", url=page.resolve().as_uri())
        self._wait(lambda: self._loaded)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page; a promise is waited for."""
        answer = self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key: str) -> None:
        """Press and release a key, such as `ArrowRight`."""
        for kind in ("keyDown", "keyUp"):
            self._call("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    def screenshot(self, path: Path | None = None, whole: bool = False) -> NDArray[np.uint8]:
        """(H, W, 3) pixels of the window, or of the whole page; also written to `path`."""
        from io import BytesIO

        from PIL import Image

        self.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        taken = self._call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        content = base64.b64decode(taken["data"])
        if path is not None:
            path.write_bytes(content)
        with Image.open(BytesIO(content)) as image:
            return np.asarray(image.convert("RGB"))

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if getattr(self, "_session", None):
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        self._answer: dict[str, Any] | None = None
        self._wait(lambda: self._answer is not None)
        assert self._answer is not None
        assert "error" not in self._answer, self._answer
        result: dict[str, Any] = self._answer["result"]
        return result

    def _wait(self, until: Callable[[], bool], seconds: float = 120) -> None:
        end = time.monotonic() + seconds
        while not until():
            assert time.monotonic() < end, "the browser does not answer"
            assert self._process.poll() is None, "the browser has ended"
            try:
                self._buffer += os.read(self._read, 1 << 20)
            except BlockingIOError:
                time.sleep(0.01)
            *messages, self._buffer = self._buffer.split(b"\0")
            for message in messages:
                self._take(json.loads(message))

    def _take(self, message: dict[str, Any]) -> None:
        if message.get("id") == self._number:
            self._answer = message
        method, told = message.get("method"), message.get("params", {})
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])
        elif method in {
            "Runtime.consoleAPICalled",
            "Runtime.exceptionThrown",
            "Log.entryAdded",
            "Network.loadingFailed",
        }:
            self.complaints.append(json.dumps(told))

"""The README as tests read it: its commands and its blocks of Python."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def commands() -> list[list[str]]:
    blocks = re.findall(r"^    (.+)$", README, flags=re.MULTILINE)
    return [shlex.split(part, comments=True) for line in blocks for part in line.split(" && ")]


def python_blocks(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)

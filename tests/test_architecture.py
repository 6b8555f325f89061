"""The rooms of docs/architecture.md: who may import whom, what importing costs, how large a module may be."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "kagglehms"
ROOMS = (
    "errors",
    "environment",
    "console",
    "locks",
    "files",
    "timing",
    "progress",
    "stop_signals",
    "device",
    "data",
    "simulator",
    "features",
    "inputs",
    "training",
    "runs",
    "bundle",
    "kernel",
    "kaggle",
    "packing",
    "rehearsal",
    "report",
    "cli",
)
"""In the order in which data pass; a room imports only from itself and from rooms before it."""
MOST_LINES = 420


def room_of(name: str) -> str:
    return name.split(".")[1]


def imports(path: Path) -> set[str]:
    """Every kagglehms module that `path` imports, wherever the import stands."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("kagglehms."):
            found.add(node.module)
        elif isinstance(node, ast.ImportFrom) and node.module == "kagglehms":
            found |= {f"kagglehms.{a.name}" for a in node.names if (PACKAGE / a.name).exists()}
        elif isinstance(node, ast.Import):
            found |= {a.name for a in node.names if a.name.startswith("kagglehms.")}
    return found


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.stem[0] != "_")


@pytest.mark.parametrize("path", modules(), ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_rooms_import_only_from_rooms_before_them(path: Path) -> None:
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert room in ROOMS, f"{room} has no place in docs/architecture.md"
    for name in imports(path):
        allowed = ROOMS[: ROOMS.index(room) + 1]
        assert room_of(name) in allowed, f"{path.name} imports {name}, which comes after it"


@pytest.mark.parametrize("path", modules(), ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_modules_stay_small(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MOST_LINES


HEAVY = {
    "torch",
    "polars",
    "pandas",
    "sklearn",
    "scipy",
    "numba",
    "timm",
    "matplotlib",
    "librosa",
    "albumentations",
    "jinja2",
}


@pytest.mark.parametrize(
    ("module", "allowed"),
    [
        ("kagglehms", set()),
        ("kagglehms.cli.commands", set()),
        ("kagglehms.data.competition", set()),
        ("kagglehms.features", {"numba", "scipy"}),  # Numba asks whether SciPy is there
        ("kagglehms.bundle.manifest", set()),
    ],
)
def test_importing_stays_cheap(module: str, allowed: set[str]) -> None:
    code = f"import sys, {module}; print(*sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= allowed


KAGGLES_OWN_WAY = "rehearsal/machine.py"
"""A rehearsed script is started as Kaggle starts it, by its path: Python looks beside it, not in the working folder."""


def test_child_processes_import_nothing_from_the_working_folder() -> None:
    started = []
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            words = (
                [ast.unparse(word) for word in node.elts] if isinstance(node, ast.List | ast.Tuple) else []
            )
            if words[:1] == ["sys.executable"] and path != PACKAGE / KAGGLES_OWN_WAY:
                started.append(path.name)
                assert words[1] in {"'-P'", "'-I'"}, f"{path.name}, line {node.lineno}: start it with -P"
    assert {"client.py", "supervisor.py", "training_session.py", "vendor.py"} <= set(started)


def test_the_rooms_are_those_of_the_documentation() -> None:
    text = (PACKAGE.parent / "docs" / "architecture.md").read_text()
    for path in modules():
        if path.stem != "__init__":
            assert path.name in text, f"docs/architecture.md does not mention {path.relative_to(PACKAGE)}"

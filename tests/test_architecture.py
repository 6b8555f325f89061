"""The rooms of docs/architecture.md: who may import whom, and what importing costs."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "kagglehms"
ROOMS = (
    "errors",
    "strict_json",
    "environment",
    "console",
    "locks",
    "files",
    "caches",
    "timing",
    "progress",
    "stop_signals",
    "device",
    "data",
    "features",
    "simulator",
    "inputs",
    "recordings",
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


def room_of(name: str) -> str:
    return name.split(".")[1]


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.stem[0] != "_")


NAMES = {module_name(path) for path in modules()}


def imports(path: Path) -> set[str]:
    """Every kagglehms module that `path` imports, wherever the import stands."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "kagglehms":
            found |= {f"{node.module}.{alias.name}" for alias in node.names} & NAMES or {node.module or ""}
        elif isinstance(node, ast.Import):
            found |= {a.name for a in node.names if a.name.startswith("kagglehms.")}
    return found - {"kagglehms"}  # the package itself holds only its version and what it loads on demand


@pytest.mark.parametrize("path", modules(), ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_rooms_import_only_from_rooms_before_them(path: Path) -> None:
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert room in ROOMS, f"{room} has no place in docs/architecture.md"
    for name in imports(path):
        allowed = ROOMS[: ROOMS.index(room) + 1]
        assert room_of(name) in allowed, f"{path.name} imports {name}, which comes after it"


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """Every group of modules each of which leads, by imports, to all others of the group."""
    reached = {name: set(names) for name, names in graph.items()}
    for middle in reached:
        for name in reached:
            if middle in reached[name]:
                reached[name] |= reached[middle]
    groups = {
        frozenset(other for other in reached[name] if name in reached.get(other, ()))
        for name in reached
        if name in reached[name]
    }
    return [set(group) for group in groups]


def test_circles_are_found() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set[str](), "e": {"f", "d"}, "f": {"e"}}
    assert sorted(map(sorted, circles(graph))) == [["b", "c"], ["e", "f"]]


def test_no_modules_import_one_another() -> None:
    """Imports inside functions and those for type checkers count as well."""
    found = circles({module_name(path): imports(path) for path in modules()})
    assert [sorted(circle) for circle in found] == []


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
    assert {"command.py", "supervisor.py", "training_session.py", "vendor.py"} <= set(started)


def _documented() -> dict[str, list[str]]:
    """Return the modules that docs/architecture.md lists, by room; the ground has the room `.`."""
    text = (PACKAGE.parent / "docs" / "architecture.md").read_text()
    listed: dict[str, list[str]] = {}
    for section in text.split("\n### ")[1:]:
        named = re.match(r"`(\S+)/`", section)
        first_columns = re.findall(r"^\| ([^|]+) \|", section, flags=re.MULTILINE)
        modules = [name for column in first_columns for name in re.findall(r"`(\w+\.py)`", column)]
        listed[named[1] if named else "."] = modules
    return listed


def test_the_rooms_are_those_of_the_documentation() -> None:
    there: dict[str, list[str]] = {}
    for path in modules():
        if path.stem != "__init__":
            there.setdefault(path.parent.relative_to(PACKAGE).as_posix(), []).append(path.name)
    documented = _documented()
    assert list(dict.fromkeys(room.split("/")[0] for room in documented))[1:] == [
        room for room in ROOMS if (PACKAGE / room).is_dir()
    ]
    assert {room: sorted(names) for room, names in documented.items()} == there

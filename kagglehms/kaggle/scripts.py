"""Whether a kernel's script compiles for the image's Python, and finds there all that it imports.

The library comes out of the bundle, so its imports count as the script's own: they are followed through the very wheel
that was built, module by module. Left aside is what only type checkers read, and what `except ImportError` catches.
"""

from __future__ import annotations

import ast
import sys
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from kagglehms.kaggle.image import Image
from kagglehms.kaggle.metadata import Finding

LIBRARY = "kagglehms"


@dataclass(frozen=True)
class Wheel:
    """What the checks need of a wheel.

    Attributes:
        path: the file.
        sources: Python text by the module's dotted name.
        top_levels: names that can be imported from it.
        metadata: its METADATA.
    """

    path: Path
    sources: Mapping[str, str]
    top_levels: frozenset[str]
    metadata: str


def read_wheel(path: Path) -> Wheel:
    """Read the sources in a wheel.

    Raises:
        OSError: it cannot be read.
        zipfile.BadZipFile: it is none.
    """
    sources, tops, metadata = {}, set(), ""
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            top, _, rest = name.partition("/")
            if top.endswith(".dist-info"):
                metadata = archive.read(name).decode() if rest == "METADATA" else metadata
                continue
            tops.add(top.partition(".")[0])
            if name.endswith(".py"):
                module = name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
                sources[module] = archive.read(name).decode()
    return Wheel(path, sources, frozenset(tops), metadata)


def script_findings(
    script: Path, image: Image, library: Wheel | None, vendored: list[Wheel]
) -> Iterator[Finding]:
    """Yield why a script would not start on the image.

    Args:
        script: a kernel's code.
        image: the table of the image.
        library: the bundle's; None where it could not be read, then only the script itself is looked at.
        vendored: further wheels in the bundle.
    """
    try:
        text = script.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        yield Finding(str(script), f"cannot be read as UTF-8 ({error})", "save it as UTF-8")
        return
    for version in image.python:
        if reason := _syntax_error(text, version):
            yield Finding(str(script), f"does not compile for Python {version}: {reason}", "mend it")
            return
    available = set(image.packages) | {name for wheel in vendored for name in wheel.top_levels}
    for name, place in reached(text, library).items():
        if name in available:
            continue
        absent = "the image has not" if name in image.absent else "is not in the table of the image"
        where = str(script) if place == "the script" else f"{script} through {place}"
        yield Finding(
            where,
            f"imports {name}, which {absent}",
            "do without it, import it where it is used on other machines only, or vendor it with `build.py --wheels`",
        )


def reached(script: str, library: Wheel | None) -> dict[str, str]:
    """Return the packages that a script imports, itself or through the library, and the first place of each.

    The standard library and the library itself are left out. `script` must compile.
    """
    found: dict[str, str] = {}
    sources = library.sources if library is not None else {}
    waiting = [("the script", name) for name in _imports(script, "")]
    seen: set[str] = set()
    while waiting:
        place, name = waiting.pop(0)
        top = name.partition(".")[0]
        if top != LIBRARY:
            if top not in sys.stdlib_module_names:
                found.setdefault(top, place)
            continue
        for module in _modules(name, sources):
            if module not in seen:
                seen.add(module)
                waiting += [(module, other) for other in _imports(sources[module], module)]
    return found


def _modules(name: str, sources: Mapping[str, str]) -> list[str]:
    """`name` may be a module or something in one; its packages are imported on the way."""
    parts = name.split(".")
    return [module for n in range(1, len(parts) + 1) if (module := ".".join(parts[:n])) in sources]


def _syntax_error(text: str, version: str) -> str | None:
    major, minor = map(int, version.split("."))
    try:
        ast.parse(text, feature_version=(major, minor))
        compile(text, "script", "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        line = f" in line {error.lineno}" if isinstance(error, SyntaxError) else ""
        return f"{error.msg if isinstance(error, SyntaxError) else error}{line}"
    return None


def _imports(text: str, module: str) -> list[str]:
    """Dotted names that `text` imports; relative ones made absolute."""
    collector = _Imports(module)
    collector.visit(ast.parse(text))
    return collector.names


class _Imports(ast.NodeVisitor):
    """Collects imports wherever they stand, in functions too: those run on the image as well."""

    def __init__(self, module: str) -> None:
        self.module = module
        self.names: list[str] = []

    def visit_Import(self, node: ast.Import) -> None:
        self.names += [alias.name for alias in node.names]

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        base = node.module or ""
        if node.level:
            package = self.module.rsplit(".", node.level)[0]
            base = f"{package}.{base}" if base else package
        # `from package import module` imports the module too, if it is one.
        self.names += [base, *(f"{base}.{alias.name}" for alias in node.names)]

    def visit_If(self, node: ast.If) -> None:
        if not (
            (isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING")
            or (isinstance(node.test, ast.Attribute) and node.test.attr == "TYPE_CHECKING")
        ):
            for statement in node.body:
                self.visit(statement)
        for statement in node.orelse:
            self.visit(statement)

    def visit_Try(self, node: ast.Try) -> None:
        types = [handler.type for handler in node.handlers]
        caught = {name.id for kind in types if kind for name in ast.walk(kind) if isinstance(name, ast.Name)}
        guarded = None in types or bool(caught & {"ImportError", "ModuleNotFoundError", "Exception"})
        if not guarded or not self.module:
            # A script's own guard only words the error: without the library there is nothing to do.
            for statement in node.body:
                self.visit(statement)
        for part in (*node.handlers, *node.orelse, *node.finalbody):
            self.visit(part)

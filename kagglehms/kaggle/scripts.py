"""Whether a kernel's script compiles for the image's Python, and whether the image has everything that it imports.

The library comes from the bundle, so its imports count as the script's own: they are followed through the wheel that
was built, module by module. Imports that only type checkers read, or that `except ImportError` catches, do not count.
"""

from __future__ import annotations

import ast
import functools
import sys
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from kagglehms.kaggle.findings import Finding
from kagglehms.kaggle.image import Image

LIBRARY = "kagglehms"


@dataclass(frozen=True)
class Wheel:
    """The parts of a wheel that the checks need.

    Attributes:
        path: file of the wheel.
        sources: source text of each module by its dotted name.
        top_levels: top-level names that can be imported from the wheel.
        metadata: content of its METADATA.
    """

    path: Path
    sources: Mapping[str, str]
    top_levels: frozenset[str]
    metadata: str


def read_wheel(path: Path) -> Wheel:
    """Read the sources in a wheel.

    Raises:
        OSError: the file cannot be read.
        zipfile.BadZipFile: the file is not a wheel.
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
        script: file of the kernel's script.
        image: table of the image.
        library: wheel of the library; None checks the script alone.
        vendored: all wheels in the bundle.
    """
    try:
        text = script.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        yield Finding(str(script), f"cannot be read as UTF-8 ({error})", "save it as UTF-8")
        return
    for version in image.python:
        if reason := _syntax_error(text, version):
            yield Finding(str(script), f"does not compile for Python {version}: {reason}", "correct it")
            return
    available = set(image.packages) | {name for wheel in vendored for name in wheel.top_levels}
    for name, place in reached(text, library).items():
        if name in available:
            continue
        absent = "the image lacks" if name in image.absent else "is not in the table of the image"
        where = str(script) if place == "the script" else f"{script} through {place}"
        yield Finding(
            where,
            f"imports {name}, which {absent}",
            "do without it, import it only where other machines use it, or bundle it with `kagglehms build --wheels`",
        )


def reached(script: str, library: Wheel | None) -> dict[str, str]:
    """Find the packages that a script imports, itself or through the library.

    Args:
        script: source text that compiles.
        library: wheel of the library; None follows no imports into it.

    Returns:
        The first place that imports each package, by the package's name, without the standard library and the library
        itself.
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
    """Return the modules that importing `name` runs; `name` may also be an attribute of a module."""
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


@functools.lru_cache(maxsize=1000)  # every kernel reaches most of the library
def _imports(text: str, module: str) -> tuple[str, ...]:
    """Return the dotted names that `text` imports, with relative ones made absolute."""
    collector = _Imports(module)
    collector.visit(ast.parse(text))
    return tuple(collector.names)


class _Imports(ast.NodeVisitor):
    """Collects imports at any level, including those in functions, which run on the image too."""

    def __init__(self, module: str) -> None:
        self.module = module
        self.names: list[str] = []

    def generic_visit(self, node: ast.AST) -> None:
        """Visit the statements in a statement, and not its expressions, which hold no import."""
        for field in ("body", "cases", "handlers", "orelse", "finalbody"):
            for statement in getattr(node, field, ()):
                self.visit(statement)

    def visit_Import(self, node: ast.Import) -> None:
        self.names += [alias.name for alias in node.names]

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        base = node.module or ""
        if node.level:
            package = self.module.rsplit(".", node.level)[0]
            base = f"{package}.{base}" if base else package
        # `from package import name` imports `name` too if it is a module.
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
            # A script's own guard only words the error, since without the library it cannot do anything.
            for statement in node.body:
                self.visit(statement)
        for part in (*node.handlers, *node.orelse, *node.finalbody):
            self.visit(part)

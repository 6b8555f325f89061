"""Hooks of mkdocs.yml: pages that do not stand in docs/, and links that leave it.

README.md and its like become pages, every room of the package becomes a page of its docstrings, and a link to any other
file of the checkout leads to a copy of it.
"""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "kagglehms"
PAGES = {
    "README.md": "index.md",
    "SECURITY.md": "security.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
"""Pages made of files outside docs/, by these files."""
LINK = re.compile(r"(?<=\]\()(?!https?:|#)([^)#\s]+)(#[^)\s]*)?(?=\))")
GROUND = "ground"
"""Page of the modules that stand in no room."""


def rooms() -> dict[str, list[str]]:
    """Return the public modules of each room, in the order of docs/architecture.md."""
    found: dict[str, list[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if path.stem != "__main__":
            module = ".".join(parts[:-1] if path.stem == "__init__" else parts)
            found.setdefault(parts[1] if len(parts) > 2 else GROUND, []).append(module)
    plan = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    return {room: found[room] for room in [GROUND, *re.findall(r"^### `(\w+)/`", plan, flags=re.MULTILINE)]}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the rooms to the navigation."""
    config.nav = [*(config.nav or []), {"API": [{room: f"api/{room}.md"} for room in rooms()]}]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that do not stand in docs/."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    for room, modules in rooms().items():
        text = "\n\n".join([f"# {room}", *(f"::: {module}" for module in modules)])
        files.append(File.generated(config, f"api/{room}.md", content=text))
    for source in [ROOT / name for name in PAGES] + sorted((ROOT / "docs").glob("*.md")):
        for target, _ in LINK.findall(source.read_text(encoding="utf-8")):
            path = (source.parent / target).resolve()
            copy = _copy(path)
            if copy and path.is_file() and not files.get_file_from_path(copy):
                files.append(File.generated(config, copy, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let the links of a page of the checkout lead to where the site has what they name."""
    sources = {made: ROOT / source for source, made in PAGES.items()}
    source = sources.get(page.file.src_uri, Path(config.docs_dir) / page.file.src_uri)

    def led(link: re.Match[str]) -> str:
        path = (source.parent / link[1]).resolve()
        return _place(path) + (link[2] or "") if path.is_relative_to(ROOT) else link[0]

    return LINK.sub(led, markdown)


def _place(path: Path) -> str:
    """Return where the site has a file of the checkout, seen from a page beside index.md."""
    if path.is_relative_to(ROOT / "docs"):
        return path.relative_to(ROOT / "docs").as_posix()
    name = path.relative_to(ROOT).as_posix()
    if name in PAGES:
        return PAGES[name]
    if path.is_relative_to(PACKAGE) and path.suffix == ".py":
        parts = path.relative_to(ROOT).with_suffix("").parts
        return f"api/{parts[1] if len(parts) > 2 else GROUND}.md#{'.'.join(parts)}"
    return f"files/{name}"


def _copy(path: Path) -> str:
    """Return where a copy of a file belongs; empty if the site has it as a page or in docs/."""
    place = _place(path) if path.is_relative_to(ROOT) else ""
    return place if place.startswith("files/") else ""

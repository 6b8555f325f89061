"""Scripts against the image: what compiles there, and which imports are followed."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from kagglehms.kaggle.image import kaggle_image
from kagglehms.kaggle.scripts import LIBRARY, Wheel, reached, read_wheel, script_findings
from kagglehms.packing.build import Built

SOURCES = {
    "kagglehms": "",
    "kagglehms.rehearsal": "",
    "kagglehms.kernel.entry": """
from typing import TYPE_CHECKING
from . import near
from .near import thing
if TYPE_CHECKING:
    import onlytypes
else:
    import elsetop
try:
    import perhaps
except ImportError:
    import instead
def later():
    import deep.inside
    from kagglehms.other import name
""",
    "kagglehms.kernel.near": "import nearby, os\n",
    "kagglehms.other": "import kagglehms.kernel.entry\nfrom otherpackage.part import x\n",
    "kagglehms.cli.commands": "import tyro\n",
}
LIBRARY_WHEEL = Wheel(Path("x.whl"), SOURCES, frozenset({LIBRARY}), "")
SCRIPT = "import os\nfrom kagglehms.kernel.entry import infer\n"


def wheel(path: Path, files: dict[str, str]) -> Wheel:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return read_wheel(path)


def findings(tmp_path: Path, text: str, library: Wheel | None = None, *vendored: Wheel) -> list[str]:
    script = tmp_path / "script.py"
    script.write_text(text)
    return [finding.what for finding in script_findings(script, kaggle_image(), library, list(vendored))]


def test_imports_are_followed_through_the_library_wherever_they_stand() -> None:
    assert reached(SCRIPT, LIBRARY_WHEEL) == {
        "elsetop": "kagglehms.kernel.entry",
        "instead": "kagglehms.kernel.entry",
        "deep": "kagglehms.kernel.entry",
        "nearby": "kagglehms.kernel.near",
        "otherpackage": "kagglehms.other",
    }
    assert reached(SCRIPT, None) == {}


def test_a_script_that_guards_its_import_needs_it_all_the_same() -> None:
    text = "try:\n    import needed\nexcept ImportError as error:\n    raise SystemExit(error)\n"
    assert reached(text, None) == {"needed": "the script"}


def test_what_the_image_lacks_is_named_with_its_place(tmp_path: Path) -> None:
    assert findings(tmp_path, "import numpy, tyro\n") == ["imports tyro, which the image lacks"]
    assert findings(tmp_path, "import unheardof\n") == [
        "imports unheardof, which is not in the table of the image"
    ]
    through = findings(tmp_path, "from kagglehms.cli import commands\n", LIBRARY_WHEEL)
    assert through == ["imports tyro, which the image lacks"]
    vendored = wheel(tmp_path / "tyro.whl", {"tyro/__init__.py": ""})
    assert findings(tmp_path, "import tyro\n", None, vendored) == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("def f(:\n", "does not compile for Python 3.13"),
        ("x = 1\0\n", "does not compile"),
        ("return 1\n", "'return' outside function in line 1"),
    ],
)
def test_a_script_that_does_not_compile(tmp_path: Path, text: str, says: str) -> None:
    (found,) = findings(tmp_path, text)
    assert says in found


def test_a_script_that_is_not_utf8(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_bytes("x = 'é'\n".encode("latin-1"))
    (found,) = script_findings(script, kaggle_image(), None, [])
    assert "UTF-8" in found.what


def test_a_wheel_is_read_as_pip_would(tmp_path: Path) -> None:
    files = {"package/__init__.py": "import a\n", "package/module.py": "import b\n", "single.py": ""}
    found = wheel(tmp_path / "a.whl", files | {"package-1.0.dist-info/METADATA": "Name: package\n"})
    assert found.sources == {"package": "import a\n", "package.module": "import b\n", "single": ""}
    assert found.top_levels == {"package", "single"}
    assert found.metadata == "Name: package\n"


def test_the_built_kernels_reach_the_models_and_not_the_command_line(built: Built) -> None:
    library = read_wheel(next(built.dataset.glob("kagglehms-*.whl")))
    for kernel in built.kernels:
        found = reached(next(kernel.glob("*.py")).read_text(), library)
        assert {"torch", "numba", "polars", "timm", "safetensors"} <= found.keys()
        assert not {"tyro", "kaggle", "matplotlib"} & found.keys()

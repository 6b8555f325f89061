"""Prints the releases of the Kaggle client that pyproject.toml allows, lowest first, as the package index has them."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
wanted = next(r for r in map(Requirement, project["dependencies"]) if r.name == "kaggle")
lowest = next(Version(bound.version) for bound in wanted.specifier if bound.operator == ">=")
asked = [sys.executable, "-m", "pip", "index", "versions", wanted.name]
said = subprocess.run(asked, stdout=subprocess.PIPE, text=True, check=True).stdout
listed = re.search(r"^Available versions: (.+)$", said, re.MULTILINE)
releases = sorted(wanted.specifier.filter(listed[1].split(", ") if listed else []), key=Version)
if lowest not in map(Version, releases):
    sys.exit(f"{wanted}: the index has no release {lowest}, it has {', '.join(releases) or 'none'}")
print(*releases)

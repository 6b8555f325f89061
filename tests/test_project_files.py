"""Files about the project, for tools and people: they agree with one another and with pyproject.toml."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
CPU = "pip install torch torchvision --index-url https://download.pytorch.org/whl/cpu"


def load(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text())


def test_docker_installs_as_the_readme_says() -> None:
    stages: dict[str, list[str]] = {}
    for line in (ROOT / "Dockerfile").read_text().splitlines():
        if begun := re.fullmatch(r"FROM \S+ AS (\w+)", line):
            lines = stages.setdefault(begun[1], [])
        elif line.startswith("RUN pip"):
            lines.append(line.removeprefix("RUN "))
    assert stages == {"base": [], "cuda": ["pip install ."], "cpu": [CPU, "pip install ."]}
    readme = (ROOT / "README.md").read_text()
    assert f"    {CPU} && pip install -e .\n" in readme
    assert set(re.findall(r"--target (\w+)", readme)) == {"cpu", "cuda"}
    python = re.findall(r"^FROM python:(\d+)\.(\d+)-", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    lowest = tuple(map(int, re.findall(r"\d+", PROJECT["requires-python"])))
    assert [tuple(map(int, version)) >= lowest for version in python] == [True]


def test_docker_is_given_what_the_wheel_is_made_of() -> None:
    given = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    wheel = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {*wheel["packages"], *wheel["force-include"], PROJECT["readme"], *PROJECT["license-files"]}
    assert given == needed | {"pyproject.toml"}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_may_only_read_and_their_actions_are_pinned(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert "permissions" not in job
        for step in job.get("steps", ()):
            if "uses" in step:
                assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", step["uses"])


def test_every_system_and_python_runs_the_quick_tests_also_weekly() -> None:
    quick = load(".github/workflows/ci.yml")["jobs"]["quick"]
    assert {name.partition("-")[0] for name in quick["strategy"]["matrix"]["os"]} == {
        "ubuntu",
        "macos",
        "windows",
    }
    assert quick["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]
    runs = [step["run"] for step in quick["steps"] if "run" in step]
    assert runs[0] == CPU
    assert "-m 'not slow'" in runs[-1]
    weekly = load(".github/workflows/weekly.yml")
    assert weekly["jobs"]["ci"] == {"uses": "./.github/workflows/ci.yml"}
    assert weekly[True]["schedule"]  # YAML 1.1 reads `on` as a truth


def test_the_pins_of_kaggles_image_are_versions_that_it_has_had() -> None:
    """And none of them is left out that the image's table records and the project depends on."""
    wanted = [
        Requirement(line)
        for line in (ROOT / ".ci/kaggle-image.txt").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    pinned = {found.name: found.specifier for found in wanted if "==" in str(found.specifier)}
    image = tomllib.loads((ROOT / "kagglehms/kaggle/image.toml").read_text())["packages"]
    seen = {row["distribution"]: row["lowest"] for row in image.values() if row["lowest"]}
    allowed = {found.name: found.specifier for found in map(Requirement, PROJECT["dependencies"])}
    assert seen.keys() & (allowed.keys() | {"pandas"}) <= pinned.keys()
    for name in seen.keys() & pinned.keys():
        series = re.sub(r"^==(\d+\.\d+).*", r"\1", str(pinned[name]))
        assert seen[name].startswith(series), name
    for name in allowed.keys() & seen.keys():
        assert seen[name] in allowed[name], name
    run = (ROOT / ".ci/run").read_text()
    assert "-r .ci/kaggle-image.txt -c .ci/kaggle-image.txt -e ." in run
    assert "tests/rehearsal/test_kernels.py" in run


def test_the_lowest_versions_include_that_of_torch() -> None:
    """A torchvision that nobody asks for would bring the newest."""
    (install,) = (
        step["run"]
        for step in load(".github/workflows/ci.yml")["jobs"]["lowest"]["steps"]
        if "uv pip install" in step.get("run", "")
    )
    lowest = re.search(r"torch>=2\.(\d+)", " ".join(PROJECT["dependencies"]))
    assert lowest is not None
    assert (
        f"'torchvision==0.{int(lowest[1]) + 15}.*'" in install
    )  # torch 2.5 and torchvision 0.20 are of one day


def test_the_citation_agrees_with_the_package() -> None:
    citation = load("CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] == "software"
    assert all(author["name"] for author in citation["authors"])
    assert {"message", "title"} <= set(citation)
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])
    assert citation["keywords"] == PROJECT["keywords"]
    assert f"\n## {PROJECT['version']}" in (ROOT / "CHANGELOG.md").read_text()


def test_hooks_before_a_commit_are_tools_of_the_test_extra() -> None:
    (local,) = load(".pre-commit-config.yaml")["repos"]
    assert local["repo"] == "local"
    extra = {re.match(r"[\w-]+", wanted)[0] for wanted in PROJECT["optional-dependencies"]["test"]}  # type: ignore[index]
    assert {hook["entry"].split()[0] for hook in local["hooks"]} == {"ruff", "mypy"} <= extra


HINTS = {
    hint
    for folder, pattern in (("kagglehms", "*.py"), ("docs", "*.md"), (".", "README.md"))
    for path in (ROOT / folder).rglob(pattern)
    if "build" not in path.parts
    for hint in re.findall(r"kagglehms\[(\w+)\]", path.read_text())
}


def test_hints_name_extras() -> None:
    assert {"mne", "ray", "tensorboard", "cluster"} <= HINTS <= set(PROJECT["optional-dependencies"])


def test_the_lock_is_of_pypi_and_knows_every_dependency() -> None:
    lock = tomllib.loads((ROOT / "uv.lock").read_text())
    sources = [package["source"] for package in lock["package"]]
    assert {tuple(source.values()) for source in sources} == {("https://pypi.org/simple",), (".",)}
    (own,) = (package for package in lock["package"] if package["name"] == "kagglehms")
    wanted = {re.match(r"[\w-]+", line)[0] for line in PROJECT["dependencies"]}  # type: ignore[index]
    assert {dependency["name"] for dependency in own["dependencies"]} == wanted
    assert set(own["optional-dependencies"]) == set(PROJECT["optional-dependencies"])


@pytest.mark.slow(25)
@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("mkdocs", "material", "mkdocstrings"))),
    reason="mkdocs is not installed (pip install -e '.[docs]')",
)
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "site/api/training.html").read_text()
    assert 'id="kagglehms.training.recipes.get_recipe"' in page
    assert (
        'href="api/training.html#kagglehms.training.recipe"' in (tmp_path / "site/extending.html").read_text()
    )

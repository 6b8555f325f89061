"""Bundles go to the Hugging Face hub and come back as they were: the real client against a hub on the loopback."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from loopback_hub import TOKEN, Repository, running

from kagglehms.bundle.hub import is_on_hub
from kagglehms.bundle.manifest import read_manifest
from kagglehms.environment import child_environment
from kagglehms.errors import EXIT_FAILURE, UsageError
from kagglehms.packing.publishing import publish_bundle

NAME = "somebody/eeg-votes"


def python(code: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own, as the client reads its environment when it is imported."""
    clean = {k: v for k, v in child_environment().items() if not k.upper().startswith("HF_")}
    clean = {k: v for k, v in clean.items() if not k.upper().endswith("_PROXY")}
    settings = {"HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1"}
    return subprocess.run(
        [sys.executable, "-c", code],
        env=clean | settings | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )


def command(words: Sequence[str], home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    code = f"import sys; from kagglehms.cli.commands import main; sys.exit(main({list(words)!r}))"
    return python(code, home, **environment)


FETCH = f"""
import json
from kagglehms.bundle.hub import fetch_bundle
from kagglehms.bundle.manifest import read_manifest, verify
from kagglehms.errors import HMSError
try:
    folder = fetch_bundle("hf:{NAME}")
    manifest = read_manifest(folder)
    verify(folder, manifest)
    print(json.dumps(manifest.digest))
except HMSError as error:
    print(json.dumps(f"{{type(error).__name__}}: {{error}}"))
"""


def fetched(home: Path, **environment: str) -> str:
    done = python(FETCH, home, **environment)
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.slow(25)
def test_a_bundle_goes_to_the_hub_and_comes_back(dist: Path, tmp_path: Path) -> None:
    digest = read_manifest(dist / "dataset").digest
    with running(Repository(NAME)) as hub:
        hub.files["of_an_earlier_bundle.safetensors"] = b"stale"
        words = ["publish", "hub", NAME, "--dist", str(dist), "--private"]
        done = command(words, tmp_path / "writer", HF_ENDPOINT=hub.url, HF_TOKEN=TOKEN)
        assert done.returncode == 0, done.stderr
        assert f'load_bundle("hf:{NAME}", expected_digest="{digest}")' in done.stdout
        (made,) = hub.made
        assert (made["organization"], made["name"]) == ("somebody", "eeg-votes")
        assert made.get("private") is True or made["visibility"] == "private"  # by the client's release
        ours = {path.name: path.read_bytes() for path in (dist / "dataset").iterdir()}
        ours.pop("dataset-metadata.json")
        page = hub.files.pop("README.md").decode()
        assert hub.files == {**ours, ".gitattributes": hub.files[".gitattributes"]}
        assert page.startswith("---\nlicense: apache-2.0\nlibrary_name: kagglehms\n")
        assert page.endswith(ours["MODEL_CARD.md"].decode())
        assert digest in page
        hub.files["README.md"] = page.encode()

        assert fetched(tmp_path / "reader", HF_ENDPOINT=hub.url) == digest
        changed = next(name for name in ours if name.endswith(".safetensors"))
        hub.files[changed] = ours[changed][:-1] + b"?"
        hub.commits += 1
        assert f"changed: {changed} (same size, other content)" in fetched(
            tmp_path / "next", HF_ENDPOINT=hub.url
        )
    assert fetched(tmp_path / "reader", HF_HUB_OFFLINE="1") == digest

    code = (
        "import numpy as np; from kagglehms import load_bundle\n"
        "power = np.random.default_rng(0).lognormal(size=(300, 400))\n"
        f"ours, there = load_bundle({str(dist / 'dataset')!r}), load_bundle('hf:{NAME}', expected_digest={digest!r})\n"
        "print(np.array_equal(ours.predict(spectrogram=power), there.predict(spectrogram=power)))"
    )
    done = python(code, tmp_path / "reader", HF_HUB_OFFLINE="1")
    assert done.stdout == "True\n", done.stderr


def test_what_the_hub_refuses_is_one_line(dist: Path, tmp_path: Path) -> None:
    with running(Repository(NAME)) as hub:
        words = ["publish", "hub", NAME, "--dist", str(dist)]
        done = command(words, tmp_path, HF_ENDPOINT=hub.url, HF_TOKEN="hf_of-another")
        assert done.returncode == 1
        assert "the hub did not take the bundle (" in done.stderr
        assert f"log in with `hf auth login` and a token that may write to {NAME}" in done.stderr
        assert hub.files == {}
        assert fetched(tmp_path, HF_ENDPOINT=hub.url).startswith(
            f"BundleError: hf:{NAME}: the hub gave no bundle ("
        )


def test_a_hub_that_does_not_answer_is_one_line(dist: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    words = ["publish", "hub", NAME, "--dist", str(dist)]
    done = command(words, tmp_path, HF_ENDPOINT=url, HF_TOKEN=TOKEN)
    assert (done.returncode, done.stderr.count("\n")) == (EXIT_FAILURE, 1), done.stderr
    assert done.stderr.startswith("kagglehms: error: the hub did not take the bundle (")


def test_what_cannot_be_published_is_refused_before_the_hub_is_asked(dist: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no bundle; build it with `kagglehms build"):
        publish_bundle(tmp_path, NAME, private=False)
    with pytest.raises(UsageError, match="'eeg-votes' is no repository of the hub; give owner/name"):
        publish_bundle(dist, "eeg-votes", private=False)


def test_names_on_the_hub_are_told_from_folders() -> None:
    assert is_on_hub(f"hf:{NAME}")
    assert is_on_hub(Path(f"hf:{NAME}"))
    assert not is_on_hub("dist/dataset")

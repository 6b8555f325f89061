"""Push, follow and fetch with the real client, against a service of our own that can be made to fail.

That nothing tries to leave the machine is asserted where the service ends (see `loopback_kaggle`), and once more by
running a whole push in a network namespace that has only a loopback.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from forked_client import client_server
from loopback_kaggle import (
    BROKEN,
    TOO_MANY,
    Fault,
    LoopbackKaggle,
    Session,
    loopback_kaggle,
    reword_the_client,
)
from runs_folder import make_run

from kagglehms.bundle.manifest import CARD, MANIFEST, read_manifest
from kagglehms.cli.commands import main
from kagglehms.console import say
from kagglehms.data.competition import SLUG, VOTE_COLUMNS
from kagglehms.errors import EXIT_FAILURE, EXIT_OK, HMSError, RunError
from kagglehms.kaggle.answers import ClientError
from kagglehms.kaggle.client import KaggleClient, KernelState
from kagglehms.kaggle.fetch import fetch, fetch_all
from kagglehms.kaggle.push import push
from kagglehms.kaggle.service import Kaggle, Patience
from kagglehms.kaggle.sessions import follow_kernel
from kagglehms.kaggle.status import Standing, status
from kagglehms.kaggle.upload import difference, upload
from kagglehms.kernel.marker import Marker
from kagglehms.packing.build import Built, build

OWNER = "some-owner"
BUNDLE = f"{OWNER}/kagglehms-bundle"
KERNEL = f"{OWNER}/kagglehms-infer"
SUBMISSION = (",".join(("eeg_id", *VOTE_COLUMNS)) + "\n1,1,0,0,0,0,0\n").encode()
HASTE = Patience(poll_s=0.05, confirm_s=0.0, tries=3, backoff_s=0.05)
"""Asks at once and waits as long as it takes; tests of what is never seen shorten the wait in question."""


@pytest.fixture(scope="module")
def quick_client() -> Iterator[tuple[str, ...]]:
    """The command of a client that starts in no time; test_client.py starts the usual one."""
    with client_server() as command:
        yield command


@pytest.fixture
def service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick_client: tuple[str, ...]
) -> Iterator[LoopbackKaggle]:
    monkeypatch.setattr("kagglehms.kaggle.command.COMMAND", quick_client)
    with loopback_kaggle(tmp_path / "kaggle", OWNER) as (service, environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        service.sessions[KERNEL] = Session(outputs={"submission.csv": SUBMISSION})
        yield service


@pytest.fixture
def dist(built: Built, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built.dataset.parent, tmp_path / "dist"))


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def kaggle(lines: list[str]) -> Kaggle:
    return Kaggle(KaggleClient(), HASTE, lines.append)


def less_patient(kaggle: Kaggle, **seconds: float) -> Kaggle:
    return replace(kaggle, patience=replace(kaggle.patience, **seconds))


def publish(service: LoopbackKaggle, dataset: Path) -> None:
    """Let Kaggle have a version of the bundle."""
    files = {path.name: path.read_bytes() for path in dataset.iterdir() if path.name != CARD}
    service.datasets.setdefault(BUNDLE, []).append(files)


@pytest.mark.parametrize("words", [("--version",), ("datasets", "status", BUNDLE), ("datasets", "nothing")])
def test_the_quick_client_does_and_says_what_the_usual_one_does(
    service: LoopbackKaggle, quick_client: tuple[str, ...], words: tuple[str, ...], tmp_path: Path
) -> None:
    usual = (sys.executable, "-P", "-m", "kaggle")
    done = [
        subprocess.run(
            [*command, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, cwd=tmp_path
        )
        for command in (quick_client, usual)
    ]
    assert done[0].stdout
    assert (done[0].returncode, done[0].stdout) == (done[1].returncode, done[1].stdout)
    assert [method for method, _ in service.calls[::2]] == [method for method, _ in service.calls[1::2]]


@pytest.mark.slow
def test_the_whole_way_and_then_nothing_to_upload(
    service: LoopbackKaggle, dist: Path, kaggle: Kaggle, lines: list[str], tmp_path: Path
) -> None:
    push(dist, ["infer"], kaggle, tmp_path / "out")
    assert (tmp_path / "out/infer/submission.csv").read_bytes() == SUBMISSION
    assert (tmp_path / "out/infer/kagglehms-infer.log").read_text() == "bundle verified\n"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["infer"]
    order = [method for method, _ in service.calls if method in {"CreateDataset", "SaveKernel"}]
    assert order == ["CreateDataset", "SaveKernel"]
    text = "\n".join(lines)
    for said in ("preflight: nothing found", "version 1 is ready", "version 1 pushed", "RUNNING", "COMPLETE"):
        assert said in text
    assert f"-k {KERNEL} -v 1" in text

    calls = len(service.calls)
    push(dist, [], kaggle, tmp_path / "out")
    asked = {method for method, _ in service.calls[calls:]}
    assert not asked & {"StartBlobUpload", "PUT", "CreateDatasetVersion", "SaveKernel"}
    assert "nothing to upload" in lines[-1]
    assert all(standing.ok for standing in status(dist, kaggle))
    assert any("it is this build" in line for line in lines)


def test_status_is_told_even_if_quiet(
    service: LoopbackKaggle,
    dist: Path,
    kaggle: Kaggle,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publish(service, dist / "dataset")
    monkeypatch.setattr("kagglehms.kaggle.service.kaggle", lambda: kaggle)
    assert main(["status", "--dist", str(dist), "--quiet"]) == EXIT_OK
    out = capsys.readouterr().out
    assert out.startswith(f"dataset {BUNDLE}: ready, version 1, it is this build")
    assert f"kernel {KERNEL}: " in out


@pytest.mark.slow
def test_prepare_train_and_infer_one_after_the_other(
    service: LoopbackKaggle, dist: Path, kaggle: Kaggle, lines: list[str], tmp_path: Path
) -> None:
    publish(service, dist / "dataset")
    for name in ("prepare", "train"):
        service.sessions[f"{OWNER}/kagglehms-{name}"] = Session(["COMPLETE"], outputs={f"{name}.bin": b"x"})
    push(dist, ["infer", "train", "prepare"], kaggle, tmp_path / "out")
    saved = service.called("SaveKernel")
    assert [call["slug"].rpartition("-")[2] for call in saved] == ["prepare", "train", "infer"]
    assert saved[1]["kernelDataSources"] == [f"{OWNER}/kagglehms-prepare"]  # it has no output of its own yet
    assert saved[1]["enableInternet"] is True
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["infer", "train"]
    assert "its output stays on Kaggle" in "\n".join(lines)


def test_findings_stop_a_push_before_anything_is_asked(
    service: LoopbackKaggle, dist: Path, kaggle: Kaggle, lines: list[str], tmp_path: Path
) -> None:
    (dist / "dataset/stranger.zip").write_text("x")
    with pytest.raises(RunError, match=r"2 findings.*nothing was uploaded"):
        push(dist, ["infer"], kaggle, tmp_path / "out")
    assert "is an archive" in "\n".join(lines)
    assert service.calls == []
    (dist / "dataset/stranger.zip").unlink()
    card = dist / "dataset" / CARD
    card.write_text(card.read_text().replace("some-owner", "otto"))  # which every kernel contradicts
    with pytest.raises(RunError, match=r"^1 finding in .*nothing was uploaded"):
        push(dist, ["infer"], kaggle, tmp_path / "out")
    assert "preflight: 1 finding." in lines[-1]


@pytest.mark.slow
def test_a_changed_bundle_becomes_a_new_version_and_is_waited_for(
    service: LoopbackKaggle, dist: Path, kaggle: Kaggle
) -> None:
    service.datasets[BUNDLE] = [{MANIFEST: b"{}"}]
    service.statuses = ["READY", "BLOBS_RECEIVED", "BLOBS_DECOMPRESSED"]
    assert upload(dist / "dataset", BUNDLE, kaggle) is True
    assert len(service.datasets[BUNDLE]) == 2
    assert service.statuses == []
    note = service.called("CreateDatasetVersion")[0]["body"]["versionNotes"]
    assert json.loads((dist / "dataset" / MANIFEST).read_text())["digest"][:12] in note


def test_a_version_that_is_never_ready(
    service: LoopbackKaggle, dist: Path, kaggle: Kaggle, tmp_path: Path
) -> None:
    service.datasets[BUNDLE] = [{MANIFEST: b"{}"}]
    service.statuses = ["READY"] + ["BLOBS_RECEIVED"] * 100
    with pytest.raises(RunError, match="is blobs_received at version 2 after 0 s, no kernel was pushed"):
        push(dist, ["infer"], less_patient(kaggle, ready_s=0.0), tmp_path / "out")
    assert not service.called("SaveKernel")


def test_a_version_that_fails(service: LoopbackKaggle, dist: Path, kaggle: Kaggle) -> None:
    service.statuses = ["FAILED"]
    with pytest.raises(RunError, match="version 1 is failed"):
        upload(dist / "dataset", BUNDLE, kaggle)


@pytest.mark.parametrize("reworded", [False, True])
def test_an_upload_that_lacks_a_file_is_no_bundle_and_the_next_push_repairs_it(
    service: LoopbackKaggle,
    dist: Path,
    kaggle: Kaggle,
    lines: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    reworded: bool,
) -> None:
    """Whether the client goes on without the file or gives up, and whatever it says."""
    if reworded:
        reword_the_client(monkeypatch)
    service.faults["PUT LICENSE"] = [Fault(403)] * 9
    with pytest.raises(HMSError, match=r"LICENSE.*push again|push again.*LICENSE"):
        push(dist, ["infer"], kaggle, tmp_path / "out")
    assert all("LICENSE" not in version for version in service.datasets.get(BUNDLE, []))
    assert not service.called("SaveKernel")
    assert not any("is ready, digest" in line or "uploaded" in line for line in lines)
    service.faults.clear()
    assert upload(dist / "dataset", BUNDLE, kaggle) is True
    assert service.datasets[BUNDLE][-1]["LICENSE"] == (dist / "dataset/LICENSE").read_bytes()
    assert difference(read_manifest(dist / "dataset"), BUNDLE, kaggle) is None


def test_a_version_that_nobody_has_seen_is_not_waited_for_as_if_it_were_on_its_way(
    service: LoopbackKaggle, dist: Path, kaggle: Kaggle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that ends well, says nothing and has done nothing."""
    code = "import runpy, sys; 'status' in sys.argv and runpy.run_module('kaggle', None, '__main__', True)"
    monkeypatch.setattr("kagglehms.kaggle.command.COMMAND", (sys.executable, "-P", "-c", code))
    with pytest.raises(RunError, match="no kernel was pushed; push again"):
        upload(dist / "dataset", BUNDLE, kaggle)
    assert not service.datasets


@pytest.mark.slow
def test_too_many_requests_are_tried_again_and_a_refusal_is_final(
    service: LoopbackKaggle, dist: Path, kaggle: Kaggle, lines: list[str], tmp_path: Path
) -> None:
    publish(service, dist / "dataset")
    service.faults["SaveKernel"] = [TOO_MANY, TOO_MANY]
    push(dist, ["infer"], kaggle, tmp_path / "out", follow=False)
    assert len(service.called("SaveKernel")) == 3
    assert sum("trying again" in line for line in lines) == 2
    service.faults["SaveKernel"] = [TOO_MANY] * 9
    with pytest.raises(ClientError, match="429"):
        push(dist, ["infer"], kaggle, tmp_path / "out", follow=False)
    assert len(service.called("SaveKernel")) == 6


def test_a_server_error_on_a_push_is_not_tried_again(
    service: LoopbackKaggle, dist: Path, kaggle: Kaggle, tmp_path: Path
) -> None:
    publish(service, dist / "dataset")
    service.faults["SaveKernel"] = [BROKEN]
    with pytest.raises(ClientError, match="500 - An internal server error"):
        push(dist, ["infer"], kaggle, tmp_path / "out")
    assert len(service.called("SaveKernel")) == 1


def test_questions_are_asked_again_after_server_errors(
    service: LoopbackKaggle, dist: Path, kaggle: Kaggle
) -> None:
    publish(service, dist / "dataset")
    service.faults = {name: [BROKEN] for name in ("GetDatasetStatus", "DownloadDataset", "ListDatasetFiles")}
    assert upload(dist / "dataset", BUNDLE, kaggle) is False
    service.faults = {"GetDatasetStatus": [BROKEN] * 9}
    with pytest.raises(ClientError, match="cannot determine"):
        upload(dist / "dataset", BUNDLE, kaggle)
    assert not service.called("StartBlobUpload")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("LICENSE", None, "LICENSE"),
        ("LICENSE", b"short", "LICENSE"),
        ("stranger", b"x", "stranger"),
        (MANIFEST, b"{}", "no manifest"),
        (MANIFEST, None, "cannot be fetched"),
    ],
)
def test_what_kaggle_has_is_compared(
    service: LoopbackKaggle, built: Built, kaggle: Kaggle, name: str, content: bytes | None, says: str
) -> None:
    publish(service, built.dataset)
    files = service.datasets[BUNDLE][0]
    files.pop(name, None)
    if content is not None:
        files[name] = content
    found = difference(built.manifest, BUNDLE, kaggle)
    assert found is not None
    assert says in found


def test_another_build_is_another_bundle_but_another_commit_is_not(
    service: LoopbackKaggle, built: Built, runs: Path, tmp_path: Path, kaggle: Kaggle
) -> None:
    publish(service, built.dataset)
    manifest = json.loads((built.dataset / MANIFEST).read_text())
    manifest["library"]["commit"] = "f" * 40
    service.datasets[BUNDLE][0][MANIFEST] = json.dumps(manifest).encode()
    assert difference(built.manifest, BUNDLE, kaggle) is None
    other = build(runs, tmp_path / "other", owner=OWNER)
    found = difference(other.manifest, BUNDLE, kaggle)
    assert found == f"digest {built.manifest.digest[:12]} there, {other.manifest.digest[:12]} here"


def test_a_kernel_mounts_its_own_output_once_there_is_any(
    service: LoopbackKaggle, dist: Path, kaggle: Kaggle, tmp_path: Path
) -> None:
    publish(service, dist / "dataset")
    path = dist / "kernels/infer/kernel-metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"kernel_sources": ["a-b/other", KERNEL]}))
    for _ in range(2):
        push(dist, ["infer"], kaggle, tmp_path / "out", follow=False)
    sent = [call["kernelDataSources"] for call in service.called("SaveKernel")]
    assert sent == [["a-b/other"], ["a-b/other", KERNEL]]
    service.faults["GetKernelSessionStatus"] = [Fault(400, {"code": 400, "message": "bad request"})]
    with pytest.raises(ClientError, match="cannot determine"):  # whether it has run before: no guess is made
        push(dist, ["infer"], kaggle, tmp_path / "out", follow=False)
    assert len(service.called("SaveKernel")) == 2


@pytest.mark.parametrize(
    ("states", "says"), [(None, "was never pushed"), (["RUNNING"], "is RUNNING"), (["ERROR"], "is ERROR")]
)
def test_a_kernel_is_not_pushed_without_what_it_reads(
    service: LoopbackKaggle, dist: Path, kaggle: Kaggle, tmp_path: Path, states: list[str] | None, says: str
) -> None:
    publish(service, dist / "dataset")
    source = f"{OWNER}/kagglehms-prepare"
    path = dist / "kernels/infer/kernel-metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"kernel_sources": [source]}))
    if states is not None:
        service.running[source] = Session(states)
    with pytest.raises(RunError, match=f"reads the output of {source}, which {says}"):
        push(dist, ["infer"], kaggle, tmp_path / "out")
    assert not service.called("SaveKernel")


def test_a_kernel_that_fails_says_why(service: LoopbackKaggle, kaggle: Kaggle) -> None:
    service.running[KERNEL] = Session(["RUNNING", "ERROR"], failure="Your notebook ran out of memory")
    with pytest.raises(RunError, match="ended as ERROR: Your notebook ran out of memory"):
        follow_kernel(KERNEL, kaggle)


def test_the_log_of_a_kernel_that_failed_is_fetched_beside_what_the_session_before_left(
    service: LoopbackKaggle, dist: Path, kaggle: Kaggle, lines: list[str], tmp_path: Path
) -> None:
    service.running[KERNEL] = Session(["COMPLETE"], outputs={"submission.csv": SUBMISSION})
    fetch_all(dist, ["infer"], tmp_path / "out", kaggle)
    for log in ("error: what was mounted is stale\n", "error: no space\n"):
        service.running[KERNEL] = Session(["ERROR"], failure="exit code 1", log=log)
        with pytest.raises(RunError, match="ended as ERROR: exit code 1"):
            fetch_all(dist, ["infer"], tmp_path / "out", kaggle)
        assert (tmp_path / "out/infer.failed/kagglehms-infer.log").read_text() == log
        assert str(tmp_path / "out/infer.failed") in lines[-1]
    assert (tmp_path / "out/infer/submission.csv").read_bytes() == SUBMISSION
    assert sorted(os.listdir(tmp_path / "out")) == ["infer", "infer.failed"]


def test_recipes_that_failed_on_kaggle_are_told_and_what_others_left_is_fetched(
    service: LoopbackKaggle, dist: Path, kaggle: Kaggle, tmp_path: Path
) -> None:
    ending = b'{"left": [], "problems": ["global-stats: it cannot be"]}'
    session = Session(["COMPLETE"], outputs={"runs/session.json": ending, "runs/baseline/run.json": b"{}"})
    service.running[f"{OWNER}/kagglehms-train"] = session
    with pytest.raises(RunError, match="out/train: global-stats: it cannot be"):
        fetch(dist / "kernels/train", tmp_path / "out", kaggle)
    assert (tmp_path / "out/train/runs/baseline/run.json").read_bytes() == b"{}"
    assert os.listdir(tmp_path / "out") == ["train"]


def test_a_disk_that_fails_at_the_end_of_a_fetch_costs_nothing(
    service: LoopbackKaggle, dist: Path, kaggle: Kaggle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new output cannot take the place of the old one, which has been moved aside."""
    service.running[KERNEL] = Session(["COMPLETE"], outputs={"submission.csv": SUBMISSION})
    fetch(dist / "kernels/infer", tmp_path / "out", kaggle)
    rename, place = Path.rename, tmp_path / "out/infer"

    def broken(path: Path, target: Path) -> Path:
        if Path(target) == place and not place.exists() and not path.name.endswith(".old"):
            raise OSError(errno.EIO, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", broken)
    with pytest.raises(RunError, match="cannot be written"):
        fetch(dist / "kernels/infer", tmp_path / "out", kaggle)
    assert (place / "submission.csv").read_bytes() == SUBMISSION
    assert os.listdir(tmp_path / "out") == ["infer"]


def test_a_kernel_that_does_not_end(service: LoopbackKaggle, kaggle: Kaggle) -> None:
    service.running[KERNEL] = Session(["RUNNING"])
    with pytest.raises(RunError, match="is RUNNING after"):
        follow_kernel(KERNEL, less_patient(kaggle, run_s=0.0))


def test_the_end_of_an_older_session_is_not_taken_for_the_new_one(
    service: LoopbackKaggle, kaggle: Kaggle
) -> None:
    service.running[KERNEL] = Session(["COMPLETE", "COMPLETE", "QUEUED", "ERROR"], failure="the new one")
    with pytest.raises(RunError, match="the new one"):
        follow_kernel(KERNEL, kaggle, stale=KernelState("COMPLETE", ""))
    service.running[KERNEL] = Session(["COMPLETE"])
    settled = less_patient(kaggle, settle_s=0.0)
    follow_kernel(KERNEL, settled, stale=KernelState("COMPLETE", ""))  # so long after the push, it is


@pytest.mark.parametrize(
    ("outputs", "says"),
    [
        ({"other.csv": b"x"}, "left no submission, only"),
        ({"submission.csv": b"<html>gone"}, "is not a submission"),
    ],
)
def test_an_output_that_is_no_submission(
    service: LoopbackKaggle, dist: Path, kaggle: Kaggle, tmp_path: Path, outputs: dict[str, bytes], says: str
) -> None:
    service.running[KERNEL] = Session(["COMPLETE"], outputs=outputs)
    with pytest.raises(RunError, match=says):
        fetch(dist / "kernels/infer", tmp_path / "out", kaggle)


def marker_bytes(**content: Any) -> bytes:
    marker = Marker(**({"rows": 2, "models": ["baseline fold 0"]} | content))
    return json.dumps({"status": marker.status} | asdict(marker)).encode()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            {"problems": ["no row was predicted, all 2 keep the prior"]},
            "no row was predicted, all 2 keep the prior",
        ),
        ({"models": []}, "no model took part"),
    ],
)
def test_a_run_that_predicted_nothing_is_not_to_be_submitted(
    service: LoopbackKaggle,
    dist: Path,
    kaggle: Kaggle,
    lines: list[str],
    tmp_path: Path,
    content: dict[str, Any],
    says: str,
) -> None:
    """Its session is complete and it left a submission: only its marker tells. The good run of before is kept."""
    publish(service, dist / "dataset")
    good = SUBMISSION + b"2,1,0,0,0,0,0\n"
    service.running[KERNEL] = Session(["COMPLETE"], outputs={"submission.csv": good})
    fetch_all(dist, ["infer"], tmp_path / "out", kaggle)
    del service.running[KERNEL]
    outputs = {"submission.csv": SUBMISSION, "scored-run.json": marker_bytes(**content)}
    service.sessions[KERNEL] = Session(outputs=outputs)
    with pytest.raises(RunError, match=f"do not submit it: {says}") as refused:
        push(dist, ["infer"], kaggle, tmp_path / "out")
    assert str(tmp_path / "out/infer.failed") in str(refused.value)
    assert "competitions submit" not in "\n".join(lines)
    service.running[KERNEL] = Session(["COMPLETE"], outputs=outputs)
    with pytest.raises(RunError, match=f"do not submit it: {says}"):
        fetch_all(dist, ["infer"], tmp_path / "out", kaggle)
    assert (tmp_path / "out/infer.failed/submission.csv").read_bytes() == SUBMISSION
    assert (tmp_path / "out/infer/submission.csv").read_bytes() == good


@pytest.mark.parametrize(
    ("marker", "follow", "says"),
    [
        (marker_bytes(left_out={"baseline fold 1": "time"}), True, "submit it: "),
        (
            None,
            True,
            "there is no scored-run.json to say what it is made from; look at it, then submit it: ",
        ),
        (b"{}", True, "there is no scored-run.json to say what it is made from"),
        (None, False, "once `kagglehms fetch infer --wait` finds nothing wrong with it, submit it: "),
    ],
)
def test_what_is_known_of_a_run_stands_before_the_command_that_submits_it(
    service: LoopbackKaggle,
    dist: Path,
    kaggle: Kaggle,
    lines: list[str],
    tmp_path: Path,
    marker: bytes | None,
    follow: bool,
    says: str,
) -> None:
    publish(service, dist / "dataset")
    outputs = {"submission.csv": SUBMISSION} | ({"scored-run.json": marker} if marker else {})
    service.sessions[KERNEL] = Session(outputs=outputs)
    push(dist, ["infer"], kaggle, tmp_path / "out", follow=follow)
    assert lines[-1].startswith(says)
    assert f"kaggle competitions submit {SLUG} -f submission.csv -k {KERNEL} -v 1 " in lines[-1]


def test_a_failed_fetch_keeps_what_was_there(
    service: LoopbackKaggle, dist: Path, kaggle: Kaggle, tmp_path: Path
) -> None:
    service.running[KERNEL] = Session(["COMPLETE"], outputs={"submission.csv": SUBMISSION})
    fetch(dist / "kernels/infer", tmp_path / "out", kaggle)
    service.faults["ListKernelSessionOutput"] = [BROKEN] * 9
    with pytest.raises(ClientError, match="cannot be fetched"):
        fetch(dist / "kernels/infer", tmp_path / "out", kaggle)
    assert (tmp_path / "out/infer/submission.csv").read_bytes() == SUBMISSION
    assert os.listdir(tmp_path / "out") == ["infer"]


def test_status_and_fetch_from_the_command_line(
    service: LoopbackKaggle, dist: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(service, dist / "dataset")
    service.running[KERNEL] = Session(["RUNNING"])
    assert main(["fetch", "infer", "--dist", str(dist), "--out", str(tmp_path / "out")]) == EXIT_FAILURE
    assert "give --wait" in capsys.readouterr().err
    service.running[KERNEL] = Session(["ERROR"], failure="no space")
    assert main(["status", "--dist", str(dist)]) == EXIT_FAILURE
    assert f"kernel {KERNEL}: ERROR, no space" in capsys.readouterr().out
    service.running[KERNEL] = Session(["COMPLETE"], outputs={"submission.csv": SUBMISSION})
    assert main(["fetch", "--dist", str(dist), "--out", str(tmp_path / "out")]) == EXIT_OK
    assert (tmp_path / "out/infer/submission.csv").read_bytes() == SUBMISSION


def test_what_programs_read_of_kaggle_is_json(
    service: LoopbackKaggle,
    dist: Path,
    kaggle: Kaggle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("kagglehms.kaggle.service.kaggle", lambda: replace(kaggle, say=say))
    words = ["--dist", str(dist), "--json"]
    assert main(["push", "infer", "--out", str(tmp_path / "out"), "--time-limit", "8.5h", *words]) == EXIT_OK
    captured = capsys.readouterr()
    (pushed,) = json.loads(captured.out)
    assert (pushed["name"], pushed["ref"], pushed["version"]) == ("infer", KERNEL, 1)
    assert "kaggle competitions submit" in captured.err
    (asked,) = service.called("SaveKernel")
    assert asked["sessionTimeoutSeconds"] == 8.5 * 3600
    assert (tmp_path / "out/infer/submission.csv").read_bytes() == SUBMISSION
    assert main(["push", "dataset", *words]) == EXIT_OK
    assert json.loads(capsys.readouterr().out) == []
    assert main(["status", *words]) == EXIT_OK
    standings = [Standing(**content) for content in json.loads(capsys.readouterr().out)]
    stand = [(one.kind, one.ref, one.ok) for one in standings]
    assert stand[0] == ("dataset", BUNDLE, True)
    assert ("kernel", KERNEL, True) in stand
    assert main(["fetch", "--out", str(tmp_path / "again"), *words]) == EXIT_OK
    fetched = json.loads(capsys.readouterr().out)["infer"]
    assert str(tmp_path / "again/infer/submission.csv") in fetched


@pytest.mark.slow
def test_build_and_push_in_one_command(service: LoopbackKaggle, tmp_path: Path) -> None:
    """The person's command; a dataset that is not there in the end is its exit code, and one line."""
    make_run(tmp_path / "runs", "baseline")
    command = [sys.executable, str(Path(__file__).parents[2] / "build.py"), "--push", "dataset"]
    refused = {
        "CreateDataset": Fault(200, {"status": "error", "error": "slug is taken"}),
        "PUT LICENSE": Fault(403),
    }
    for (where, fault), named in zip(refused.items(), ("slug is taken", "LICENSE"), strict=True):
        service.faults = {where: [fault] * 9}
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == EXIT_FAILURE
        assert done.stderr.startswith("kagglehms: error: the ")
        assert done.stderr.count("\n") == 1
        assert named in done.stderr
        assert "push again" in done.stderr
        assert all("LICENSE" not in version for version in service.datasets.get(BUNDLE, []))


_ALONE = """
import ctypes, fcntl, os, socket, struct, sys
uid, gid = os.getuid(), os.getgid()
if ctypes.CDLL(None).unshare(0x10000000 | 0x40000000):
    sys.exit(77)
try:
    open("/proc/self/setgroups", "w").write("deny")
    open("/proc/self/uid_map", "w").write(f"0 {uid} 1")
    open("/proc/self/gid_map", "w").write(f"0 {gid} 1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        flags = struct.unpack("16sh", fcntl.ioctl(s, 0x8913, struct.pack("16sh", b"lo", 0)))[1]
        fcntl.ioctl(s, 0x8914, struct.pack("16sh", b"lo", flags | 1))
except OSError:
    sys.exit(77)
os.execv(sys.executable, [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *sys.argv[1:]])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="network namespaces are Linux's")
def test_the_whole_way_where_there_is_no_network(tmp_path: Path) -> None:
    test = f"{__file__}::{test_the_whole_way_and_then_nothing_to_upload.__name__}"
    command = [sys.executable, "-c", _ALONE, "--rootdir", str(Path(__file__).parents[2]), test]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False,
        env=os.environ | {"PYTEST_DEBUG_TEMPROOT": str(tmp_path)},
    )  # fmt: skip
    if done.returncode == 77:
        pytest.skip("this system allows no user namespaces")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout

"""The real Kaggle client against a service of our own: what it says, and what that is taken for."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback_kaggle import (
    BROKEN,
    TOO_MANY,
    Fault,
    LoopbackKaggle,
    Session,
    loopback_kaggle,
    reword_the_client,
)
from strangers import work_among_strangers

from kagglehms.bundle.manifest import MANIFEST
from kagglehms.errors import RunError
from kagglehms.kaggle.answers import ClientError
from kagglehms.kaggle.client import DatasetState, KaggleClient
from kagglehms.kaggle.command import run_client
from kagglehms.packing.build import Built

OWNER = "some-owner"
BUNDLE = f"{OWNER}/kagglehms-bundle"
KERNEL = f"{OWNER}/kagglehms-infer"
WEIGHTS = "baseline.fold0.safetensors"


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackKaggle]:
    with loopback_kaggle(tmp_path / "kaggle", OWNER) as (service, environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield service


def names(built: Built) -> list[str]:
    return [*built.manifest.files, MANIFEST]


def test_a_dataset_is_created_listed_and_given_back(service: LoopbackKaggle, built: Built) -> None:
    lines: list[str] = []
    client = KaggleClient(lines.append)
    assert client.dataset(BUNDLE) == DatasetState("absent", 0)
    client.upload(built.dataset, None, names(built))
    assert client.dataset(BUNDLE) == DatasetState("ready", 1)
    assert client.dataset_files(BUNDLE) == {
        name: (built.dataset / name).stat().st_size for name in names(built)
    }
    assert client.dataset_manifest(BUNDLE) == (built.dataset / MANIFEST).read_bytes()
    (files,) = service.datasets[BUNDLE]
    assert files == {name: (built.dataset / name).read_bytes() for name in names(built)}
    assert service.called("CreateDataset")[0]["isPrivate"] is True
    assert any("LICENSE" in line for line in lines)


def test_a_further_version_with_its_note(service: LoopbackKaggle, built: Built) -> None:
    service.datasets[BUNDLE] = [{}]
    service.faults["StartBlobUpload"] = [TOO_MANY]  # this one the client tries again itself
    KaggleClient().upload(built.dataset, "a note", names(built))
    assert service.called("CreateDatasetVersion")[0]["body"]["versionNotes"] == "a note"
    assert len(service.datasets[BUNDLE]) == 2


def test_a_further_version_that_is_refused_with_exit_code_0(service: LoopbackKaggle, built: Built) -> None:
    service.datasets[BUNDLE] = [{}]
    service.faults["CreateDatasetVersion"] = [
        Fault(200, {"status": "error", "error": "The file count exceeds"})
    ]
    with pytest.raises(ClientError, match="not uploaded.*The file count exceeds"):
        KaggleClient().upload(built.dataset, "a note", names(built))


def test_a_file_that_does_not_arrive_is_named(service: LoopbackKaggle, built: Built) -> None:
    service.faults[f"PUT {WEIGHTS}"] = [Fault(400)] * 9
    with pytest.raises(ClientError, match=f"{WEIGHTS}.*push again") as caught:
        KaggleClient().upload(built.dataset, None, names(built))
    assert "\n" not in str(caught.value)
    assert all(WEIGHTS not in version for version in service.datasets.get(BUNDLE, []))


def test_an_upload_that_kaggle_has_given_up_is_begun_anew(service: LoopbackKaggle, built: Built) -> None:
    service.faults[f"PUT {WEIGHTS}"] = [Fault(400)] * 9
    with pytest.raises(ClientError):
        KaggleClient().upload(built.dataset, None, names(built))
    service.faults.clear()
    note = "again" if BUNDLE in service.datasets else None
    assert KaggleClient().upload(built.dataset, note, names(built)) is True
    assert service.datasets[BUNDLE][-1] == {
        name: (built.dataset / name).read_bytes() for name in names(built)
    }


def test_an_upload_in_words_that_are_not_known_is_left_to_be_looked_at(
    service: LoopbackKaggle, built: Built, monkeypatch: pytest.MonkeyPatch
) -> None:
    reword_the_client(monkeypatch)
    assert KaggleClient().upload(built.dataset, None, names(built)) is False
    assert sorted(service.datasets[BUNDLE][0]) == sorted(names(built))


def test_a_push_in_words_that_are_not_known_is_no_failure_to_push(
    service: LoopbackKaggle, built: Built, monkeypatch: pytest.MonkeyPatch
) -> None:
    reword_the_client(monkeypatch)
    with pytest.raises(ClientError, match="look at its page before you push again"):
        KaggleClient().push_kernel(built.kernels[0])


def test_nothing_in_the_working_folder_is_executed(
    service: LoopbackKaggle, built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    witness = work_among_strangers(tmp_path, monkeypatch)
    assert KaggleClient().upload(built.dataset, None, names(built)) is True
    assert KaggleClient().dataset(BUNDLE) == DatasetState("ready", 1)
    assert not witness.exists()


@pytest.mark.parametrize(
    ("method", "fault", "says"),
    [
        ("CreateDataset", Fault(200, {"status": "error", "error": "out of quota"}), "out of quota"),
        ("CreateDataset", BROKEN, "500 - An internal server error"),
        ("StartBlobUpload", BROKEN, "500 - An internal server error"),
    ],
)
def test_a_creation_that_fails(
    service: LoopbackKaggle, built: Built, method: str, fault: Fault, says: str
) -> None:
    service.faults[method] = [fault]
    with pytest.raises(ClientError, match=says) as caught:
        KaggleClient().upload(built.dataset, None, names(built))
    assert "the dataset was not uploaded" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert BUNDLE not in service.datasets


def test_a_kernel_is_pushed_with_what_its_metadata_say(service: LoopbackKaggle, built: Built) -> None:
    pushed = KaggleClient().push_kernel(built.kernels[0], time_limit_s=600)
    assert pushed.version == 1
    assert pushed.url.endswith("kagglehms-infer")
    (sent,) = service.called("SaveKernel")
    assert sent["text"] == (built.kernels[0] / "infer.py").read_text()
    assert sent["datasetDataSources"] == [BUNDLE]
    assert sent["machineShape"] == "NvidiaTeslaT4"
    assert sent["sessionTimeoutSeconds"] == 600
    assert sent.get("enableInternet") in {False, None}
    assert sent["isPrivate"] is True


SAVED = {"versionNumber": 3, "url": "http://localhost/code", "error": ""}


@pytest.mark.parametrize(
    ("fault", "says", "limited", "transient"),
    [
        (
            Fault(200, {"error": "Maximum GPU sessions"}),
            "was not pushed.*Maximum GPU sessions",
            False,
            False,
        ),
        (Fault(200, SAVED | {"invalidDatasetSources": [BUNDLE]}), "without some of its inputs", False, False),
        (Fault(200, SAVED | {"invalidKernelSources": ["a/b"]}), "without some of its inputs", False, False),
        (
            Fault(200, SAVED | {"invalidCompetitionSources": ["x"]}),
            "without some of its inputs",
            False,
            False,
        ),
        (TOO_MANY, "429", True, True),
        (BROKEN, "500", False, True),
        (Fault(200, {"url": 7}), "cannot tell whether kernel infer was pushed", False, False),
        (Fault(401, {"code": 401, "message": "Unauthenticated"}), "Authentication required", False, False),
    ],
)
def test_a_push_that_fails_whatever_the_exit_code(
    service: LoopbackKaggle, built: Built, fault: Fault, says: str, limited: bool, transient: bool
) -> None:
    service.faults["SaveKernel"] = [fault]
    with pytest.raises(ClientError, match=says) as caught:
        KaggleClient().push_kernel(built.kernels[0])
    assert (caught.value.limited, caught.value.transient) == (limited, transient)
    assert "\n" not in str(caught.value)
    assert "0" * 32 not in str(caught.value)


def test_a_kernels_states_and_its_failure(service: LoopbackKaggle) -> None:
    client = KaggleClient()
    with pytest.raises(ClientError, match="cannot determine"):
        client.kernel(KERNEL)
    service.running[KERNEL] = Session(["RUNNING", "ERROR"], failure="out of memory")
    state = client.kernel(KERNEL)
    assert (state.status, state.failure, state.ended) == ("RUNNING", "", False)
    state = client.kernel(KERNEL)
    assert (state.status, state.failure, state.ended) == ("ERROR", "out of memory", True)


def test_outputs_and_log(service: LoopbackKaggle, tmp_path: Path) -> None:
    service.running[KERNEL] = Session(
        outputs={"submission.csv": b"x\n", "deep/er.bin": b"\0\1"}, log="hello\n"
    )
    files = KaggleClient().kernel_output(KERNEL, tmp_path / "out")
    found = {path.relative_to(tmp_path / "out").as_posix(): path.read_bytes() for path in files}
    assert found == {"submission.csv": b"x\n", "deep/er.bin": b"\0\1", "kagglehms-infer.log": b"hello\n"}
    service.running[KERNEL] = Session(log="")
    with pytest.raises(ClientError, match="cannot be fetched"):
        KaggleClient().kernel_output(KERNEL, tmp_path / "none")


@pytest.mark.parametrize("fault", [BROKEN, TOO_MANY, Fault(200, {"status": 7}), Fault(503)])
def test_a_state_that_cannot_be_told_is_no_absence(service: LoopbackKaggle, fault: Fault) -> None:
    service.datasets[BUNDLE] = [{}]
    service.faults["GetDatasetStatus"] = [fault]
    with pytest.raises(ClientError, match=f"cannot determine the state of dataset {BUNDLE}"):
        KaggleClient().dataset(BUNDLE)


def test_a_private_dataset_that_is_not_there(service: LoopbackKaggle) -> None:
    message = "403 - Forbidden - Permission 'datasets.get' was denied"
    service.faults["GetDatasetStatus"] = [Fault(403, {"code": 403, "message": message})]
    assert KaggleClient().dataset(BUNDLE).status == "absent"


def test_a_client_that_does_not_end_is_ended(
    service: LoopbackKaggle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "answer", lambda *_: time.sleep(8) or Fault(200))
    with pytest.raises(ClientError, match="did not end within 3 s") as caught:
        KaggleClient(call_s=3).dataset(BUNDLE)
    assert caught.value.transient


def test_whether_the_client_is_installed_is_the_childs_to_say(
    service: LoopbackKaggle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client runs in a Python that imports from other folders than this one."""
    service.datasets[BUNDLE] = [{}]
    with monkeypatch.context() as here:
        here.setitem(sys.modules, "kaggle", None)  # cannot be imported here, and can be there
        assert KaggleClient().dataset(BUNDLE) == DatasetState("ready", 1)
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare/sitecustomize.py").write_text("import sys; sys.modules['kaggle'] = None")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "bare"))
    assert importlib.util.find_spec("kaggle") is not None  # and the other way round
    with pytest.raises(RunError, match="the Kaggle client is not installed for .*; pip install kaggle"):
        KaggleClient().dataset(BUNDLE)


def test_without_credentials(service: LoopbackKaggle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAGGLE_USERNAME")
    monkeypatch.delenv("KAGGLE_KEY")
    with pytest.raises(ClientError, match="Authentication required|kaggle auth login"):
        KaggleClient().kernel(KERNEL)
    assert service.calls == []


def test_the_client_is_given_its_own_secrets_and_no_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "PYTHONSTARTUP", "PYTHONWARNINGS", "LD_PRELOAD_"):
        monkeypatch.setenv(name, "of others")
    kept = {"KAGGLE_KEY": "its own", "https_proxy": "http://127.0.0.1:9", "PATH": os.environ["PATH"]}
    for name, value in kept.items():
        monkeypatch.setenv(name, value)
    code = "import json, os; print(json.dumps(dict(os.environ)))"
    monkeypatch.setattr("kagglehms.kaggle.command.COMMAND", (sys.executable, "-P", "-c", code))
    given = json.loads(run_client([], 60.0).text)
    assert "of others" not in given.values()
    assert kept.items() <= given.items()
    assert given["PYTHONSAFEPATH"] == "1"

"""A state comes back as it was, or is refused with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kagglehms.errors import RunError
from kagglehms.training import resume as module
from kagglehms.training.resume import State, code_version, read_state, write_state

IDENTITY = {"recipe": "a" * 64, "code": "b" * 12}


def a_state() -> State:
    weight = torch.arange(6.0).reshape(2, 3)
    tensors = {
        "model/weight": weight,
        "model/tied": weight,  # shares its memory
        "model/strided": weight.T,
        "optimizer/0/step": torch.tensor(3.0),
        "predictions/NK": torch.rand(2, 6, dtype=torch.float64),
    }
    return State(tensors, {"stage": 1, "history": [{"score": 0.1 + 0.2}], "best": None}, IDENTITY)


def test_a_state_comes_back_bit_for_bit(tmp_path: Path) -> None:
    before = a_state()
    write_state(tmp_path / "s", before)
    after = read_state(tmp_path / "s", IDENTITY)
    assert after is not None
    assert after.numbers == before.numbers
    assert set(after.tensors) == set(before.tensors)
    for name, value in before.tensors.items():
        assert torch.equal(after.tensors[name], value)
    assert set(after.part("model")) == {"weight", "tied", "strided"}
    assert set(after.part("optimizer")) == {"0/step"}


def test_no_state_is_no_error(tmp_path: Path) -> None:
    assert read_state(tmp_path / "s", IDENTITY) is None


def test_all_that_has_changed_is_named(tmp_path: Path) -> None:
    write_state(tmp_path / "s", a_state())
    with pytest.raises(
        RunError, match=r"other recipe .a{12} there, c{12} now., folds .nothing there, d there?"
    ):
        read_state(tmp_path / "s", IDENTITY | {"recipe": "c" * 64, "folds": "d there"})


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_a_truncated_state_is_refused(tmp_path: Path, keep: int) -> None:
    write_state(tmp_path / "s", a_state())
    (tmp_path / "s").write_bytes((tmp_path / "s").read_bytes()[:keep])
    with pytest.raises(RunError, match="cannot be read .*; delete it to train this fold from its start"):
        read_state(tmp_path / "s", IDENTITY)


def test_another_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_state(tmp_path / "s", a_state())
    monkeypatch.setattr(module, "FORMAT", "99")
    with pytest.raises(RunError, match=r"other format of the state .1 there, 99 now"):
        read_state(tmp_path / "s", IDENTITY)


def test_the_code_version_is_that_of_this_library() -> None:
    import kagglehms

    assert code_version().endswith(f"({kagglehms.__version__})")
    assert code_version() == code_version.__wrapped__()

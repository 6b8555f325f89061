"""Whether a rehearsal can be isolated here, found out by trying, and what to do on machines where it cannot."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kagglehms.rehearsal import isolation, launching, scratch


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "outside of this container"),
        ({"kernel/unprivileged_userns_clone": "0"}, "sysctl kernel.unprivileged_userns_clone=1"),
        (
            {"kernel/unprivileged_userns_clone": "1", "user/max_user_namespaces": "500"},
            "outside of this container",
        ),
        ({"user/max_user_namespaces": "0"}, "sysctl user.max_user_namespaces=15000"),
        (
            {"kernel/apparmor_restrict_unprivileged_userns": "1", "user/max_user_namespaces": "500"},
            "sysctl kernel.apparmor_restrict_unprivileged_userns=0",
        ),
    ],
)
def test_only_a_setting_that_forbids_is_named_as_the_remedy(
    settings: dict[str, str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolation.platform, "system", lambda: "Linux")
    for name, value in settings.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"{value}\n")
    remedy = isolation.how_to_allow_namespaces(tmp_path)
    assert says in remedy
    assert all(
        name.replace("/", ".") in remedy for name in settings if "sysctl" in says and settings[name] in "01"
    ) or ("sysctl" not in remedy)


def test_the_remedy_names_no_setting_that_this_machine_lacks() -> None:
    for name in re.findall(r"sysctl ([\w.]+)=", isolation.how_to_allow_namespaces()):
        assert Path("/proc/sys", *name.split(".")).is_file()


def test_a_full_disk_for_temporary_files_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(scratch.tempfile, "mkdtemp", full)
    assert "No space left" in (isolation.namespaces_unavailable() or "")


def test_namespaces_are_probed_by_running_something(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the probe says is what a rehearsal's launcher says; a launcher that refuses is passed on."""
    report = b'{"unavailable": "unshare: Operation not permitted"}'
    monkeypatch.setattr(launching, "LAUNCHER", f"import os, sys; os.write(int(sys.argv[3]), {report!r})")
    assert "Operation not permitted" in (isolation.namespaces_unavailable() or "")
    monkeypatch.setattr(launching, "LAUNCHER", "raise SystemExit(3)")
    assert isolation.namespaces_unavailable() is not None

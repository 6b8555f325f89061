"""Finds out whether this machine can isolate a rehearsal by namespaces, and what to do if it cannot."""

from __future__ import annotations

import platform
from pathlib import Path

from kagglehms.errors import RunError
from kagglehms.rehearsal.launching import launch
from kagglehms.rehearsal.scratch import scratch_folder
from kagglehms.rehearsal.spec import IsolationUnavailableError, Spec

_SWITCHES = {
    "kernel.unprivileged_userns_clone": ("0", "1"),  # Debian's
    "kernel.apparmor_restrict_unprivileged_userns": ("1", "0"),  # Ubuntu's
    "user.max_user_namespaces": ("0", "15000"),
}
"""Settings that can forbid user namespaces: the value with which each does, and one with which it does not."""


def namespaces_unavailable() -> str | None:
    """Run `true` as a rehearsal would run a kernel.

    Returns:
        Why a rehearsal cannot be isolated by namespaces; None if it can.
    """
    try:
        with scratch_folder() as root:
            spec = Spec(["/bin/true"], environment={}, folder="/tmp", timeout_s=20, new_root=str(root))
            outcome = launch(spec)
    except (OSError, RunError, IsolationUnavailableError) as error:
        return str(error)
    return None if outcome.exit_code == 0 else f"`true` ended with code {outcome.exit_code} in them"


def how_to_allow_namespaces(settings: Path = Path("/proc/sys")) -> str:
    """Return what to do on this very machine.

    Args:
        settings: folder of the Linux kernel's settings.
    """
    if platform.system() != "Linux":
        return "rehearse on Linux"
    for name, (forbids, allows) in _SWITCHES.items():
        try:
            value = settings.joinpath(*name.split(".")).read_text(encoding="utf-8").strip()
        except OSError:  # this system has no such setting
            continue
        if value == forbids:
            return f"allow them: `sudo sysctl {name}={allows}`"
    return "run outside of this container or sandbox, or allow `unshare` and `mount` in it"

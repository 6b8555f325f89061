"""Sessions of kernels on Kaggle: their state, and waiting for their end."""

from __future__ import annotations

import time

from kagglehms.errors import RunError
from kagglehms.kaggle.answers import ClientError
from kagglehms.kaggle.client import KernelState
from kagglehms.kaggle.service import Kaggle


class SessionError(RunError):
    """A kernel's session that failed or was cancelled."""


def last_session(ref: str, kaggle: Kaggle) -> KernelState | None:
    """Return the state of a kernel's latest session; None if the kernel was never pushed.

    Args:
        ref: owner/slug of the kernel.
        kaggle: service to ask.

    Raises:
        ClientError: the state cannot be determined.
    """
    try:
        return kaggle.ask(lambda: kaggle.client.kernel(ref))
    except ClientError as error:
        if error.unknown:
            return None
        raise


def follow_kernel(ref: str, kaggle: Kaggle, stale: KernelState | None = None) -> None:
    """Wait for the end of a kernel's session.

    Args:
        ref: owner/slug of the kernel.
        kaggle: service to ask.
        stale: state of the kernel before it was pushed. As long as Kaggle shows nothing but an end, it may be showing
            that of the older session.

    Raises:
        SessionError: the session failed or was cancelled.
        RunError: it did not end in time.
    """
    start, shown, moved = time.monotonic(), "", stale is None or not stale.ended
    while True:
        state = kaggle.ask(lambda: kaggle.client.kernel(ref))
        passed_s = time.monotonic() - start
        moved = moved or not state.ended or passed_s >= kaggle.patience.settle_s
        if state.status != shown and moved:
            shown = state.status
            kaggle.say(f"kernel {ref}: {shown} after {passed_s:.0f} s")
        if moved and state.ended:
            if not state.ended_well:
                reason = state.failure or "no reason given"
                raise SessionError(
                    f"kernel {ref} ended as {state.status}: {reason}; `kaggle kernels logs {ref}` says more"
                )
            return
        if passed_s >= kaggle.patience.run_s:
            raise RunError(
                f"kernel {ref} is {state.status} after {passed_s:.0f} s; `kagglehms fetch --wait` keeps waiting"
            )
        time.sleep(kaggle.patience.poll_s)

"""A pytest plugin: each test's outcome is written down when it is known, so that a run that is cut off is not lost.

`KAGGLEHMS_REPORTS` names the file, one JSON line a test.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

VARIABLE = "KAGGLEHMS_REPORTS"


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ or VARIABLE not in os.environ:
        return  # the process that the workers report to writes
    if report.when != "call" and report.outcome == "passed":
        return
    line = {
        "test": report.nodeid,
        "outcome": report.outcome if report.when == "call" or report.skipped else "error",
        "seconds": round(report.duration, 2),
        "properties": dict(report.user_properties),
        "why": "" if report.passed else str(report.longrepr)[-3000:],
    }
    with Path(os.environ[VARIABLE]).open("a") as file:
        file.write(json.dumps(line) + "\n")

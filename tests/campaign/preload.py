"""What commands import, for the server that their processes are forked from; imports alone, which start no thread."""

from __future__ import annotations

import gc

import edfio  # noqa: F401 - what commands import, here once for all of them
import matplotlib.backends.backend_svg  # noqa: F401
import scipy.optimize
import scipy.signal  # noqa: F401

import kagglehms.bundle.predictor
import kagglehms.cli.data_commands
import kagglehms.cli.kaggle_commands
import kagglehms.cli.recording_commands
import kagglehms.cli.report_commands
import kagglehms.cli.training_commands
import kagglehms.data.preparing
import kagglehms.packing.build
import kagglehms.recordings.folders
import kagglehms.report.page
import kagglehms.report.timeline
import kagglehms.runs.blend_fitting
import kagglehms.runs.ladder
import kagglehms.runs.out_of_fold
import kagglehms.simulator.competition
import kagglehms.training.loop  # noqa: F401

gc.collect()
gc.freeze()  # a collection would touch, and so copy, every page that a command's process shares with the server

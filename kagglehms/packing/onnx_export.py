"""A fold's network as an ONNX file, for runtimes without PyTorch, compared with the PyTorch network as it is written.

The packages for it are optional: `pip install kagglehms[onnx]`. The same weights give the same bytes, so what PyTorch
notes about the machine and the source of each operator is removed.
"""

from __future__ import annotations

import os
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kagglehms.bundle.manifest import Onnx
from kagglehms.data.competition import CHANNELS, N_TIMES
from kagglehms.data.readers import encode_eeg, encode_spectrogram
from kagglehms.errors import UsageError, first_line
from kagglehms.inputs.drawing import stack
from kagglehms.inputs.layouts import CROP_SHAPES, Crop, Normaliser
from kagglehms.training.checkpoint import load_weights
from kagglehms.training.models import make_model
from kagglehms.training.recipe import Recipe

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

OPSET = 18
"""Version of ONNX's operators; the lowest that PyTorch's exporter writes without converting."""
INPUT, OUTPUT = "inputs", "logits"
"""Names of the only input and the only output of a file."""
LARGEST_DIFFERENCE = 1e-3
"""Difference between logits above which a file is not kept."""
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_N_COMPARED = 3
_EEG_STD_UV, _LOG_POWER_STD = 40.0, 2.0


class NotExportable(Exception):
    """The network cannot be written as an ONNX file; the message is the reason."""


def require_packages() -> None:
    """Make sure that the packages for ONNX are installed.

    Raises:
        UsageError: one of them is missing.
    """
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise UsageError(f"--onnx needs {', '.join(missing)}; pip install 'kagglehms[onnx]'")


def export_network(recipe: Recipe, weights: Path, path: Path) -> Onnx:
    """Write a fold's network as an ONNX file for any number of records, and compare it with the network.

    Args:
        recipe: recipe of the run.
        weights: .safetensors file of the fold.
        path: path of the new .onnx file.

    Returns:
        Entry of the manifest.

    Raises:
        NotExportable: an operator has no counterpart in ONNX, the logits are different, or the file depends on the
            number of records; nothing is left at `path`.
        DataError: the weights cannot be used.
    """
    network, _ = make_model(recipe)
    normaliser = load_weights(network, weights)
    inputs = noise_inputs(recipe, normaliser)
    try:
        _write(network.eval(), inputs, path)
        difference = _largest_difference(network, inputs, path)
        if not difference <= LARGEST_DIFFERENCE:
            raise NotExportable(f"its logits differ by {difference:.2g} from PyTorch's")
    except NotExportable:
        path.unlink(missing_ok=True)
        raise
    except (
        Exception
    ) as error:  # exporter and runtime can raise anything for an operator that they do not know
        path.unlink(missing_ok=True)
        raise NotExportable(first_line(error)) from error
    return Onnx(path.name, OPSET, difference)


def noise_inputs(recipe: Recipe, normaliser: Normaliser) -> NDArray[np.float32]:
    """Draw the inputs of three recordings of noise, as strong as EEG and its spectrograms are."""
    rng = np.random.default_rng(0)
    crops = [
        Crop(
            encode_spectrogram(rng.lognormal(0.0, _LOG_POWER_STD, CROP_SHAPES["kaggle"])),
            encode_eeg(rng.normal(0.0, _EEG_STD_UV, (N_TIMES, len(CHANNELS)))),
        )
        for _ in range(_N_COMPARED)
    ]
    return stack(crops, recipe.layout, normaliser)


def _write(network: nn.Module, inputs: NDArray[np.float32], path: Path) -> None:
    import onnx
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    example = torch.from_numpy(inputs[:2])  # a batch of one would become a constant of the file
    # Attention by its formula: fused kernels lay their results out in a way that ONNX's operators do not.
    with warnings.catch_warnings(), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        warnings.simplefilter("ignore")  # the exporter's own, about its internals
        program = torch.onnx.export(
            network,
            (example,),
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("records")},),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _remove_notes(model)
    onnx.save(model, path)


def _remove_notes(model: Any) -> None:
    """Remove what the exporter says about where an operator came from: paths and lines of source."""
    noted = [model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer]
    noted += [*model.graph.input, *model.graph.output, *model.functions]
    noted += [node for function in model.functions for node in function.node]
    for part in noted:
        del part.metadata_props[:]
        part.doc_string = ""


def _largest_difference(network: nn.Module, inputs: NDArray[np.float32], path: Path) -> float:
    """Return the largest difference of any logit, for all records at once and for one by itself."""
    import torch

    os.environ.setdefault(
        "ORT_DISABLE_TELEMETRY", "1"
    )  # ONNX Runtime would tell its makers about the session
    import onnxruntime

    onnxruntime.disable_telemetry_events()

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    differences = []
    for part in (inputs, inputs[:1]):
        with torch.inference_mode():
            wanted_BK = network(torch.from_numpy(part)).numpy()
        (found_BK,) = session.run([OUTPUT], {INPUT: part})
        differences.append(float(np.abs(found_BK - wanted_BK).max()))
    return float(np.max(differences))

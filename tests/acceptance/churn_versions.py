"""Versions of the sample model `churn` that differ, or that have a fault."""

import shutil

import numpy
import onnx
from onnx import numpy_helper

from server import MODELS

SAMPLE = MODELS / "churn" / "1"


def shift_log_odds(graph, by):
    """Adds something to the log-odds of the sample model, in place."""
    (intercepts,) = [constant for constant in graph.initializer if constant.name == "intercepts"]
    shifted = numpy_helper.to_array(intercepts) + numpy.float32(by)
    intercepts.CopyFrom(numpy_helper.from_array(shifted, "intercepts"))


def add_version(models, version, shift=0.0, state=None):
    """Another version of `churn`, whose log-odds are shifted; NaN makes a version that fails for
    every customer. Returns its folder."""
    folder = models / "churn" / str(version)
    folder.mkdir(parents=True)
    model = onnx.load(str(SAMPLE / "model.onnx"))
    shift_log_odds(model.graph, shift)
    onnx.save(model, str(folder / "model.onnx"))
    shutil.copy(SAMPLE / "model.toml", folder)
    if state is not None:
        manifest = folder / "model.toml"
        manifest.write_text(manifest.read_text().replace("[model]\n", f'[model]\nstate = "{state}"\n', 1))
    return folder

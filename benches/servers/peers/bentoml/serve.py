"""A BentoML service with one worker and no access log; else as its documentation starts out."""

import os
import sys

if __name__ == "__main__":
    os.environ["BENTOML_DO_NOT_TRACK"] = "True"
    bentoml = os.path.join(sys.prefix, "bin", "bentoml")
    os.execv(bentoml, [bentoml, "serve", "serve:Model", "--host", "127.0.0.1", "--port", os.environ["PORT"]])

import bentoml
import numpy as np
import onnxruntime


@bentoml.service(workers=int(os.environ["WORKERS"]), logging={"access": {"enabled": False}}, traffic={"timeout": 60})
class Model:
    def __init__(self):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])

    @bentoml.api
    async def predict(self, rows: list[list[float]]) -> dict:
        label, probabilities = self.session.run(["label", "probabilities"], {"X": np.array(rows, dtype=np.float32)})
        return {"label": label.tolist(), "probabilities": probabilities.tolist()}

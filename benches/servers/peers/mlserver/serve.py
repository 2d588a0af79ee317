"""MLServer with a runtime of our own on onnxruntime, in the server's process (WORKERS=0): with its pool of
workers, its default, every request crosses a queue between processes and is slower still."""

import json
import os
import pathlib
import sys

if __name__ == "__main__":
    folder, port = pathlib.Path(os.environ["WORKDIR"]), int(os.environ["PORT"])
    settings = {
        "debug": False,
        "host": "127.0.0.1",
        "http_port": port,
        "grpc_port": port + 1,
        "metrics_port": port + 2,
        "parallel_workers": int(os.environ["WORKERS"]),
    }
    model = {"name": "m", "implementation": "serve.OnnxModel", "parameters": {"uri": os.environ["MODEL"]}}
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps(model))
    os.environ["PYTHONPATH"] = str(pathlib.Path(__file__).resolve().parent)
    mlserver = os.path.join(sys.prefix, "bin", "mlserver")
    os.chdir(folder)
    os.execv(mlserver, [mlserver, "start", str(folder)])

import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class OnnxModel(MLModel):
    async def load(self) -> bool:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        rows = NumpyCodec.decode_input(payload.inputs[0])
        label, probabilities = self.session.run(["label", "probabilities"], {"X": rows})
        outputs = [
            NumpyCodec.encode_output("label", label),
            NumpyCodec.encode_output("probabilities", probabilities),
        ]
        return InferenceResponse(model_name=self.name, outputs=outputs)

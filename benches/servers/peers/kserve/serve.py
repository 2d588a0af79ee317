"""KServe's Python server with a model class of our own on onnxruntime; request and latency logs off."""

import logging
import os

import onnxruntime
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer
from kserve.logging import configure_logging


class OnnxModel(Model):
    def __init__(self, name):
        super().__init__(name)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])
        self.ready = True

    def load(self):
        return True

    async def predict(self, payload: InferRequest, headers=None, response_headers=None) -> InferResponse:
        label, probabilities = self.session.run(["label", "probabilities"], {"X": payload.inputs[0].as_numpy()})
        outputs = []
        for name, datatype, tensor in (("label", "INT64", label), ("probabilities", "FP32", probabilities)):
            output = InferOutput(name=name, shape=list(tensor.shape), datatype=datatype)
            output.set_data_from_numpy(tensor, binary_data=False)
            outputs.append(output)
        return InferResponse(response_id=payload.id or "1", model_name=self.name, infer_outputs=outputs)


if __name__ == "__main__":
    configure_logging()
    for name in ("uvicorn.access", "kserve", "kserve.trace"):
        logging.getLogger(name).setLevel(logging.WARNING)
    port = int(os.environ["PORT"])
    server = ModelServer(
        http_port=port,
        grpc_port=port + 1,
        workers=int(os.environ["WORKERS"]),
        enable_latency_logging=False,
    )
    server.start([OnnxModel("m")])

"""LitServe with one API server and one worker, without batching, access log or generated client."""

import os

import litserve
import numpy as np


class Api(litserve.LitAPI):
    def setup(self, device):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])

    def decode_request(self, request):
        return np.array(request["rows"], dtype=np.float32)

    def predict(self, rows):
        return self.session.run(["label", "probabilities"], {"X": rows})

    def encode_response(self, outputs):
        label, probabilities = outputs
        return {"label": label.tolist(), "probabilities": probabilities.tolist()}


if __name__ == "__main__":
    server = litserve.LitServer(Api(), accelerator="cpu", devices=1, workers_per_device=int(os.environ["WORKERS"]))
    server.run(
        host="127.0.0.1",
        port=int(os.environ["PORT"]),
        num_api_servers=1,
        log_level="warning",
        generate_client_file=False,
        access_log=False,
    )

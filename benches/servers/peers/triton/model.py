"""The model that Triton's Python backend runs."""

import os
import sys

# The interpreter inside Triton's stub does not look into the environment by itself.
sys.path.insert(0, os.environ["PACKAGES"])

import onnxruntime
import triton_python_backend_utils as backend


class TritonPythonModel:
    def initialize(self, _arguments):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])

    def execute(self, requests):
        answers = []
        for request in requests:
            rows = backend.get_input_tensor_by_name(request, "X").as_numpy()
            label, probabilities = self.session.run(["label", "probabilities"], {"X": rows})
            outputs = [backend.Tensor("label", label.reshape(-1, 1)), backend.Tensor("probabilities", probabilities)]
            answers.append(backend.InferenceResponse(outputs))
        return answers

"""Models of series, whose operators tract lends: python series_models.py

Writes series/NAME/{model.onnx, io.json} in the format of the zoo. They stand apart from it because the
crate refuses them without its feature `tract`.
"""

import io
import json
import pathlib

import numpy as np
import onnxruntime
import torch


class LastStep(torch.nn.Module):
    """A recurrent layer's last step through a linear layer."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.head = torch.nn.Linear(5, 2)

    def forward(self, steps):
        return self.head(self.layer(steps)[0][:, -1])


def models():
    yield "convolution", torch.nn.Sequential(
        torch.nn.Conv1d(3, 4, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.MaxPool1d(2),
        torch.nn.Conv1d(4, 6, 2),
        torch.nn.AdaptiveAvgPool1d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(6, 2),
    ), (3, 12)
    yield "lstm", LastStep(torch.nn.LSTM(3, 5, batch_first=True)), (8, 3)
    yield "gru", LastStep(torch.nn.GRU(3, 5, batch_first=True)), (8, 3)


def tensor(name, values):
    data = [float(str(np.float32(value))) for value in values.ravel()]
    return {"name": name, "type": "float", "shape": list(values.shape), "data": data}


def main():
    here = pathlib.Path(__file__).parent / "series"
    for name, model, shape in models():
        torch.manual_seed(0)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
        rows = np.random.default_rng(0).normal(size=(7, *shape)).astype(np.float32)
        file = io.BytesIO()
        torch.onnx.export(
            model.eval(),
            (torch.from_numpy(rows[:2]),),
            file,
            input_names=["series"],
            output_names=["scores"],
            dynamic_axes={"series": {0: "N"}, "scores": {0: "N"}},
            opset_version=17,
            dynamo=False,
        )
        session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
        (scores,) = session.run(None, {"series": rows})
        own = model(torch.from_numpy(rows)).detach().numpy()
        assert np.allclose(scores, own, atol=1e-5), name
        folder = here / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.onnx").write_bytes(file.getvalue())
        expectations = {
            "producer": f"torch {torch.__version__.split('+')[0]}",
            "kind": "other",
            "inputs": [tensor("series", rows)],
            "outputs": [tensor("scores", scores)],
        }
        (folder / "io.json").write_text(json.dumps(expectations) + "\n")


main()

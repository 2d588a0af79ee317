"""Request bodies in both dialects, and whether an answer is what ONNX Runtime says."""

import json

import numpy as np
import onnxruntime

ONE_ROW_BODIES = 64
LARGE_ROWS, LARGE_BODIES = 1000, 2
TOLERANCE = 1e-5


class WrongAnswer(Exception):
    """A server answered something else than ONNX Runtime, or nothing of use."""


def text_of(row):
    """The shortest decimals that read back as the same float32, as a client would send them."""
    return "[" + ",".join(str(value) for value in row) + "]"


def body(dialect, rows):
    if dialect == "rows":
        return '{"rows":[' + ",".join(text_of(row) for row in rows) + "]}"
    tensor = f'"name":"X","shape":[{len(rows)},{rows.shape[1]}],"datatype":"FP32","data":{text_of(rows.ravel())}'
    return '{"inputs":[{' + tensor + "}]}"


class Questions:
    """The rows that are asked for, the files with the bodies, and the right answers."""

    def __init__(self, model, table, folder):
        rows = np.load(table)
        self.one = [rows[i : i + 1] for i in range(ONE_ROW_BODIES)]
        self.large = [rows[i * LARGE_ROWS : (i + 1) * LARGE_ROWS] for i in range(LARGE_BODIES)]
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = 3
        self.truth = onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
        self.files = {}
        folder.mkdir(parents=True, exist_ok=True)
        for dialect in ("v2", "rows"):
            for size, blocks in ((1, self.one), (LARGE_ROWS, self.large)):
                file = folder / f"{dialect}-{size}.jsonl"
                file.write_text("".join(body(dialect, block) + "\n" for block in blocks))
                self.files[dialect, size] = file

    def check(self, dialect, ask):
        """Asks every question once through `ask(body) -> (status, bytes)`; returns how many were asked."""
        for rows in [*self.one, *self.large]:
            status, answer = ask(body(dialect, rows))
            if status != 200:
                raise WrongAnswer(f"status {status} for {len(rows)} rows: {answer[:200]!r}")
            self.compare(dialect, rows, answer)
        return len(self.one) + len(self.large)

    def compare(self, dialect, rows, answer):
        labels, probabilities = self.truth.run(["label", "probabilities"], {"X": rows})
        try:
            fields = json.loads(answer)
            if dialect == "v2":
                fields = {output["name"]: output["data"] for output in fields["outputs"]}
            given = np.asarray(fields["probabilities"], dtype=np.float64).reshape(probabilities.shape)
            given_labels = np.asarray(fields["label"]).reshape(labels.shape)
        except (ValueError, KeyError, TypeError) as error:
            raise WrongAnswer(f"{type(error).__name__} {error} in {answer[:200]!r}") from error
        worst = float(np.abs(given - probabilities).max())
        if not worst <= TOLERANCE:
            raise WrongAnswer(f"a probability of {len(rows)} rows differs from onnxruntime by {worst:.2g}")
        # Where the classes are as likely, rounding decides the label.
        sure = np.abs(probabilities[:, 1] - 0.5) > TOLERANCE
        if (given_labels != labels)[sure].any():
            raise WrongAnswer(f"a label of {len(rows)} rows differs from onnxruntime")

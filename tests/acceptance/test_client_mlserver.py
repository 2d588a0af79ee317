"""`mlserver infer`, MLServer's command for scoring a file of requests, writes what ONNX Runtime says."""

import json

import pytest

from clients import run_client
from protocol_models import judge


# The model, and how its requests are sent.
SENT = {
    "floats as JSON": ("boosted", []),
    "texts as JSON": ("pipeline", []),
    "texts as bytes": ("pipeline", ["--binary-data"]),
    "other types as bytes": ("mixed", ["--binary-data"]),
}


def infer(server, folder, model, lines, *flags):
    """Scores a file of one request a line; returns the answers in the order of the requests."""
    requests, answers = folder / "requests.jsonl", folder / "answers.jsonl"
    requests.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = run_client(
        "mlserver",
        "infer",
        *["--url", server.address, "--model-name", model, "--retries", 1],
        *["--input-data-path", requests, "--output-data-path", answers],
        *flags,
        cwd=folder,
    )
    assert done.returncode == 0, done.stdout
    found = [json.loads(line) for line in answers.read_text().splitlines()]
    assert len(found) == len(lines), done.stdout
    return sorted(found, key=lambda answer: answer["parameters"]["batch_index"])


@pytest.mark.parametrize("model, flags", SENT.values(), ids=SENT)
def test_a_file_of_requests_scores_as_onnxruntime(protocol_server, tmp_path, model, flags):
    expert = judge(protocol_server.models, model)
    feeds = [expert.rows(count, seed=count) for count in (1, 2, 30)]
    lines = [{"id": f"line {i}", "inputs": expert.json_inputs(feed)} for i, feed in enumerate(feeds)]
    answers = infer(protocol_server, tmp_path, model, lines, *flags)
    for i, (feed, answer) in enumerate(zip(feeds, answers)):
        assert (answer["id"], answer["model_name"]) == (f"line {i}", model)
        found = expert.from_json(answer["outputs"])
        # The command writes an output [N] as [N, 1].
        shapes = {name: array.shape for name, array in expert.answers(feed).items()}
        expert.check(feed, {name: array.reshape(shapes[name]) for name, array in found.items()})


def test_requests_that_it_batches_are_split_again(protocol_server, tmp_path):
    expert = judge(protocol_server.models, "pipeline")
    feeds = [expert.rows(1, seed=i) for i in range(10)]
    lines = [{"id": f"line {i}", "inputs": expert.json_inputs(feed)} for i, feed in enumerate(feeds)]
    for feed, answer in zip(feeds, infer(protocol_server, tmp_path, "pipeline", lines, "-s", 4)):
        # Of the outputs only those with a row for each row can be split; both can.
        found = {o["name"]: o["data"] for o in answer["outputs"]}
        expected = expert.answers(feed)
        assert found["verdict"] == expected["verdict"].tolist()
        assert found["scores"] == pytest.approx(expected["scores"].reshape(-1).tolist(), abs=1e-6)


def test_a_wrong_line_is_answered_with_its_error_and_the_others_are_scored(protocol_server, tmp_path):
    expert = judge(protocol_server.models, "boosted")
    right = {"id": "right", "inputs": expert.json_inputs(expert.rows(1))}
    tensor = {"name": "measurements", "shape": [1, 2], "datatype": "FP32", "data": [1.0, 2.0]}
    answers = infer(
        protocol_server, tmp_path, "boosted", [right, {"id": "wrong", "inputs": [tensor]}, right | {"id": "3"}]
    )
    assert "measurements" in answers[1]["error"]["msg"]
    assert [a["id"] for a in (answers[0], answers[2])] == ["right", "3"]

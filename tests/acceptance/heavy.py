"""Requests that take as long as a test wants, and a look at how many of them a server has.

The model repeats a matrix product as often as its input `steps` says, so its work is all in the model
and next to none in HTTP, whatever machine and build the tests run on: how many steps a millisecond
takes is measured first.
"""

import http.client
import json
import re
import socket
import threading
import time

import numpy
from onnx import TensorProto, helper, numpy_helper

from models import save, tensor_info
from server import ANSWER_SECONDS, Answer

NAME = "heavy"
WIDTH = 64
# Enough to be no small request for a server that treats those differently.
ROWS = 100


def heavy_model(models_dir, name=NAME):
    """x [N,64] float, steps [1] int64 -> y [1,64]: `steps` times a product with a rotation, then a mean"""
    angle = 0.1
    rotation = numpy.eye(WIDTH, dtype=numpy.float32)
    rotation[:2, :2] = [[numpy.cos(angle), -numpy.sin(angle)], [numpy.sin(angle), numpy.cos(angle)]]
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["before", "rotation"], ["after"]),
            helper.make_node("Identity", ["go_on"], ["still_on"]),
        ],
        "turn",
        [
            tensor_info("step", TensorProto.INT64, []),
            tensor_info("go_on", TensorProto.BOOL, []),
            tensor_info("before", TensorProto.FLOAT, ["N", WIDTH]),
        ],
        [
            tensor_info("still_on", TensorProto.BOOL, []),
            tensor_info("after", TensorProto.FLOAT, ["N", WIDTH]),
        ],
    )
    return save(
        [
            helper.make_node("Loop", ["steps", "", "x"], ["turned"], body=body),
            helper.make_node("ReduceMean", ["turned"], ["y"], axes=[0], keepdims=1),
        ],
        [
            tensor_info("x", TensorProto.FLOAT, ["N", WIDTH]),
            tensor_info("steps", TensorProto.INT64, [1]),
        ],
        [tensor_info("y", TensorProto.FLOAT, [1, WIDTH])],
        [numpy_helper.from_array(rotation, "rotation")],
        models_dir,
        name,
    )


class Heavy:
    """Requests of a given length for one server."""

    def __init__(self, server):
        self.server = server
        self.path = f"/v2/models/{NAME}/infer"
        self._x = numpy.ones((ROWS, WIDTH), dtype=numpy.float32).tobytes()
        self.steps_per_second = self._measured()

    def _measured(self):
        """How many steps the model does in a second when it is alone."""
        client = self.server.client()
        steps = 8
        while True:
            body, headers = self.message(steps=steps)
            started = time.perf_counter()
            answer = client.request("POST", self.path, body, headers)
            seconds = time.perf_counter() - started
            assert answer.status == 200, answer
            if seconds > 0.2:
                return steps / seconds
            steps *= 2

    def message(self, seconds=None, steps=None, parameters=None, **headers):
        """Body and headers of a request that runs for about `seconds`; `__` in the name of a header
        given by keyword is a dash."""
        if steps is None:
            steps = max(1, round(seconds * self.steps_per_second))
        head = {
            "inputs": [
                {
                    "name": "x",
                    "shape": [ROWS, WIDTH],
                    "datatype": "FP32",
                    "parameters": {"binary_data_size": len(self._x)},
                },
                {"name": "steps", "shape": [1], "datatype": "INT64", "data": [steps]},
            ]
        }
        if parameters is not None:
            head["parameters"] = parameters
        text = json.dumps(head).encode()
        headers = {name.replace("__", "-"): str(value) for name, value in headers.items()}
        headers["Inference-Header-Content-Length"] = str(len(text))
        return text + self._x, headers

    def send(self, seconds, parameters=None, **headers):
        """Sends a request and does not wait for its answer."""
        return Sent(self.server.address, self.path, *self.message(seconds, None, parameters, **headers))


def assert_one_answer_each(bodies):
    """The same question has one answer, and each request a row of its own in the ledger."""
    replies = [json.loads(body) for body in bodies]
    assert len({json.dumps(reply["outputs"]) for reply in replies}) == 1
    assert len({reply["parameters"]["prediction_id"] for reply in replies}) == len(replies)


class Sent:
    """A request on a connection of its own whose answer is read by a thread of its own."""

    def __init__(self, address, path, body, headers):
        host, port = address.rsplit(":", 1)
        self.connection = http.client.HTTPConnection(host, int(port), timeout=ANSWER_SECONDS)
        self.connection.request("POST", path, body=body, headers=headers)
        self._answer = None
        self._problem = None
        self.answered_at = None
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        try:
            response = self.connection.getresponse()
            self._answer = Answer(response.status, response.headers, response.read())
        except (OSError, http.client.HTTPException) as problem:
            self._problem = problem
        self.answered_at = time.monotonic()

    def answer(self):
        self._reader.join(ANSWER_SECONDS)
        assert self._answer is not None, f"no answer: {self._problem}"
        return self._answer

    def is_over(self):
        """Whether it is answered, or about to be."""
        self._reader.join(1)
        return self.answered_at is not None

    def go_away(self):
        """Closes the connection without waiting for the answer."""
        self.connection.sock.shutdown(socket.SHUT_RDWR)
        self._reader.join(ANSWER_SECONDS)
        self.connection.close()


GAUGE = re.compile(r"^bellwether_requests_(in_flight|waiting)(?:\{[^}]*\})? ([0-9.]+)$", re.MULTILINE)


def while_one_runs(heavy, watcher, steps):
    """Takes steps while a request runs on a server with one place: `steps(first, seconds)` is given the
    request and about how long it runs. Steps that came too late, because the machine had other things to do,
    have shown nothing; they are taken again beside a longer request."""
    lengths = [0.5, 4, 20]
    for seconds in lengths:
        wait_until(watcher, in_flight=0, waiting=0)
        first = heavy.send(seconds)
        try:
            wait_until(watcher, in_flight=1, waiting=0, while_runs=first)
            return steps(first, seconds)
        except AssertionError:
            if seconds == lengths[-1] or not first.is_over():
                raise


def wait_until(client, in_flight, waiting, while_runs=None):
    """Waits until so many requests run and so many wait, by the server's own metrics; not longer than
    another request runs, if there is one to go by."""
    deadline = time.monotonic() + ANSWER_SECONDS
    while True:
        answer = client.get("/metrics")
        assert answer.status == 200, answer
        found = {name: int(float(value)) for name, value in GAUGE.findall(answer.body.decode())}
        if found == {"in_flight": in_flight, "waiting": waiting}:
            return
        assert while_runs is None or while_runs.answered_at is None, f"the request is over, found {found}"
        assert time.monotonic() < deadline, f"expected {in_flight} and {waiting}, found {found}"
        time.sleep(0.002)  # between two looks

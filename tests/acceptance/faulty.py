"""Versions of the sample churn model with a fault planted in them, and traffic to show it.

Each version is the sample itself but for what is said here, loads without complaint, and is a candidate
until a transition says otherwise. What is wrong shows on real customers only: on those with a tenure of 30
months or more, where the fault is of some of them.
"""

import functools
import json
import math
import random
import shutil
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

import numpy
import onnx
from onnx import helper, numpy_helper

from churn_versions import shift_log_odds
from models import tensor_info
from server import FEATURES, MODELS, Client, succeed
from telco import ADD_ONS, customer

MODEL = "churn"
FAULTY_FROM_TENURE = 30
# What drifting() adds to the log-odds.
SHIFT = 1.5
# How long slow() takes more than the sample does.
SLOW_SECONDS = 0.02
WIDTH, ROWS = 64, 100


def champion(models):
    """The sample as version 1."""
    shutil.copytree(MODELS / MODEL / "1", models / MODEL / "1")


def same(models, version):
    """The same graph under another number."""
    return candidate(models, version, lambda graph: None)


def drifting(models, version):
    """Everyone is likelier to leave."""
    return candidate(models, version, lambda graph: shift_log_odds(graph, SHIFT))


def not_a_number(models, version):
    """NaN for those who have been customers for long."""

    def add(graph):
        limit = numpy.array([FAULTY_FROM_TENURE - 0.5], dtype=numpy.float32)
        nan = numpy.array([numpy.nan], dtype=numpy.float32)
        rename_output(graph, "log_odds", "honest")
        graph.initializer.extend(
            [numpy_helper.from_array(limit, "limit"), numpy_helper.from_array(nan, "nan")]
        )
        insert_behind(
            graph,
            "honest",
            [
                helper.make_node("Greater", ["tenure_float", "limit"], ["is_long"]),
                helper.make_node("Where", ["is_long", "nan", "honest"], ["log_odds"]),
            ],
        )

    return candidate(models, version, add)


def failing(models, version):
    """Looks the tenure up in a table that ends too early, which is an error of the run."""

    def add(graph):
        table = numpy.zeros(FAULTY_FROM_TENURE, dtype=numpy.float32)
        rename_output(graph, "log_odds", "honest")
        graph.initializer.append(numpy_helper.from_array(table, "table"))
        insert_behind(
            graph,
            "honest",
            [
                helper.make_node("Gather", ["table", "tenure"], ["looked_up"]),
                helper.make_node("Add", ["honest", "looked_up"], ["log_odds"]),
            ],
        )

    return candidate(models, version, add)


def slow(models, version):
    """The same scores after as many products of matrices, which come to nothing, as take 20 ms here."""
    return with_steps(models, version, slow_steps())


@functools.cache
def slow_steps():
    """How many steps that is, by this build on this machine."""
    steps = 1
    while True:
        with tempfile.TemporaryDirectory() as folder:
            version = with_steps(Path(folder), 1, steps)
            said = succeed("model", "validate", version, "--features", FEATURES, "--json")
        (one_row,) = [timing for timing in json.loads(said.stdout)["timings"] if timing["rows"] == 1]
        seconds = one_row["p50_us"] / 1e6
        if seconds > SLOW_SECONDS / 4:
            return math.ceil(steps * SLOW_SECONDS / seconds)
        steps *= 2


def with_steps(models, version, steps):
    def add(graph):
        rename_output(graph, "log_odds", "honest")
        rotation = numpy.eye(WIDTH, dtype=numpy.float32)
        start = numpy.ones((ROWS, WIDTH), dtype=numpy.float32)
        constants = {"rotation": rotation, "start": start}
        constants["nothing"] = numpy.zeros((1, 1), dtype=numpy.float32)
        constants["steps"] = numpy.array([steps], dtype=numpy.int64)
        graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
        body = helper.make_graph(
            [
                helper.make_node("MatMul", ["before", "rotation"], ["after"]),
                helper.make_node("Identity", ["go_on"], ["still_on"]),
            ],
            "turn",
            [
                tensor_info("step", onnx.TensorProto.INT64, []),
                tensor_info("go_on", onnx.TensorProto.BOOL, []),
                tensor_info("before", onnx.TensorProto.FLOAT, [ROWS, WIDTH]),
            ],
            [
                tensor_info("still_on", onnx.TensorProto.BOOL, []),
                tensor_info("after", onnx.TensorProto.FLOAT, [ROWS, WIDTH]),
            ],
        )
        insert_behind(
            graph,
            "honest",
            [
                # Depends on the input, so that it cannot be computed once for all.
                helper.make_node("ReduceMean", ["tenure_float"], ["mean_tenure"], axes=[0], keepdims=1),
                helper.make_node("Mul", ["mean_tenure", "nothing"], ["zero"]),
                helper.make_node("Add", ["start", "zero"], ["begun"]),
                helper.make_node("Loop", ["steps", "", "begun"], ["turned"], body=body),
                helper.make_node("ReduceMean", ["turned"], ["mean"], axes=[0, 1], keepdims=1),
                helper.make_node("Mul", ["mean", "nothing"], ["none"]),
                helper.make_node("Add", ["honest", "none"], ["log_odds"]),
            ],
        )

    return candidate(models, version, add)


def candidate(models, version, change):
    """The sample with its graph changed, as a version that answers nobody yet."""
    folder = models / MODEL / str(version)
    shutil.copytree(MODELS / MODEL / "1", folder)
    (folder / "golden.json").unlink()
    manifest = folder / "model.toml"
    manifest.write_text(manifest.read_text().replace("[model]", '[model]\nstate = "candidate"', 1))
    model = onnx.load(str(folder / "model.onnx"))
    change(model.graph)
    onnx.checker.check_model(model)
    onnx.save(model, str(folder / "model.onnx"))
    return folder


def rename_output(graph, name, new_name):
    """Renames what a node makes; those who read it still read `name`."""
    for node in graph.node:
        for index, output in enumerate(node.output):
            if output == name:
                node.output[index] = new_name


def insert_behind(graph, tensor, nodes):
    """Puts nodes behind the one that makes `tensor`."""
    (place,) = [index for index, node in enumerate(graph.node) if tensor in node.output]
    for offset, node in enumerate(nodes):
        graph.node.insert(place + 1 + offset, node)


# Customers and traffic.


def varied_customers(count, seed=5):
    """{id: features} of made-up customers whose scores are all over the place."""
    chance = random.Random(seed)
    found = {}
    for number in range(count):
        tenure = chance.randrange(1, 72)
        monthly = round(chance.uniform(18, 118), 2)
        found[f"C-{number:05}"] = customer(
            tenure=tenure,
            monthly_charges=monthly,
            total_charges=round(monthly * tenure, 2),
            contract=chance.choice(["Month-to-month", "One year", "Two year"]),
            internet_service=chance.choice(["Fiber optic", "DSL", "No"]),
            payment_method=chance.choice(["Electronic check", "Mailed check"]),
            **{name: chance.choice(["Yes", "No"]) for name in ADD_ONS},
        )
    return found


def store_all(client, customers):
    for customer_id, features in customers.items():
        client.store(customer_id, features)


class Answered(NamedTuple):
    customer: str
    version: str
    # When the request was sent, by time.monotonic().
    asked: float


class Traffic:
    """Scores customers over and over on a few connections for as long as the context is open."""

    def __init__(self, server, customers, connections=4):
        self.server = server
        self.customers = list(customers)
        self.failed = []
        # An Answered for every answer, in their order.
        self.answered = []
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._send, args=(number,), daemon=True) for number in range(connections)
        ]

    def _send(self, number):
        client = Client(self.server.address)
        chance = random.Random(number)
        try:
            while not self._stop.is_set():
                customer_id = chance.choice(self.customers)
                asked = time.monotonic()
                answer = client.post("/v1/score", {"customer_id": customer_id, "models": [MODEL]})
                if answer.status != 200:
                    self.failed.append(answer)
                    continue
                (prediction,) = answer.json()["predictions"]
                self.answered.append(Answered(customer_id, prediction["version"], asked))
        except OSError as problem:
            self.failed.append(problem)
        finally:
            client.close()

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()

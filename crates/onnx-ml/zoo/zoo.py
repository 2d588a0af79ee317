"""What every model of the zoo shares: how it is registered, fed, checked and written.

A model file is accepted only if ONNX Runtime's answers agree with a second opinion: the estimator's own
predict, or NumPy, on ordinary rows; and, where the ONNX reference evaluator implements the operators, with
that on every row. Rows whose label hangs on a tie are dropped, because a tie is decided by rounding.
"""

import json
import logging
import math
import pathlib
import re
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnxruntime
from onnx import AttributeProto, numpy_helper

HERE = pathlib.Path(__file__).parent
MODELS = HERE / "models"
ROWS = 40

# Newest file format (IR) version written. Newer ones add nothing that these models use.
IR_VERSION = 10

TYPE_NAMES = {
    "float32": "float",
    "float64": "double",
    "int64": "int64",
    "int32": "int32",
    "uint8": "uint8",
    "bool": "bool",
    "float16": "float16",
    "object": "string",
}


@dataclass
class Made:
    """A model as its builder hands it over."""

    onnx: onnx.ModelProto
    inputs: dict
    # Output name -> what the estimator (or NumPy) says about the ordinary rows.
    expected: dict = field(default_factory=dict)
    # Whether the second opinion is compared with absolute + relative tolerance `tolerance`.
    tolerance: float = 1e-4
    # "whole": rows cannot be dropped or reordered one by one (a fixed batch, several shapes).
    whole: bool = False
    # Why the reference evaluator is not asked, if it is not (it lacks or misreads something).
    no_reference: str = ""
    # Number of leading rows that `expected` speaks about; the others are edge rows.
    ordinary: int | None = None


@dataclass
class Entry:
    name: str
    producer: str
    estimator: str
    kind: str
    build: object


REGISTRY: dict[str, Entry] = {}


def register(name, producer, estimator, kind, build):
    """Adds a model. `kind` is "trees" (one tree ensemble, outputs within 1e-6) or "other"."""
    assert name not in REGISTRY, name
    assert kind in ("trees", "other"), kind
    REGISTRY[name] = Entry(name, producer, estimator, kind, build)


# ---------------------------------------------------------------------------------------------------
# Edge rows


def tree_thresholds(model):
    """Feature -> sorted split values of all tree nodes of the file (subgraphs have none)."""
    thresholds = {}
    for node in model.graph.node:
        if not node.op_type.startswith("TreeEnsemble"):
            continue
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "TreeEnsemble":
            features = attributes["nodes_featureids"]
            values = numpy_helper.to_array(attributes["nodes_splits"])
            branches = [True] * len(features)
        else:
            features = attributes["nodes_featureids"]
            if "nodes_values_as_tensor" in attributes:
                values = numpy_helper.to_array(attributes["nodes_values_as_tensor"])
            else:
                values = np.array(attributes["nodes_values"], dtype=np.float32)
            branches = [mode != b"LEAF" for mode in attributes["nodes_modes"]]
        for feature, value, branch in zip(features, values, branches):
            if branch and np.isfinite(value):
                thresholds.setdefault(int(feature), set()).add(float(value))
    return {feature: sorted(values) for feature, values in thresholds.items()}


def edge_rows(model, ordinary, nan=True, count=18, seed=0):
    """Rows on the edges of a tree model whose first input is the feature matrix.

    On the exact thresholds, one float below and above them; NaN, infinities, -0.0, the smallest
    denormal and the largest float: in every column at once, and in one column of an ordinary row.
    """
    rng = np.random.default_rng(seed)
    kind = ordinary.dtype.type
    columns = ordinary.shape[1]
    thresholds = tree_thresholds(model)
    rows = []
    for number in range(count):
        row = ordinary[rng.integers(len(ordinary))].copy()
        for feature in range(columns):
            choices = thresholds.get(feature)
            if not choices or (number % 3 == 2 and rng.random() < 0.6):
                continue
            value = kind(choices[rng.integers(len(choices))])
            direction = (0, -np.inf, np.inf)[rng.integers(3)]
            row[feature] = value if direction == 0 else np.nextafter(value, kind(direction))
        rows.append(row)
    limits = np.finfo(kind)
    specials = [np.inf, -np.inf, -0.0, limits.smallest_subnormal, limits.max]
    if nan:
        specials.insert(0, np.nan)
    used = sorted(thresholds) or list(range(columns))
    for special in specials:
        rows.append(np.full(columns, special, dtype=kind))
        row = ordinary[rng.integers(len(ordinary))].copy()
        row[used[rng.integers(len(used))]] = special
        rows.append(row)
    return np.array(rows, dtype=kind)


def with_edges(model, ordinary, expected, nan=True, name=None, **kwargs):
    """A tree model fed with ordinary rows followed by its edge rows."""
    name = name or model.graph.input[0].name
    rows = np.concatenate([ordinary, edge_rows(model, ordinary, nan=nan)])
    return Made(model, {name: rows}, expected, ordinary=len(ordinary), **kwargs)


# ---------------------------------------------------------------------------------------------------
# Running


def run_onnxruntime(data, inputs):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


def class_labels(model, output):
    """The keys of a ZipMap output, in the order of the file."""
    for node in model.graph.node:
        if node.op_type == "ZipMap" and output in node.output:
            for attribute in node.attribute:
                if attribute.name.startswith("classlabels_"):
                    values = onnx.helper.get_attribute_value(attribute)
                    return [v.decode() if isinstance(v, bytes) else v for v in values]
    raise ValueError(f"output {output} is no ZipMap")


def as_tensors(model, answers):
    """Named output tensors. Maps become a matrix with labels, sequences one tensor an element."""
    tensors = {}
    for value, answer in zip(model.graph.output, answers):
        if isinstance(answer, np.ndarray):
            tensors[value.name] = (answer, None)
        elif isinstance(answer, list) and answer and isinstance(answer[0], dict):
            labels = class_labels(model, value.name)
            matrix = np.array([[row[label] for label in labels] for row in answer], dtype=np.float32)
            tensors[value.name] = (matrix, labels)
        elif isinstance(answer, list):
            for number, element in enumerate(answer):
                tensors[f"{value.name}_{number}"] = (np.asarray(element), None)
        else:
            tensors[value.name] = (np.asarray(answer), None)
    return tensors


def tied_rows(tensors, rows):
    """Which rows have two best scores so close together that rounding decides the label."""
    tied = np.zeros(rows, dtype=bool)
    has_label = any(t.dtype == np.int64 or t.dtype == object for t, _ in tensors.values())
    if not has_label:
        return tied
    for tensor, _ in tensors.values():
        if tensor.ndim != 2 or tensor.dtype.kind != "f" or len(tensor) != rows:
            continue
        if tensor.shape[1] == 1:
            tied |= np.abs(tensor[:, 0]) < 1e-5
        else:
            best = np.sort(tensor.astype(np.float64), axis=1)
            with np.errstate(invalid="ignore"):
                tied |= (best[:, -1] - best[:, -2]) < 1e-5 * np.maximum(1, np.abs(best[:, -1]))
    return tied


def disagreement(left, right, tolerance):
    """None, or how the two differ."""
    left, right = np.asarray(left), np.asarray(right)
    if left.dtype.kind in "OUS" or right.dtype.kind in "OUS":
        same = left.astype(str).reshape(-1) == right.astype(str).reshape(-1)
        return None if same.all() else f"{(~same).sum()} strings differ"
    if left.size != right.size:
        return f"shapes {left.shape} and {right.shape}"
    left = left.astype(np.float64).reshape(-1)
    right = right.astype(np.float64).reshape(-1)
    with np.errstate(invalid="ignore"):
        same = (left == right) | (np.isnan(left) & np.isnan(right))
        gap = np.where(same, 0, np.abs(left - right) - tolerance * (1 + np.abs(right)))
    bad = ~(gap <= 0)
    if not bad.any():
        return None
    worst = int(np.argmax(np.where(np.isnan(gap), np.inf, gap)))
    return f"{bad.sum()} of {bad.size} differ, e.g. {left[worst]} and {right[worst]} at {worst}"


# ---------------------------------------------------------------------------------------------------
# Writing


def json_number(value, kind):
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    # str() of a NumPy float is the shortest decimal that reads back as the same number of that width.
    text = float(str(value))
    assert kind(text) == value
    return text


def json_tensor(name, tensor, labels=None):
    kind = TYPE_NAMES[tensor.dtype.name if tensor.dtype.kind != "U" else "object"]
    flat = tensor.reshape(-1)
    if kind == "string":
        data = [str(v) for v in flat]
    elif kind in ("float", "double", "float16"):
        data = [json_number(v, tensor.dtype.type) for v in flat]
    else:
        data = flat.tolist()
    written = {"name": name, "type": kind, "shape": list(tensor.shape), "data": data}
    if labels is not None:
        written["labels"] = labels
    return written


def write_json(path, description):
    """One tensor a line: small, and a changed answer is one changed line."""
    lines = ["{"]
    lines += [f"{json.dumps(k)}: {json.dumps(description[k])}," for k in ("producer", "estimator", "kind")]
    for number, key in enumerate(("inputs", "outputs")):
        tensors = ",\n".join(json.dumps(t, ensure_ascii=False, separators=(",", ":")) for t in description[key])
        lines.append(f'"{key}": [\n{tensors}\n]' + ("," if number == 0 else ""))
    lines.append("}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def operators_of(graph):
    """(domain, operator) of all nodes, also of subgraphs."""
    counts = Counter()
    for node in graph.node:
        counts[(node.domain or "ai.onnx", node.op_type)] += 1
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                counts.update(operators_of(attribute.g))
    return counts


def second_opinion(entry, made, model, inputs, tensors):
    """Complaints about ONNX Runtime's answers, by the estimator and by the reference evaluator."""
    complaints = []
    for name, expected in made.expected.items():
        answer, labels = tensors[name]
        if made.ordinary is not None and answer.ndim and not made.whole:
            answer = answer[: made.ordinary]
        difference = disagreement(answer, expected, made.tolerance)
        if difference:
            complaints.append(f"{name}: {difference} (estimator)")
    if not made.no_reference:
        from onnx.reference import ReferenceEvaluator

        try:
            with np.errstate(all="ignore"):
                answers = ReferenceEvaluator(model).run(None, inputs)
        except Exception as error:  # The evaluator lacks many operators: say so, do not fail.
            complaints.append(f"~ reference evaluator: {type(error).__name__} {str(error)[:100]!r}")
            return complaints
        for value, answer in zip(model.graph.output, answers):
            if value.name not in tensors or not isinstance(answer, np.ndarray):
                continue
            difference = disagreement(tensors[value.name][0], answer, made.tolerance)
            if difference:
                complaints.append(f"{value.name}: {difference} (reference evaluator)")
    return complaints


def forget_addresses(graph):
    """Some names of skl2onnx have the address of an object in them."""

    def plain(name):
        return re.sub(r"^norm_\d+_", "norm_", name)

    for node in graph.node:
        node.name = plain(node.name)
        node.input[:] = [plain(name) for name in node.input]
        node.output[:] = [plain(name) for name in node.output]
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                forget_addresses(attribute.g)
    for initializer in graph.initializer:
        initializer.name = plain(initializer.name)


def forget_time_and_place(entry, model):
    """Takes out what exporters write anew every time: random names, dates, file names."""
    model.doc_string = ""
    model.graph.name = entry.name
    forget_addresses(model.graph)
    kept = [p for p in model.metadata_props if p.key not in ("train_finish_time", "model_guid")]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)


def make(entry):
    """Builds, checks and writes one model. Returns its complaints (those with ~ are remarks)."""
    made = entry.build()
    model = made.onnx
    model.ir_version = min(model.ir_version, IR_VERSION)
    forget_time_and_place(entry, model)
    data = model.SerializeToString(deterministic=True)
    inputs = {k: np.ascontiguousarray(v) for k, v in made.inputs.items()}
    tensors = as_tensors(model, run_onnxruntime(data, inputs))

    row_counts = {v.shape[0] for v in inputs.values() if v.ndim}
    if not made.whole and len(row_counts) == 1:
        rows = row_counts.pop()
        if made.ordinary is None:
            made.ordinary = rows
        keep = ~tied_rows(tensors, rows)
        assert keep.sum() >= rows / 3, "nearly all rows are ties"
        if not keep.all():
            made.expected = {k: np.asarray(v)[keep[: made.ordinary]] for k, v in made.expected.items()}
            made.ordinary = int(keep[: made.ordinary].sum())
            inputs = {k: v[keep] for k, v in inputs.items()}
            tensors = as_tensors(model, run_onnxruntime(data, inputs))

    complaints = second_opinion(entry, made, model, inputs, tensors)
    folder = MODELS / entry.name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(data)
    write_json(
        folder / "io.json",
        {
            "producer": entry.producer,
            "estimator": entry.estimator,
            "kind": entry.kind,
            "inputs": [json_tensor(k, v) for k, v in inputs.items()],
            "outputs": [json_tensor(k, v, labels) for k, (v, labels) in tensors.items()],
        },
    )
    logging.info("%s: %d + %d bytes", entry.name, len(data), (folder / "io.json").stat().st_size)
    return complaints


def write_tables():
    """TABLE.md and OPERATORS.txt, from the files that are there."""
    lines = ["| model | producer | estimator | operators in the graph |", "|---|---|---|---|"]
    used = {}
    for name, entry in REGISTRY.items():
        path = MODELS / name / "model.onnx"
        if not path.exists():
            continue
        model = onnx.load(path)
        imports = {o.domain or "ai.onnx": o.version for o in model.opset_import}
        counts = operators_of(model.graph)
        for function in model.functions:
            counts.update(operators_of(function))
        names = ", ".join(
            operator if domain in ("ai.onnx", "ai.onnx.ml") else f"{domain}.{operator}"
            for domain, operator in sorted(counts, key=lambda key: (key[0] == "ai.onnx", key[1]))
        )
        lines.append(f"| {name} | {entry.producer} | {entry.estimator} | {names} |")
        for domain, operator in counts:
            since = imports.get(domain, 1)
            try:
                schema_domain = "" if domain == "ai.onnx" else domain
                since = onnx.defs.get_schema(operator, since, schema_domain).since_version
            except onnx.defs.SchemaError:
                pass
            used.setdefault((domain, operator), {}).setdefault(since, []).append(name)
    (HERE / "TABLE.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    text = ["# domain operator (version of the operator's definition: models)"]
    for (domain, operator), versions in sorted(used.items()):
        parts = []
        for version, names in sorted(versions.items()):
            shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
            parts.append(f"v{version}: {len(names)} ({shown})")
        text.append(f"{domain} {operator}  " + "; ".join(parts))
    (HERE / "OPERATORS.txt").write_text("\n".join(text) + "\n", encoding="utf-8")

"""Graphs made by hand: strings, control flow, odd forms, and the families of general operators."""

import numpy as np
from onnx import helper, numpy_helper

import zoo
from by_hand import BOOL, DOUBLE, FLOAT, FLOAT16, INT32, INT64, KINDS, STRING, hand, ml, model, node, numbers, softmax
from zoo import Made

# ---------------------------------------------------------------------------------------------------
# Strings


@hand("strings", "Concat, Equal, Where, Gather, Reshape, Unsqueeze, Identity of strings")
def _():
    rng = np.random.default_rng(67)
    left = rng.choice(np.array(["A", "b", "", "東京"], dtype=object), (zoo.ROWS, 2))
    right = rng.choice(np.array(["A", "b", "", "x"], dtype=object), (zoo.ROWS, 2))
    inputs = {"left": left, "right": right}
    made = model(
        [
            node("Concat", ["left", "right"], ["joined"], axis=1),
            node("Equal", ["left", "right"], ["same"]),
            node("Where", ["same", "left", "fallback"], ["chosen"]),
            node("Gather", ["joined", "columns"], ["gathered"], axis=1),
            node("Reshape", ["gathered", "flat"], ["reshaped"]),
            node("Equal", ["left", "fallback"], ["is_fallback"]),
            node("Not", ["is_fallback"], ["is_other"]),
            node("Cast", ["is_other"], ["number"], to=FLOAT),
        ],
        inputs,
        {"joined": STRING, "same": BOOL, "chosen": STRING, "reshaped": STRING, "number": FLOAT},
        constants={
            "fallback": np.array(["b"], dtype=object),
            "columns": np.array([3, 0, -1]),
            "flat": np.array([-1, 1]),
        },
        opsets=((19, ""),),
        ir=9,
    )
    joined = np.concatenate([left, right], axis=1)
    said = {
        "joined": joined,
        "same": left == right,
        "chosen": np.where(left == right, left, "b"),
        "reshaped": joined[:, [3, 0, 3]].reshape(-1, 1),
        "number": left != "b",
    }
    return Made(made, inputs, said, whole=True)


@hand("string_normalizer", "StringNormalizer: lower case with stop words")
def _():
    words = np.array(["Monday", "tuesday", "WEDNESDAY", "the", "The", "friday"], dtype=object)
    made = model(
        [
            node(
                "StringNormalizer",
                ["words"],
                ["lower"],
                case_change_action="LOWER",
                is_case_sensitive=0,
                stopwords=["the"],
                locale="C",
            ),
            node(
                "StringNormalizer",
                ["words"],
                ["upper"],
                case_change_action="UPPER",
                is_case_sensitive=1,
                stopwords=["the"],
                locale="C",
            ),
            node("StringNormalizer", ["words"], ["same"], is_case_sensitive=1, stopwords=["friday"], locale="C"),
        ],
        {"words": words},
        {"lower": STRING, "upper": STRING, "same": STRING},
    )
    said = {
        "lower": ["monday", "tuesday", "wednesday", "friday"],
        "upper": ["MONDAY", "TUESDAY", "WEDNESDAY", "THE", "FRIDAY"],
        "same": words[:-1],
    }
    return Made(made, {"words": words}, said, whole=True, no_reference="plain Python says it")


@hand("string_functions", "StringConcat, StringSplit, RegexFullMatch")
def _():
    words = np.array(["a,b", "c", "", "x,y,z", "12", "7up"], dtype=object)
    made = model(
        [
            node("StringConcat", ["words", "suffix"], ["longer"]),
            node("RegexFullMatch", ["words"], ["number"], pattern="[0-9]+"),
            node("StringSplit", ["words"], ["parts", "counts"], delimiter=","),
        ],
        {"words": words},
        {"longer": STRING, "number": BOOL, "parts": STRING, "counts": INT64},
        constants={"suffix": np.array(["!"], dtype=object)},
        opsets=((20, ""),),
        ir=9,
    )
    said = {"longer": [w + "!" for w in words], "number": [False] * 4 + [True, False], "counts": [2, 1, 0, 3, 1, 1]}
    return Made(made, {"words": words}, said, whole=True, no_reference="plain Python says it")


# ---------------------------------------------------------------------------------------------------
# Control flow and functions


def subgraph(name, nodes, inputs, outputs):
    """The step number and the condition of a loop are scalars, and ONNX Runtime wants that declared."""
    shapes = {"step": [], "go": []}
    return helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info(n, k, shapes.get(n)) for n, k in inputs.items()],
        [helper.make_tensor_value_info(n, k, None) for n, k in outputs.items()],
    )


def if_model(value):
    """Which of two linear models answers is decided by an input; both use a value of the outer graph."""
    table = numbers()
    use_first = np.array([value])
    made = model(
        [
            ml("Scaler", ["X"], ["scaled"], offset=[0.5], scale=[2.0]),
            node(
                "If",
                ["use_first"],
                ["Y"],
                then_branch=subgraph(
                    "first",
                    [ml("LinearRegressor", ["scaled"], ["first_Y"], coefficients=[1.0] * 8, intercepts=[0.0])],
                    {},
                    {"first_Y": FLOAT},
                ),
                else_branch=subgraph(
                    "second",
                    [node("ReduceMax", ["scaled"], ["largest"], axes=[1]), node("Neg", ["largest"], ["second_Y"])],
                    {},
                    {"second_Y": FLOAT},
                ),
            ),
        ],
        {"X": table, "use_first": use_first},
        {"Y": FLOAT},
        shapes={"use_first": [1]},
    )
    scaled = (table.astype(float) - 0.5) * 2
    said = scaled.sum(axis=1) if value else -scaled.max(axis=1)
    return Made(made, {"X": table, "use_first": use_first}, {"Y": said}, whole=True)


@hand("if_true", "If, first branch taken, both branches use outer values")
def _():
    return if_model(True)


@hand("if_false", "If, second branch taken")
def _():
    return if_model(False)


@hand("loop_for", "Loop of a fixed count with a carried value and a scan output")
def _():
    table = numbers()
    body = subgraph(
        "body",
        [
            node("Mul", ["state", "half"], ["smaller"]),
            node("Add", ["smaller", "X"], ["next"]),
            node("ReduceSum", ["next"], ["total"], keepdims=1),
            node("Identity", ["go"], ["go_on"]),
        ],
        {"step": INT64, "go": BOOL, "state": FLOAT},
        {"go_on": BOOL, "next": FLOAT, "next_seen": FLOAT},
    )
    body.node.extend([node("ReduceMax", ["next"], ["next_seen"], axes=[1], keepdims=0)])
    made = model(
        [
            node("Loop", ["count", "", "X"], ["last", "seen"], body=body),
        ],
        {"X": table},
        {"last": FLOAT, "seen": FLOAT},
        constants={"count": np.array(4), "half": np.array(0.5, dtype=np.float32)},
    )
    state, seen = table.astype(float), []
    for _ in range(4):
        state = state * 0.5 + table
        seen.append(state.max(axis=1))
    return Made(made, {"X": table}, {"last": state, "seen": np.array(seen)}, whole=True)


@hand("loop_while", "Loop that ends when its condition says so")
def _():
    start = np.array([[1.0, 2.0], [0.5, 3.0]], dtype=np.float32)
    body = subgraph(
        "body",
        [
            node("Mul", ["state", "two"], ["next"]),
            node("ReduceMax", ["next"], ["largest"], keepdims=0),
            node("Less", ["largest", "limit"], ["go_on"]),
        ],
        {"step": INT64, "go": BOOL, "state": FLOAT},
        {"go_on": BOOL, "next": FLOAT},
    )
    made = model(
        [node("Loop", ["", "yes", "X"], ["Y"], body=body)],
        {"X": start},
        {"Y": FLOAT},
        constants={
            "yes": np.array(True),
            "two": np.array(2, dtype=np.float32),
            "limit": np.array(100, dtype=np.float32),
        },
    )
    return Made(made, {"X": start}, {"Y": start * 64}, whole=True)


@hand("scan_rows", "Scan over rows: a running sum")
def _():
    table = numbers(rows=12)
    body = subgraph(
        "body",
        [node("Add", ["sum_in", "row"], ["sum_out"]), node("Identity", ["sum_out"], ["seen"])],
        {"sum_in": FLOAT, "row": FLOAT},
        {"sum_out": FLOAT, "seen": FLOAT},
    )
    made = model(
        [node("Scan", ["zero", "X"], ["total", "running"], body=body, num_scan_inputs=1)],
        {"X": table},
        {"total": FLOAT, "running": FLOAT},
        constants={"zero": np.zeros(8, dtype=np.float32)},
    )
    running = np.cumsum(table.astype(float), axis=0)
    return Made(made, {"X": table}, {"total": running[-1], "running": running}, whole=True)


@hand("local_function", "a function of the model, called twice")
def _():
    table = numbers()
    function = helper.make_function(
        "zoo.functions",
        "SquareAndShift",
        ["x", "shift"],
        ["y"],
        [node("Mul", ["x", "x"], ["square"]), node("Add", ["square", "shift"], ["y"])],
        [helper.make_opsetid("", 17)],
    )
    made = model(
        [
            helper.make_node("SquareAndShift", ["X", "one"], ["once"], domain="zoo.functions"),
            helper.make_node("SquareAndShift", ["once", "one"], ["Y"], domain="zoo.functions"),
        ],
        {"X": table},
        {"Y": FLOAT},
        constants={"one": np.array(1, dtype=np.float32)},
        opsets=((17, ""), (1, "zoo.functions")),
        functions=[function],
    )
    x = table.astype(float)
    return Made(made, {"X": table}, {"Y": (x * x + 1) ** 2 + 1})


# ---------------------------------------------------------------------------------------------------
# Forms of graphs


@hand("initializers_as_inputs", "old file: initializers are listed as inputs too (IR 3)")
def _():
    table = numbers()
    weights = np.arange(8, dtype=np.float32).reshape(8, 1) / 8
    made = model(
        [node("MatMul", ["X", "weights"], ["product"]), node("Add", ["product", "bias"], ["Y"])],
        {"X": table},
        {"Y": FLOAT},
        constants={"weights": weights, "bias": np.array([0.5], dtype=np.float32)},
        opsets=((9, ""),),
        ir=3,
    )
    for name, shape in (("weights", [8, 1]), ("bias", [1])):
        made.graph.input.append(helper.make_tensor_value_info(name, FLOAT, shape))
    return Made(made, {"X": table}, {"Y": table.astype(float) @ weights + 0.5})


@hand("pass_through", "outputs that are an input, a constant, and one value twice; unused nodes and constants")
def _():
    table = numbers()
    words = np.array(["a", "b"] * 20, dtype=object).reshape(-1, 1)
    made = model(
        [
            node("Identity", ["X"], ["copy"]),
            node("Relu", ["X"], ["positive"]),
            node("Identity", ["positive"], ["again"]),
            node("Exp", ["X"], ["unused"]),
            node("Identity", ["words"], ["same_words"]),
            node("Dropout", ["X"], ["kept"]),
        ],
        {"X": table, "words": words},
        {"copy": FLOAT, "positive": FLOAT, "again": FLOAT, "constant": FLOAT, "same_words": STRING, "kept": FLOAT},
        constants={"constant": np.array([1.5, -2.5], dtype=np.float32), "nobody": np.zeros(3, dtype=np.float32)},
    )
    said = {
        "copy": table,
        "positive": np.maximum(table, 0),
        "again": np.maximum(table, 0),
        "same_words": words,
        "kept": table,
    }
    return Made(made, {"X": table, "words": words}, said, whole=True)


@hand("named_dimensions", "dimensions with names, one of them shared by two inputs")
def _():
    table = numbers()
    other = numbers(116)[:, :3].copy()
    made = model(
        [
            node("Concat", ["left", "right"], ["joined"], axis=1),
            node("ReduceMean", ["joined"], ["Y"], axes=[1], keepdims=1),
        ],
        {"left": table, "right": other},
        {"Y": FLOAT},
        shapes={"left": ["batch", 8], "right": ["batch", 3]},
    )
    return Made(
        made, {"left": table, "right": other}, {"Y": np.concatenate([table, other], axis=1).astype(float).mean(axis=1)}
    )


@hand("no_shape", "an input that declares no shape at all")
def _():
    table = numbers()
    made = model([node("Tanh", ["X"], ["Y"])], {"X": table}, {"Y": FLOAT}, shapes={"X": None})
    return Made(made, {"X": table}, {"Y": np.tanh(table.astype(float))})


@hand("one_dimensional", "columns as vectors without a second dimension, and a scalar input")
def _():
    table = numbers()
    first, second, factor = table[:, 0].copy(), table[:, 1].copy(), np.array(2.5, dtype=np.float32)
    made = model(
        [node("Mul", ["first", "factor"], ["scaled"]), node("Add", ["scaled", "second"], ["Y"])],
        {"first": first, "second": second, "factor": factor},
        {"Y": FLOAT},
    )
    return Made(
        made,
        {"first": first, "second": second, "factor": factor},
        {"Y": first.astype(float) * 2.5 + second},
        whole=True,
    )


@hand("zero_rows", "a linear model asked for no rows at all")
def _():
    table = np.zeros((0, 8), dtype=np.float32)
    made = model(
        [
            ml("Scaler", ["X"], ["scaled"], offset=[0.5], scale=[2.0]),
            ml(
                "LinearClassifier",
                ["scaled"],
                ["label", "raw"],
                coefficients=[0.1] * 24,
                intercepts=[0.0] * 3,
                classlabels_ints=[1, 2, 3],
            ),
            node("Softmax", ["raw"], ["scores"], axis=1),
            node("ArgMax", ["scores"], ["best"], axis=1, keepdims=0),
        ],
        {"X": table},
        {"label": INT64, "scores": FLOAT, "best": INT64},
    )
    said = {"label": np.zeros(0), "scores": np.zeros((0, 3)), "best": np.zeros(0)}
    return Made(made, {"X": table}, said, whole=True, no_reference="no rows")


@hand("half_precision", "float16 input and output around float32 arithmetic")
def _():
    table = numbers().astype(np.float16)
    made = model(
        [
            node("Cast", ["X"], ["wide"], to=FLOAT),
            node("Gemm", ["wide", "weights", "bias"], ["product"], transB=1, alpha=0.5, beta=2.0),
            node("Cast", ["product"], ["Y"], to=FLOAT16),
        ],
        {"X": table},
        {"Y": FLOAT16, "product": FLOAT},
        constants={
            "weights": np.linspace(-1, 1, 16, dtype=np.float32).reshape(2, 8),
            "bias": np.array([0.5, -0.25], dtype=np.float32),
        },
    )
    said = 0.5 * table.astype(float) @ np.linspace(-1, 1, 16).reshape(2, 8).T + 2 * np.array([0.5, -0.25])
    return Made(made, {"X": table}, {"product": said}, whole=True, tolerance=1e-3)


@hand("constants", "Constant in all its forms")
def _():
    table = numbers()[:, :2].copy()
    made = model(
        [
            node("Constant", [], ["f"], value_float=0.5),
            node("Constant", [], ["fs"], value_floats=[1.0, -1.0]),
            node("Constant", [], ["i"], value_int=3),
            node("Constant", [], ["is"], value_ints=[-1, 1]),
            node("Constant", [], ["s"], value_string="só"),
            node("Constant", [], ["ss"], value_strings=["p", "q"]),
            node("Constant", [], ["t"], value=numpy_helper.from_array(np.array([[2.0, 4.0]], dtype=np.float32))),
            node("Mul", ["X", "f"], ["a"]),
            node("Add", ["a", "fs"], ["b"]),
            node("Div", ["b", "t"], ["c"]),
            node("Reshape", ["c", "is"], ["Y"]),
            node("Identity", ["i"], ["three"]),
            node("Identity", ["s"], ["word"]),
            node("Identity", ["ss"], ["words"]),
        ],
        {"X": table},
        {"Y": FLOAT, "three": INT64, "word": STRING, "words": STRING},
    )
    said = {
        "Y": (table.astype(float) * 0.5 + [1, -1]) / [2, 4],
        "three": 3,
        "word": np.array("só", dtype=object),
        "words": np.array(["p", "q"], dtype=object),
    }
    return Made(made, {"X": table}, said, whole=True)


# ---------------------------------------------------------------------------------------------------
# Families of general operators


@hand("casts", "Cast between numbers, truth values and strings")
def _():
    floats = np.array(
        [0.0, -0.0, 1.5, -2.75, 3.0, 1e10, 0.1, 123456.79, 1e-7, np.nan, np.inf, -np.inf], dtype=np.float32
    )
    finite = np.array([0.0, 1.5, -2.75, 3.0, 100000.0, 0.1], dtype=np.float32)
    integers = np.array([0, 1, -5, 2**31 + 7, 2**53 + 1, -(2**62)])
    numerals = np.array(["1", "-2.5", "1e3", "0.1", "NaN", "INF"], dtype=object)
    whole_numerals = np.array(["1", "-2", "0", "9007199254740993"], dtype=object)
    inputs = {
        "floats": floats,
        "finite": finite,
        "integers": integers,
        "numerals": numerals,
        "whole_numerals": whole_numerals,
    }
    casts = [
        ("floats", "bool", BOOL),
        ("floats", "double", DOUBLE),
        ("floats", "float16", FLOAT16),
        ("floats", "string", STRING),
        ("finite", "int64", INT64),
        ("finite", "int32", INT32),
        ("integers", "float", FLOAT),
        ("integers", "double", DOUBLE),
        ("integers", "int32", INT32),
        ("integers", "bool", BOOL),
        ("integers", "string", STRING),
        ("numerals", "float", FLOAT),
        ("numerals", "double", DOUBLE),
        ("whole_numerals", "int64", INT64),
    ]
    nodes = [node("Cast", [source], [f"{source}_{name}"], to=kind) for source, name, kind in casts]
    made = model(nodes, inputs, {f"{source}_{name}": kind for source, name, kind in casts}, opsets=((13, ""),), ir=7)
    with np.errstate(all="ignore"):
        said = {
            "floats_bool": floats.astype(bool),
            "finite_int64": finite.astype(np.int64),
            "integers_int32": integers.astype(np.int32),
            "integers_string": integers.astype(str).astype(object),
            "numerals_double": numerals.astype(np.float64),
            "whole_numerals_int64": whole_numerals.astype(np.int64),
        }
    return Made(made, inputs, said, whole=True, no_reference="its strings look otherwise")


@hand("arithmetic", "arithmetic of float, float64, int64 and int32 with broadcasting")
def _():
    rng = np.random.default_rng(68)
    nodes, inputs, outputs, said = [], {}, {}, {}
    for kind in (np.float32, np.float64, np.int64, np.int32):
        name = np.dtype(kind).name
        left = (rng.integers(-20, 20, (10, 4)) / (1 if np.dtype(kind).kind == "i" else 8)).astype(kind)
        right = np.array([3, -2, 5, 7], dtype=kind)
        inputs[f"{name}_left"], inputs[f"{name}_right"] = left, right
        for operator, compute in (
            ("Add", np.add),
            ("Sub", np.subtract),
            ("Mul", np.multiply),
            ("Max", np.maximum),
            ("Min", np.minimum),
        ):
            nodes.append(node(operator, [f"{name}_left", f"{name}_right"], [f"{name}_{operator}"]))
            outputs[f"{name}_{operator}"] = KINDS[np.dtype(kind)]
            said[f"{name}_{operator}"] = compute(left, right)
        integer = np.dtype(kind).kind == "i"
        nodes.append(node("Div", [f"{name}_left", f"{name}_right"], [f"{name}_Div"]))
        nodes.append(node("Mod", [f"{name}_left", f"{name}_right"], [f"{name}_Mod"], fmod=0 if integer else 1))
        nodes.append(node("Abs", [f"{name}_left"], [f"{name}_Abs"]))
        nodes.append(node("Neg", [f"{name}_left"], [f"{name}_Neg"]))
        nodes.append(node("Sign", [f"{name}_left"], [f"{name}_Sign"]))
        for operator in ("Div", "Mod", "Abs", "Neg", "Sign"):
            outputs[f"{name}_{operator}"] = KINDS[np.dtype(kind)]
        said[f"{name}_Div"] = np.trunc(left / right) if integer else left / right
        said[f"{name}_Mod"] = np.mod(left, right) if integer else np.fmod(left, right)
        said[f"{name}_Abs"], said[f"{name}_Neg"], said[f"{name}_Sign"] = np.abs(left), -left, np.sign(left)
    made = model(nodes, inputs, outputs, shapes={k: None for k in inputs})
    return Made(made, inputs, said, whole=True, no_reference="plain NumPy says it")


@hand("comparisons", "comparisons and logic, with NaN and infinities")
def _():
    left = np.array([[0.0, 1.0, np.nan, np.inf, -np.inf, -0.0]], dtype=np.float32)
    right = np.array([[0.0], [np.nan], [1.0], [np.inf]], dtype=np.float32)
    nodes, outputs, said = [], {}, {}
    with np.errstate(all="ignore"):
        for operator, compute in (
            ("Less", np.less),
            ("LessOrEqual", np.less_equal),
            ("Greater", np.greater),
            ("GreaterOrEqual", np.greater_equal),
            ("Equal", np.equal),
        ):
            nodes.append(node(operator, ["left", "right"], [operator]))
            outputs[operator], said[operator] = BOOL, compute(left, right)
    for operator, compute in (("And", np.logical_and), ("Or", np.logical_or), ("Xor", np.logical_xor)):
        nodes.append(node(operator, ["Less", "GreaterOrEqual"], [operator]))
        outputs[operator], said[operator] = BOOL, compute(said["Less"], said["GreaterOrEqual"])
    nodes += [
        node("IsNaN", ["left"], ["IsNaN"]),
        node("IsInf", ["left"], ["IsInf"]),
        node("IsInf", ["left"], ["IsPositiveInf"], detect_negative=0),
        node("Where", ["Less", "left", "right"], ["Where"]),
        node("Min", ["left", "right"], ["Min"]),
        node("Max", ["left", "right"], ["Max"]),
        node("Clip", ["left", "low", "high"], ["Clip"]),
    ]
    outputs.update(IsNaN=BOOL, IsInf=BOOL, IsPositiveInf=BOOL, Where=FLOAT, Min=FLOAT, Max=FLOAT, Clip=FLOAT)
    said.update(
        IsNaN=np.isnan(left),
        IsInf=np.isinf(left),
        IsPositiveInf=left == np.inf,
        Where=np.where(said["Less"], left, right),
    )
    inputs = {"left": left, "right": right}
    constants = {"low": np.array(-1, dtype=np.float32), "high": np.array(0.5, dtype=np.float32)}
    return Made(model(nodes, inputs, outputs, constants), inputs, said, whole=True)


@hand("reductions", "all reductions, over one axis, several, all, none")
def _():
    table = np.abs(numbers(rows=6)).reshape(6, 2, 4) + np.float32(0.1)
    nodes, outputs, said = [], {}, {}
    numpy_of = {
        "ReduceSum": np.sum,
        "ReduceMean": np.mean,
        "ReduceMax": np.max,
        "ReduceMin": np.min,
        "ReduceProd": np.prod,
        "ReduceL1": lambda x, **k: np.abs(x).sum(**k),
        "ReduceL2": lambda x, **k: np.sqrt((x * x).sum(**k)),
        "ReduceSumSquare": lambda x, **k: (x * x).sum(**k),
        "ReduceLogSum": lambda x, **k: np.log(x.sum(**k)),
        "ReduceLogSumExp": lambda x, **k: np.log(np.exp(x).sum(**k)),
    }
    x = table.astype(float)
    for operator, compute in numpy_of.items():
        for number, (axes, keep) in enumerate((("last", 1), ("two", 0), ("", 1))):
            output = f"{operator}_{number}"
            nodes.append(node(operator, ["X", axes] if axes else ["X"], [output], keepdims=keep))
            outputs[output] = FLOAT
            said[output] = compute(x, axis={"last": (-1,), "two": (0, 2), "": (0, 1, 2)}[axes], keepdims=bool(keep))
    nodes.append(node("ReduceSum", ["X", "none"], ["unchanged"], noop_with_empty_axes=1))
    outputs["unchanged"], said["unchanged"] = FLOAT, x
    nodes += [
        node("ArgMax", ["X"], ["ArgMax"], axis=2, keepdims=0),
        node("ArgMin", ["X"], ["ArgMin"], axis=-1, select_last_index=1),
    ]
    outputs.update(ArgMax=INT64, ArgMin=INT64)
    said["ArgMax"] = x.argmax(axis=2)
    nodes.append(node("CumSum", ["X", "axis"], ["CumSum"], reverse=1))
    outputs["CumSum"], said["CumSum"] = FLOAT, x[:, ::-1].cumsum(axis=1)[:, ::-1]
    constants = {
        "last": np.array([-1]),
        "two": np.array([0, 2]),
        "none": np.zeros(0, dtype=np.int64),
        "axis": np.array(1),
    }
    return Made(model(nodes, {"X": table}, outputs, constants, opsets=((18, ""),)), {"X": table}, said, whole=True)


@hand("shaping", "operators that move elements about: Reshape, Slice, Split, Tile, Pad, Gather, Scatter, …")
def _():
    table = numbers(rows=6)
    constants = {
        "keep_rest": np.array([0, 2, -1]),
        "one": np.array([1]),
        "starts": np.array([-1, 1]),
        "ends": np.array([-100, 7]),
        "axes": np.array([1, 0]),
        "steps": np.array([-2, 1]),
        "sizes": np.array([3, 5]),
        "repeats": np.array([1, 2]),
        "pads": np.array([0, 1, 1, 0]),
        "filler": np.array(9, dtype=np.float32),
        "wanted": np.array([2, 6, 8]),
        "columns": np.array([[0, -1], [3, 3]]),
        "positions": np.array([[0, 1], [5, 7]]),
        "elements": np.array([[0, 1, 2, 3, 4, 5, 0, 1]]),
        "updates": np.full((1, 8), -1, dtype=np.float32),
        "point_updates": np.array([100, 200], dtype=np.float32),
        "three": np.array([3]),
        "depth": np.array(4),
        "on_off": np.array([0, 1], dtype=np.float32),
        "zero": np.array(0),
        "limit": np.array(6),
        "stride": np.array(2),
        "row": np.array([True, False, True, False, True, True]),
    }
    nodes = [
        node("Reshape", ["X", "keep_rest"], ["Reshape"]),
        node("Flatten", ["Reshape"], ["Flatten"], axis=1),
        node("Unsqueeze", ["X", "one"], ["Unsqueeze"]),
        node("Squeeze", ["Unsqueeze", "one"], ["Squeeze"]),
        node("Transpose", ["Reshape"], ["Transpose"], perm=[2, 0, 1]),
        node("Slice", ["X", "starts", "ends", "axes", "steps"], ["Slice"]),
        node("Split", ["X", "sizes"], ["Split_1", "Split_2"], axis=1),
        node("Tile", ["X", "repeats"], ["Tile"]),
        node("Pad", ["X", "pads", "filler"], ["Pad"]),
        node("Expand", ["X", "wanted"], ["Expand"]),
        node("Gather", ["X", "columns"], ["Gather"], axis=1),
        node("GatherND", ["X", "positions"], ["GatherND"]),
        node("GatherElements", ["X", "elements"], ["GatherElements"], axis=0),
        node("ScatterElements", ["X", "elements", "updates"], ["ScatterElements"], axis=1),
        node("ScatterND", ["X", "positions", "point_updates"], ["ScatterND"]),
        node("TopK", ["X", "three"], ["TopK", "TopK_places"], axis=1, largest=1),
        node("TopK", ["X", "three"], ["Least", "Least_places"], axis=1, largest=0),
        node("Shape", ["X"], ["Shape"]),
        node("Size", ["X"], ["Size"]),
        node("Range", ["zero", "limit", "stride"], ["Range"]),
        node("ConstantOfShape", ["Shape"], ["ConstantOfShape"], value=numpy_helper.from_array(np.array([7]))),
        node("Cast", ["Range"], ["range_index"], to=INT64),
        node("OneHot", ["range_index", "depth", "on_off"], ["OneHot"], axis=-1),
        node("Compress", ["X", "row"], ["Compress"], axis=0),
        node("Greater", ["X", "filler"], ["large"]),
        node("NonZero", ["large"], ["NonZero"]),
        node("Trilu", ["X"], ["Trilu"], upper=0),
        node("Concat", ["X", "Squeeze", "Trilu"], ["Concat"], axis=-2),
    ]
    integers = {"TopK_places", "Least_places", "Shape", "Size", "Range", "ConstantOfShape", "NonZero"}
    outputs = {}
    for each in nodes:
        for output in each.output:
            if output not in ("large", "range_index"):
                outputs[output] = INT64 if output in integers else FLOAT
    x = table
    said = {
        "Reshape": x.reshape(6, 2, 4),
        "Transpose": x.reshape(6, 2, 4).transpose(2, 0, 1),
        "Slice": x[1:7, ::-2],
        "Pad": np.pad(x, ((0, 1), (1, 0)), constant_values=9),
        "Gather": x[:, constants["columns"]],
        "TopK": -np.sort(-x, axis=1)[:, :3],
    }
    return Made(model(nodes, {"X": table}, outputs, constants), {"X": table}, said, whole=True)


@hand("activations", "activations and elementary functions")
def _():
    table = np.concatenate(
        [numbers(rows=5).reshape(-1), np.array([0, -0.0, 20, -20, 88, -88, 1e-8], dtype=np.float32)]
    )[:, None]
    positive = np.abs(table) + np.float32(0.01)
    share = np.float32(1) / (1 + positive)
    of_any = [
        "Relu",
        "Sigmoid",
        "Tanh",
        "Softplus",
        "Softsign",
        "Elu",
        "Selu",
        "LeakyRelu",
        "HardSigmoid",
        "HardSwish",
        "Celu",
        "ThresholdedRelu",
        "Erf",
        "Exp",
        "Floor",
        "Ceil",
        "Round",
        "Sign",
        "Sin",
        "Cos",
        "Atan",
        "Identity",
        "Gelu",
        "Mish",
    ]
    nodes = [node(operator, ["X"], [operator]) for operator in of_any]
    nodes += [node(operator, ["positive"], [operator]) for operator in ("Log", "Sqrt", "Reciprocal")]
    nodes += [node(operator, ["share"], [operator]) for operator in ("Asin", "Acos", "Tan", "Atanh")]
    nodes.append(node("PRelu", ["X", "slope"], ["PRelu"]))
    nodes.append(node("Pow", ["positive", "power"], ["Pow"]))
    outputs = {n.output[0]: FLOAT for n in nodes}
    x = table.astype(float)
    said = {
        "Sigmoid": 1 / (1 + np.exp(-x)),
        "Tanh": np.tanh(x),
        "Exp": np.exp(x),
        "Round": np.round(x),
        "Softplus": np.logaddexp(0, x),
        "Pow": positive.astype(float) ** 2.5,
    }
    inputs = {"X": table, "positive": positive, "share": share}
    constants = {"slope": np.array([0.2], dtype=np.float32), "power": np.array(2.5, dtype=np.float32)}
    return Made(model(nodes, inputs, outputs, constants, opsets=((20, ""),), ir=9), inputs, said, whole=True)


@hand("dense_layers", "MatMul, Gemm in all transpositions, BatchNormalization, LayerNormalization, softmaxes")
def _():
    table = numbers()
    rng = np.random.default_rng(69)
    square = np.round(rng.normal(size=(8, 8)), 3).astype(np.float32)
    vector = np.round(rng.normal(size=8), 3).astype(np.float32)
    stack = np.round(rng.normal(size=(3, 8, 2)), 3).astype(np.float32)
    nodes = [
        node("MatMul", ["X", "square"], ["MatMul"]),
        node("MatMul", ["X", "vector"], ["MatVec"]),
        node("MatMul", ["X", "stack"], ["MatStack"]),
        node("Gemm", ["X", "square", "vector"], ["Gemm"], transB=1, alpha=0.5, beta=-1.0),
        node("Gemm", ["square", "X"], ["GemmT"], transA=1, transB=1),
        node("BatchNormalization", ["X", "scale", "vector", "mean", "scale"], ["BatchNormalization"], epsilon=0.001),
        node("LayerNormalization", ["X", "scale", "vector"], ["LayerNormalization"]),
        node("Softmax", ["X"], ["Softmax"]),
        node("LogSoftmax", ["X"], ["LogSoftmax"]),
        node("Softmax", ["X"], ["Softmax_0"], axis=0),
        node("LpNormalization", ["X"], ["LpNormalization"], p=2, axis=1),
        node("Hardmax", ["X"], ["Hardmax"]),
        node("Einsum", ["X", "square"], ["Einsum"], equation="ni,ji->nj"),
    ]
    constants = {
        "square": square,
        "vector": vector,
        "stack": stack,
        "scale": np.linspace(0.5, 2, 8, dtype=np.float32),
        "mean": vector * 0.5,
    }
    x = table.astype(float)
    said = {
        "MatMul": x @ square,
        "MatVec": x @ vector,
        "MatStack": x @ stack,
        "Gemm": 0.5 * x @ square.T - vector,
        "GemmT": square.T @ x.T,
        "Softmax": softmax(x),
        "Einsum": x @ square.T,
    }
    return Made(
        model(nodes, {"X": table}, {n.output[0]: FLOAT for n in nodes}, constants), {"X": table}, said, whole=True
    )

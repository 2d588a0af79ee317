"""Models for the tests of protocols and clients: between them every kind of input and output that a
model of this trade has. Each is scored by ONNX Runtime too, and the numbers have to agree."""

import functools

import numpy
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from sklearn.ensemble import GradientBoostingClassifier

from models import save, tensor_info

COLOURS = ["red", "green", "blue", "Zoë \U0001f980"]

# ONNX type -> (the protocol's name, numpy type)
TYPES = {
    "tensor(bool)": ("BOOL", numpy.bool_),
    "tensor(int32)": ("INT32", numpy.int32),
    "tensor(int64)": ("INT64", numpy.int64),
    "tensor(float)": ("FP32", numpy.float32),
    "tensor(double)": ("FP64", numpy.float64),
    "tensor(string)": ("BYTES", object),
}


def gradient_boosting_model(models_dir, name="boosted"):
    """measurements [N,4] float -> label [N] int64, probabilities [N,3] float: a trained ensemble."""
    random = numpy.random.default_rng(11)
    rows = random.normal(size=(400, 4))
    classes = numpy.digitize(rows[:, 0] + rows[:, 1] * rows[:, 2], [-0.5, 0.7]) * 10
    trained = GradientBoostingClassifier(n_estimators=20, max_depth=3, random_state=0).fit(rows, classes)
    forest = {key: [] for key in ("treeids", "nodeids", "featureids", "values", "modes")}
    forest |= {key: [] for key in ("truenodeids", "falsenodeids")}
    leaves = {key: [] for key in ("treeids", "nodeids", "ids", "weights")}
    trees = [(k, stage[k].tree_) for stage in trained.estimators_ for k in range(3)]
    for number, (k, tree) in enumerate(trees):
        for node in range(tree.node_count):
            is_leaf = tree.children_left[node] < 0
            forest["treeids"].append(number)
            forest["nodeids"].append(node)
            forest["featureids"].append(0 if is_leaf else int(tree.feature[node]))
            forest["values"].append(0.0 if is_leaf else float(tree.threshold[node]))
            forest["modes"].append("LEAF" if is_leaf else "BRANCH_LEQ")
            forest["truenodeids"].append(0 if is_leaf else int(tree.children_left[node]))
            forest["falsenodeids"].append(0 if is_leaf else int(tree.children_right[node]))
            if is_leaf:
                leaves["treeids"].append(number)
                leaves["nodeids"].append(node)
                leaves["ids"].append(k)
                leaves["weights"].append(float(tree.value[node, 0, 0]) * trained.learning_rate)
    save(
        [
            helper.make_node(
                "TreeEnsembleClassifier",
                ["measurements"],
                ["label", "probabilities"],
                domain="ai.onnx.ml",
                post_transform="SOFTMAX",
                classlabels_int64s=[0, 10, 20],
                base_values=[float(numpy.log(prior)) for prior in trained.init_.class_prior_],
                **{f"nodes_{key}": values for key, values in forest.items()},
                **{f"class_{key}": values for key, values in leaves.items()},
            )
        ],
        [tensor_info("measurements", TensorProto.FLOAT, ["N", 4])],
        [
            tensor_info("label", TensorProto.INT64, ["N"]),
            tensor_info("probabilities", TensorProto.FLOAT, ["N", 3]),
        ],
        [],
        models_dir,
        name,
    )
    return name


def string_pipeline_model(models_dir, name="pipeline"):
    """colour [N,1] string, size [N,1] float -> verdict [N] string, scores [N,2] float."""
    save(
        [
            helper.make_node(
                "OneHotEncoder",
                ["colour"],
                ["encoded"],
                domain="ai.onnx.ml",
                cats_strings=COLOURS,
                zeros=1,
            ),
            helper.make_node("Reshape", ["encoded", "two"], ["flat"]),
            helper.make_node("Concat", ["flat", "size"], ["features"], axis=1),
            helper.make_node(
                "LinearClassifier",
                ["features"],
                ["verdict", "scores"],
                domain="ai.onnx.ml",
                coefficients=[-0.5, 0.25, 1.0, -2.0, -0.125, 0.5, -0.25, -1.0, 2.0, 0.125],
                intercepts=[0.1, -0.1],
                classlabels_strings=["nein", "jä"],
                post_transform="SOFTMAX",
                multi_class=0,
            ),
        ],
        [
            tensor_info("colour", TensorProto.STRING, ["N", 1]),
            tensor_info("size", TensorProto.FLOAT, ["N", 1]),
        ],
        [
            tensor_info("verdict", TensorProto.STRING, ["N"]),
            tensor_info("scores", TensorProto.FLOAT, ["N", 2]),
        ],
        [numpy_helper.from_array(numpy.array([-1, len(COLOURS)], numpy.int64), "two")],
        models_dir,
        name,
    )
    return name


def mixed_model(models_dir, name="mixed"):
    """flag [N,1] bool, count [N,1] int32, visits [N,1] int64, amount [N,2] double -> as many outputs."""
    save(
        [
            helper.make_node("Not", ["flag"], ["off"]),
            helper.make_node("Add", ["count", "count"], ["twice"]),
            helper.make_node("Mul", ["visits", "visits"], ["squared"]),
            helper.make_node("Cast", ["count"], ["count_as_double"], to=TensorProto.DOUBLE),
            helper.make_node("Mul", ["amount", "count_as_double"], ["product"]),
        ],
        [
            tensor_info("flag", TensorProto.BOOL, ["N", 1]),
            tensor_info("count", TensorProto.INT32, ["N", 1]),
            tensor_info("visits", TensorProto.INT64, ["N", 1]),
            tensor_info("amount", TensorProto.DOUBLE, ["N", 2]),
        ],
        [
            tensor_info("off", TensorProto.BOOL, ["N", 1]),
            tensor_info("twice", TensorProto.INT32, ["N", 1]),
            tensor_info("squared", TensorProto.INT64, ["N", 1]),
            tensor_info("product", TensorProto.DOUBLE, ["N", 2]),
        ],
        [],
        models_dir,
        name,
    )
    return name


def make_models(models_dir):
    """Writes every model; returns their names."""
    return [make(models_dir) for make in (gradient_boosting_model, string_pipeline_model, mixed_model)]


MODELS = ["boosted", "pipeline", "mixed"]


class Judge:
    """A model file in ONNX Runtime: makes rows for it and knows the right answers."""

    def __init__(self, models_dir, name, version="1"):
        path = models_dir / name / version / "model.onnx"
        self.name = name
        self.session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        self.inputs = {i.name: (i.type, i.shape[1]) for i in self.session.get_inputs()}
        self.outputs = {o.name: TYPES[o.type][0] for o in self.session.get_outputs()}

    def datatype(self, name):
        return TYPES[self.inputs[name][0]][0]

    def rows(self, count, seed=1):
        """Input name -> array of `count` rows, always the same for a seed."""
        random = numpy.random.default_rng(seed)
        feed = {}
        for name, (kind, width) in self.inputs.items():
            datatype, dtype = TYPES[kind]
            shape = (count, width)
            if datatype == "BYTES":
                feed[name] = random.choice(numpy.array([*COLOURS, "unheard of"], dtype=object), size=shape)
            elif datatype == "BOOL":
                feed[name] = random.integers(0, 2, size=shape).astype(dtype)
            elif datatype.startswith("INT"):
                feed[name] = random.integers(-1000, 1000, size=shape).astype(dtype)
            else:
                feed[name] = random.normal(size=shape).astype(dtype)
        return feed

    def answers(self, feed):
        """Output name -> array."""
        return dict(zip(self.outputs, self.session.run(list(self.outputs), feed)))

    def check(self, feed, found):
        """Compares outputs, name -> array, with ONNX Runtime's; texts may be bytes or str."""
        expected = self.answers(feed)
        assert list(found) == list(expected)
        for name, array in expected.items():
            assert found[name].shape == array.shape, name
            if array.dtype == object:
                assert texts(found[name]).tolist() == array.tolist(), name
                continue
            assert found[name].dtype == array.dtype, name
            if array.dtype.kind == "f":
                numpy.testing.assert_allclose(found[name], array, rtol=1e-5, atol=1e-6, err_msg=name)
            else:
                assert found[name].tolist() == array.tolist(), name

    def json_inputs(self, feed):
        """The rows as `inputs` of a JSON request."""
        return [
            {
                "name": name,
                "shape": list(array.shape),
                "datatype": self.datatype(name),
                "data": array.reshape(-1).tolist(),
            }
            for name, array in feed.items()
        ]

    def from_json(self, outputs):
        """Output name -> array, of the `outputs` of a JSON answer."""
        dtypes = dict(TYPES.values())
        return {
            o["name"]: numpy.array(o["data"], dtype=dtypes[o["datatype"]]).reshape(o["shape"])
            for o in outputs
        }


def texts(array):
    """Texts as str, whatever a client made of them."""
    decode = numpy.vectorize(lambda t: t.decode() if isinstance(t, bytes) else str(t), otypes=[object])
    return decode(array) if array.size else array


@functools.cache
def judge(models_dir, name):
    return Judge(models_dir, name)

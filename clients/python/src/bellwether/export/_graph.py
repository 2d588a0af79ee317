"""An estimator as an ONNX graph with one input a column."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator
from typing import Any, Literal

import numpy

from .._errors import ConversionError
from ._sample import Sample
from ._trees import trees_of, widen

Precision = Literal["float64", "float32"]

#: Versions of the operator sets: what current exporters write and the server runs.
_TARGET = {"": 18, "ai.onnx.ml": 3}


def last_step(estimator: Any) -> Any:
    """The model at the end of a pipeline."""
    while hasattr(estimator, "steps"):
        estimator = estimator.steps[-1][1]
    return estimator


def precisions(estimator: Any) -> list[Precision]:
    """How numbers may be handed to the graph, the best first.

    Only trees that compare in float64 gain by it. Those of XGBoost and of scikit-learn's forests compare in
    float32 by themselves, and of the other operators many runtimes have float32 forms only.
    """
    name = type(last_step(estimator)).__name__
    return ["float64", "float32"] if name.startswith(("HistGradientBoosting", "LGBM")) else ["float32"]


def build(estimator: Any, sample: Sample, precision: Precision) -> Any:
    """The graph, with inputs named like features: those of the columns that the estimator reads.

    Raises whatever an exporter raises, and :class:`ConversionError` where it would be wrong.
    """
    try:
        import skl2onnx
        from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType
    except ImportError as error:
        raise ConversionError(
            f"{error}: install the exporters with pip install 'bellwether[deploy]'"
        ) from error

    model = _over_columns(_prepared(estimator), sample)
    register_boosters(_models(model))
    number = DoubleTensorType if precision == "float64" else FloatTensorType
    types = [
        (column.name, (StringTensorType if column.kind == "text" else number)([None, 1]))
        for column in sample.columns
    ]
    last = last_step(model)
    # Without: probabilities as a list of maps, one a row.
    options = {id(last): {"zipmap": False}} if hasattr(last, "predict_proba") else None
    with warnings.catch_warnings(), _quiet("skl2onnx"):
        warnings.simplefilter("ignore")
        try:
            graph = skl2onnx.to_onnx(model, initial_types=types, options=options, target_opset=_TARGET)
        except Exception as error:
            inside = type(last_step(estimator)).__name__
            texts = [column.name for column in sample.columns if column.kind == "text"]
            if type(error).__name__ == "InvalidInputTypeException" and texts:
                raise ConversionError(
                    f"{inside} has no ONNX form that takes text, as in the column {texts[0]}: encode it in "
                    f"front, make_pipeline(ColumnTransformer(… OneHotEncoder(…) …), {inside}(…))"
                ) from error
            # The exporter knows columns by name only at the front of a pipeline.
            if type(error).__name__ != "InvalidInputLengthException":
                raise
            raise ConversionError(
                f"{inside} around a ColumnTransformer has no ONNX form: make it the other way round, "
                f"make_pipeline(ColumnTransformer(…), {inside}(…))"
            ) from error
    _name_inputs(graph, [column.feature for column in sample.columns])
    if precision == "float64":
        trees = trees_of(last)
        if trees is None or not widen(graph, trees):
            raise ConversionError("the trees of the graph are not those of the estimator")
        _declare_float32(graph)
    return graph


def _name_inputs(graph: Any, features: list[str]) -> None:
    """Names the inputs, which exporters name after columns in ways of their own, and drops unused ones."""
    inputs = list(graph.graph.input)
    if len(inputs) != len(features):
        raise ConversionError(f"the graph has {len(inputs)} inputs for {len(features)} columns")
    names = {given.name: feature for given, feature in zip(inputs, features)}
    inner = {name for node in graph.graph.node for name in node.output}
    inner |= {constant.name for constant in graph.graph.initializer}
    # What happens to be called like a feature gets another name.
    names.update({name: f"{name}__inner" for name in inner if name in features})
    for node in graph.graph.node:
        for names_of in (node.input, node.output):
            names_of[:] = [names.get(name, name) for name in names_of]
    for named in [*graph.graph.initializer, *graph.graph.output, *inputs]:
        named.name = names.get(named.name, named.name)
    del graph.graph.value_info[:]
    read = {name for node in graph.graph.node for name in node.input}
    used = [given for given in inputs if given.name in read]
    del graph.graph.input[:]
    graph.graph.input.extend(used)


class _quiet:
    """Exporters tell their warnings to the log as well."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def __enter__(self) -> None:
        self._level = self._logger.level
        self._logger.setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        self._logger.setLevel(self._level)


def _declare_float32(graph: Any) -> None:
    """Tree operators answer in float32 whatever they take; exporters declare the type of the input."""
    from onnx import TensorProto

    for output in graph.graph.output:
        if output.type.tensor_type.elem_type == TensorProto.DOUBLE:
            output.type.tensor_type.elem_type = TensorProto.FLOAT


def _prepared(estimator: Any) -> Any:
    """A copy that exporters understand and that takes missing text as the server passes it on."""
    prepared = copy.deepcopy(estimator)
    for model in _models(prepared):
        if type(model).__module__.partition(".")[0] == "xgboost" and hasattr(model, "get_booster"):
            # The exporter only knows features by their numbers.
            model.get_booster().feature_names = None
        categories = getattr(model, "categories_", None)
        if isinstance(categories, list):
            model.categories_ = [_without_missing(values) for values in categories]
        if type(model).__name__ == "SimpleImputer" and model.statistics_.dtype.kind in "OUT":
            model.missing_values = ""
    return prepared


def _without_missing(values: Any) -> Any:
    """Categories of text with the missing one as empty text."""
    if values.dtype.kind not in "OUT":
        return values
    listed = ["" if not isinstance(value, str) else value for value in values.tolist()]
    changed = listed.count("") == 1 and any(not isinstance(value, str) for value in values.tolist())
    texts = any(isinstance(value, str) for value in values.tolist())
    return numpy.array(listed, dtype=object) if changed and texts else values


def _models(estimator: Any) -> Iterator[Any]:
    """An estimator and those in it."""
    yield estimator
    inner: list[Any] = []
    for name in ("steps", "transformers_", "transformer_list", "estimators_", "calibrated_classifiers_"):
        found = getattr(estimator, name, None)
        if isinstance(found, (list, numpy.ndarray)):
            inner += list(numpy.ravel(found)) if isinstance(found, numpy.ndarray) else found
    for name in ("estimator", "estimator_", "final_estimator_", "regressor_", "transformer_"):
        inner.append(getattr(estimator, name, None))
    for item in inner:
        parts = item if isinstance(item, tuple) else (item,)
        for part in parts:
            if hasattr(part, "get_params") or type(part).__name__ == "_CalibratedClassifier":
                yield from _models(part)


def _over_columns(estimator: Any, sample: Sample) -> Any:
    """The estimator behind a step that puts the columns side by side, unless it names columns itself."""
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import Pipeline

    if any(isinstance(model, ColumnTransformer) for model in _models(estimator)):
        return estimator
    categorical = getattr(estimator, "booster_", None) and estimator.booster_.pandas_categorical
    joined = _encoded(sample, categorical) if categorical else _joined(sample)
    steps = list(estimator.steps) if isinstance(estimator, Pipeline) else [("model", estimator)]
    return Pipeline([("columns", joined), *steps])


def _joined(sample: Sample) -> Any:
    from sklearn.compose import ColumnTransformer

    names = [column.name for column in sample.columns]
    return ColumnTransformer([("all", "passthrough", names)]).fit(_frame(sample))


def _encoded(sample: Sample, categories: list[list[Any]]) -> Any:
    """Columns of text as LightGBM encodes the categories of pandas: by their position, NaN for others."""
    from sklearn.compose import ColumnTransformer
    from sklearn.preprocessing import OrdinalEncoder

    texts = [column for column in sample.columns if column.kind == "text"]
    if len(texts) != len(categories):
        raise ConversionError(
            f"the estimator was fitted with {len(categories)} categorical columns, the sample has "
            f"{len(texts)} columns of text; categories that are numbers cannot be converted, make them text"
        )
    known = {column.name: values for column, values in zip(texts, categories)}
    steps: list[tuple[str, Any, list[str]]] = []
    for column in sample.columns:
        encoder: Any = "passthrough"
        if column.name in known:
            encoder = OrdinalEncoder(
                categories=[known[column.name]], handle_unknown="use_encoded_value", unknown_value=-1
            )
        steps.append((column.name, encoder, [column.name]))
    return ColumnTransformer(steps).fit(_frame(sample))


def _frame(sample: Sample) -> Any:
    """The sample as a data frame that tells text from numbers."""
    import pandas

    return pandas.DataFrame({column.name: column.feed(numpy.float64).ravel() for column in sample.columns})


def register_boosters(models: Iterator[Any]) -> None:
    """Lets skl2onnx convert the models of LightGBM and XGBoost that there are."""
    libraries = {type(model).__module__.partition(".")[0] for model in models}
    if not libraries & {"lightgbm", "xgboost"}:
        return
    from skl2onnx import update_registered_converter
    from skl2onnx.common.shape_calculator import (
        calculate_linear_classifier_output_shapes,
        calculate_linear_regressor_output_shapes,
    )

    options = {"nocl": [True, False], "zipmap": [True, False, "columns"]}
    shapes = {
        "Classifier": calculate_linear_classifier_output_shapes,
        "Regressor": calculate_linear_regressor_output_shapes,
    }
    try:
        if "lightgbm" in libraries:
            import lightgbm
            from onnxmltools.convert.lightgbm.operator_converters.LightGbm import convert_lightgbm

            classes, converter = [lightgbm.LGBMClassifier, lightgbm.LGBMRegressor], convert_lightgbm
            _register(update_registered_converter, classes, shapes, converter, options, {"split": None})
        if "xgboost" in libraries:
            import xgboost
            from onnxmltools.convert.xgboost.operator_converters.XGBoost import convert_xgboost

            classes = [
                xgboost.XGBClassifier,
                xgboost.XGBRFClassifier,
                xgboost.XGBRegressor,
                xgboost.XGBRFRegressor,
            ]
            _register(update_registered_converter, classes, shapes, convert_xgboost, options, None)
    except ImportError as error:
        raise ConversionError(
            f"{error}: install the exporters with pip install 'bellwether[deploy]'"
        ) from error


def _register(
    register: Any,
    classes: list[Any],
    shapes: dict[str, Any],
    converter: Any,
    classifiers: Any,
    regressors: Any,
) -> None:
    for one in classes:
        kind = "Classifier" if one.__name__.endswith("Classifier") else "Regressor"
        options = classifiers if kind == "Classifier" else regressors
        register(one, f"Bellwether{one.__name__}", shapes[kind], converter, options=options)

"""Converting an estimator, and holding its ONNX form against it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args

import numpy

from .._errors import ConversionError
from ._bundle import Bundle, golden, manifest, typical
from ._graph import Precision, build, last_step, precisions
from ._sample import Sample, spread

Task = Literal["binary", "affinity", "regression"]
Report = Callable[[str, int, Union[int, None]], None]

#: Graphs answer in float32, which holds seven digits. That leaves probabilities well within this.
PROBABILITY_TOLERANCE = 1e-6
#: Values are sums of many terms, which cost a digit more; XGBoost adds them up in float32 by itself.
VALUE_TOLERANCE = 1e-5
#: Characters of an exporter's error that are passed on.
MOST_WORDS = 300


@dataclass(frozen=True)
class _Edge:
    """A row that was made up, and what the estimator says of it."""

    words: str
    sample: Sample
    answer: numpy.ndarray


@dataclass(frozen=True)
class _Form:
    """An ONNX form of the estimator, and how well it says what the estimator says."""

    precision: Precision
    graph: Any
    #: ``None`` when nobody could look.
    differences: numpy.ndarray | None
    found: numpy.ndarray | None
    edge_problem: str | None

    @property
    def largest(self) -> float:
        return 0.0 if self.differences is None else float(self.differences.max())


def convert(
    estimator: Any,
    sample: Any,
    *,
    features: Sequence[str] | Mapping[str, str] | None = None,
    view: str | None = None,
    task: Task | None = None,
    positive: Any = None,
    unless: Mapping[Any, str] | None = None,
    description: str = "",
    owner: str = "",
    label: Mapping[str, Any] | None = None,
    baseline: Mapping[str, Any] | None = None,
    tolerance: float | None = None,
    golden_rows: int = 50,
    edges: bool = True,
    check: bool = True,
    report: Report | None = None,
) -> Bundle:
    """A fitted estimator of scikit-learn, LightGBM or XGBoost as a version that a server can serve.

    ``sample``
        Some hundred rows as the estimator takes them, like those to be scored. Columns are features of the
        same name; for other names ``features`` is ``{column: feature}``, or a list for an array. Columns that
        the estimator does not read are left out.
    ``view``
        The feature view; may be left out when only one has all the features.
    ``task``, ``positive``, ``unless``
        Two classes are ``"binary"``: the score is the probability of the class ``positive``, the second one
        when left out. More classes need ``positive``, or ``task="affinity"``: the best class that is left is
        the label, and a class is not offered to those for whom the SQL of ``unless[class]`` holds.
    ``label``
        What the score predicts: ``{"outcome": "churn", "window": "30d", "maturity": "30d"}``.
    ``baseline``
        The reference customer for reasons, by features; by default a typical row of the sample, ``{}`` for
        the view's defaults.
    ``tolerance``, ``golden_rows``, ``edges``, ``check``
        How far the served score may lie from the estimator's: 1e-6 for probabilities and 1e-5 for values,
        times the value where that is larger than 1. How many rows the server reproduces, and whether rows
        with missing values and unseen text, as far as the estimator takes them, are among them. With
        ``check`` and onnxruntime installed, all rows of the sample are compared here first.

    Raises :class:`bellwether.ConversionError` when there is no ONNX form, or one that says something else.
    """
    say = report or (lambda stage, done, total: None)
    say("convert", 0, None)
    _refuse_arguments(estimator, task, label, baseline, tolerance)
    estimator = getattr(estimator, "best_estimator_", estimator)
    rows = Sample.of(sample, features)
    answers = _predict(estimator, rows)
    made_up = _edges(estimator, rows) if edges else []
    kind, column = _task(estimator, task, positive)
    if tolerance is None:
        tolerance = VALUE_TOLERANCE if kind == "regression" else PROBABILITY_TOLERANCE

    best = _best_form(estimator, rows, answers, made_up, tolerance, check, say)
    _refuse(best, rows, answers, tolerance)

    output = best.graph.graph.output[-1].name
    read = _inputs(best.graph)
    rows = rows.only(read)
    chosen = spread(rows.rows, golden_rows)
    kept = [(rows.row(index), answers[index].tolist()) for index in chosen]
    kept += [(edge.sample.only(read).row(0), edge.answer[0].tolist()) for edge in made_up]
    reference = typical(rows.columns) if baseline is None else dict(baseline)
    sections = {
        "model": {"task": kind, "view": view, "description": description or None, "owner": owner or None},
        "output": {"probabilities": output, "positive": column},
        "label": dict(label or {}),
        "reasons.baseline": reference,
        "training": {
            "estimator": _described(estimator),
            "precision": best.precision,
            "sample_rows": rows.rows,
            "largest_difference": best.largest if best.differences is not None else None,
        },
    }
    classes = estimator.classes_ if kind == "affinity" else []
    choices = [{"label": str(one), "unless": (unless or {}).get(one)} for one in classes]
    files = {
        "model.onnx": best.graph.SerializeToString(),
        "model.toml": manifest(sections, choices),
        "golden.json": golden(tolerance, output, kept),
    }
    checked = 0 if best.differences is None else rows.rows + len(made_up)
    return Bundle(files, best.precision, checked, best.largest)


def _best_form(
    estimator: Any,
    rows: Sample,
    answers: numpy.ndarray,
    made_up: list[_Edge],
    tolerance: float,
    check: bool,
    say: Report,
) -> _Form:
    """The first form that says what the estimator says, or else the one that comes nearest."""
    forms: list[_Form] = []
    reasons: dict[str, list[str]] = {}
    for precision in precisions(estimator):
        try:
            graph = build(estimator, rows, precision)
            say("check", 0, None)
            form = _compared(precision, graph, rows, answers, made_up, tolerance, check)
        except Exception as error:  # Exporters and runtimes raise all kinds.
            reasons.setdefault(_in_short(error), []).append(precision)
            continue
        forms.append(form)
        if form.largest <= tolerance and form.edge_problem is None:
            break
    if not forms:
        name = type(last_step(estimator)).__name__
        said = "; ".join(f"{' and '.join(found)}: {words}" for words, found in reasons.items())
        raise ConversionError(f"{name}: no ONNX form ({said})")
    return min(
        forms, key=lambda form: (form.largest > tolerance, form.edge_problem is not None, form.largest)
    )


def _refuse_arguments(
    estimator: Any, task: Any, label: Any, baseline: Any, tolerance: float | None
) -> None:
    """Raises for what could only fail later, or be taken for something else."""
    if isinstance(estimator, type):
        raise ConversionError(f"expected a fitted estimator, found the class {estimator.__name__} itself")
    module, _, _ = type(estimator).__module__.partition(".")
    if type(estimator).__name__ == "Booster" and module in ("lightgbm", "xgboost"):
        prefix = "LGBM" if module == "lightgbm" else "XGB"
        raise ConversionError(
            f"expected a fitted estimator, found a Booster of {module}, which does not say what it predicts: "
            f"fit an {prefix}Classifier or {prefix}Regressor, which holds one"
        )
    if task is not None and task not in get_args(Task):
        known = ", ".join(f'"{one}"' for one in get_args(Task))
        raise ConversionError(f"task: expected one of {known}, found {task!r}")
    for name, given in (("label", label), ("baseline", baseline)):
        if given is not None and not isinstance(given, Mapping):
            raise ConversionError(f"{name}: expected a mapping, found {given!r}")
    if tolerance is not None and not tolerance > 0:
        raise ConversionError(f"tolerance: expected a number above 0, found {tolerance!r}")


def _in_short(error: BaseException) -> str:
    """What an exporter says, and what caused it. Some say it with every node of every tree."""
    if isinstance(error, ConversionError):
        return str(error)
    first, _, rest = str(error).strip().partition("\n")
    words = first if len(first) <= MOST_WORDS and not rest else f"{first[:MOST_WORDS]} …"
    cause = "" if error.__cause__ is None else f", because of {_in_short(error.__cause__)}"
    return f"{type(error).__name__}: {words}{cause}"


def _predict(estimator: Any, rows: Sample) -> numpy.ndarray:
    """What the estimator says, ``[rows, classes]`` or ``[rows, 1]``."""
    if hasattr(estimator, "predict_proba"):
        answer = estimator.predict_proba(rows.table)
    elif hasattr(estimator, "classes_"):
        raise ConversionError(
            f"{type(last_step(estimator)).__name__} has no probabilities: put it into a CalibratedClassifierCV"
        )
    elif hasattr(estimator, "predict"):
        answer = estimator.predict(rows.table)
    else:
        raise ConversionError(
            f"expected a fitted estimator of scikit-learn, LightGBM or XGBoost, found {type(estimator).__name__}"
        )
    found = numpy.asarray(answer, dtype=numpy.float64).reshape(rows.rows, -1)
    if not numpy.isfinite(found).all():
        raise ConversionError("the estimator's own predictions on the sample are not all finite")
    return found


def _edges(estimator: Any, rows: Sample) -> list[_Edge]:
    """The made-up rows that the estimator takes."""
    taken: list[_Edge] = []
    for words, sample in rows.edges():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                taken.append(_Edge(words, sample, _predict(estimator, sample)))
        except Exception:  # An estimator may refuse such a row in any way it likes.
            continue
    return taken


def _task(estimator: Any, task: Task | None, positive: Any) -> tuple[Task, int | None]:
    """The task, and the column of the score."""
    classes = list(getattr(estimator, "classes_", [])) if hasattr(estimator, "predict_proba") else []
    if not classes:
        if task not in (None, "regression"):
            raise ConversionError(f"task: a regression cannot be {task!r}")
        return "regression", None
    if task == "regression":
        raise ConversionError("task: a classifier cannot be 'regression'")
    if task == "affinity":
        return "affinity", None
    if positive is not None:
        if positive not in classes:
            known = ", ".join(repr(one.item() if hasattr(one, "item") else one) for one in classes)
            raise ConversionError(
                f"positive: {positive!r} is not a class of the estimator, which has {known}"
            )
        return "binary", classes.index(positive)
    if len(classes) != 2:
        raise ConversionError(
            f"the estimator has {len(classes)} classes: say which one the score is for (positive=…), or that "
            'the best one is wanted (task="affinity")'
        )
    return "binary", 1


def _compared(
    precision: Precision,
    graph: Any,
    rows: Sample,
    answers: numpy.ndarray,
    made_up: list[_Edge],
    tolerance: float,
    check: bool,
) -> _Form:
    session = _session(graph) if check else None
    if session is None:
        return _Form(precision, graph, None, None, None)
    number_type = numpy.float64 if precision == "float64" else numpy.float32
    output = graph.graph.output[-1].name
    read = _inputs(graph)

    def run(sample: Sample) -> numpy.ndarray:
        (found,) = session.run([output], sample.only(read).feed(number_type))
        return numpy.asarray(found, dtype=numpy.float64).reshape(sample.rows, -1)

    found = run(rows)
    if found.shape != answers.shape:
        raise ConversionError(f"the graph answers {found.shape[1]} columns, the estimator {answers.shape[1]}")
    problem = None
    for edge in made_up:
        said = run(edge.sample)
        if _apart(said, edge.answer).max() > tolerance:
            expected, other = edge.answer[0].tolist(), said[0].tolist()
            problem = (
                f"{edge.words}: the estimator says {expected}, its ONNX form {other}. If that never happens, "
                "deploy with edges=False; otherwise treat such values in a step of the pipeline"
            )
            break
    return _Form(precision, graph, _apart(found, answers).max(axis=1), found, problem)


def _inputs(graph: Any) -> set[str]:
    """The features that the graph reads."""
    return {given.name for given in graph.graph.input}


def _apart(found: numpy.ndarray, expected: numpy.ndarray) -> numpy.ndarray:
    """Differences as the server measures them: of large values relative to them. NaN is no answer."""
    apart = numpy.abs(found - expected) / numpy.maximum(1.0, numpy.abs(expected))
    return numpy.where(numpy.isnan(apart), numpy.inf, apart)


def _session(graph: Any) -> Any:
    try:
        import onnxruntime
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(
        graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _refuse(form: _Form, rows: Sample, answers: numpy.ndarray, tolerance: float) -> None:
    """Raises when the form says something else than the estimator."""
    if form.differences is None or form.found is None:
        return
    if form.largest > tolerance:
        worst = int(form.differences.argmax())
        wrong = int((form.differences > tolerance).sum())
        raise ConversionError(
            f"the ONNX form says something else than the estimator: {wrong} of {rows.rows} rows differ by more "
            f"than {tolerance:g}; row {worst}: the estimator says {answers[worst].tolist()}, its ONNX form "
            f"{form.found[worst].tolist()}; the row is {rows.row(worst)}"
        )
    if form.edge_problem is not None:
        raise ConversionError(form.edge_problem)


def _described(estimator: Any) -> str:
    """``Pipeline(ColumnTransformer, LogisticRegression)``, for whoever reads the manifest."""
    steps = getattr(estimator, "steps", None)
    name = type(estimator).__name__
    return name if steps is None else f"{name}({', '.join(_described(step) for _, step in steps)})"

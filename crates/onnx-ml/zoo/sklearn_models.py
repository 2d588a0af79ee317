"""scikit-learn models, exported by skl2onnx."""

import numpy as np
import onnx
import skl2onnx
import sklearn
from skl2onnx.common.data_types import (
    BooleanTensorType,
    DoubleTensorType,
    FloatTensorType,
    Int64TensorType,
    StringTensorType,
)
from sklearn.base import is_classifier, is_regressor
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.compose import ColumnTransformer
from sklearn.cross_decomposition import PLSRegression
from sklearn.decomposition import PCA, KernelPCA, TruncatedSVD
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.ensemble import (
    AdaBoostClassifier,
    AdaBoostRegressor,
    BaggingClassifier,
    BaggingRegressor,
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.feature_selection import SelectKBest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, RationalQuadratic
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.linear_model import (
    BayesianRidge,
    ElasticNet,
    GammaRegressor,
    HuberRegressor,
    Lasso,
    LinearRegression,
    LogisticRegression,
    Perceptron,
    PoissonRegressor,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
    SGDRegressor,
    TweedieRegressor,
)
from sklearn.mixture import BayesianGaussianMixture, GaussianMixture
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier, MultiOutputRegressor
from sklearn.naive_bayes import BernoulliNB, CategoricalNB, ComplementNB, GaussianNB, MultinomialNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor, LocalOutlierFactor
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    Binarizer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    PowerTransformer,
    RobustScaler,
    StandardScaler,
    TargetEncoder,
)
from sklearn.svm import SVC, SVR, LinearSVC, LinearSVR, NuSVC, NuSVR, OneClassSVM
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier

import data
import zoo
from zoo import Made

PRODUCER = f"scikit-learn {sklearn.__version__} / skl2onnx {skl2onnx.__version__}"
OPSET = {"": 18, "ai.onnx.ml": 3}
OLD = {"": 11, "ai.onnx.ml": 1}
NEW = {"": 21, "ai.onnx.ml": 5}


def make_node_of_plain_numbers(op_type, inputs, outputs, name=None, **attributes):
    """onnx.helper.make_node, which refuses the NumPy numbers and truth values that skl2onnx hands it."""
    for key, value in attributes.items():
        if isinstance(value, list):
            value = [v.item() if isinstance(v, np.generic) else v for v in value]
            attributes[key] = [int(v) if isinstance(v, bool) else v for v in value]
    return onnx.helper.make_node(op_type, inputs, outputs, name=name, **attributes)


skl2onnx.common._container.make_node = make_node_of_plain_numbers


def export(model, types, options=None, opset=None, zipmap=False):
    """`options` are for the last step of a pipeline. `zipmap` None: the model has no such option."""
    last = model.steps[-1][1] if hasattr(model, "steps") else model
    chosen = {id(last): dict(options)} if options else {}
    if is_classifier(model) and zipmap is not None:
        chosen.setdefault(id(model), {})["zipmap"] = zipmap
    return skl2onnx.to_onnx(model, initial_types=types, options=chosen or None, target_opset=opset or OPSET)


def answers(model, table, onnx_model):
    """What scikit-learn says, under the output names of the file."""
    outputs = [o.name for o in onnx_model.graph.output]
    found = {}
    if is_classifier(model):
        found[outputs[0]] = model.predict(table)
        if len(outputs) > 1 and hasattr(model, "predict_proba"):
            found[outputs[1]] = model.predict_proba(table)
    elif is_regressor(model):
        found[outputs[0]] = np.asarray(model.predict(table))
    elif len(outputs) == 1 and hasattr(model, "transform"):
        made = model.transform(table)
        found[outputs[0]] = made.toarray() if hasattr(made, "toarray") else np.asarray(made)
    elif hasattr(model, "predict"):
        found[outputs[0]] = model.predict(table)
    return found


def numeric(
    name,
    build,
    target=None,
    kind="other",
    estimator=None,
    *,
    missing=0.0,
    change=None,
    dtype=np.float32,
    options=None,
    opset=None,
    zipmap=False,
    nan=True,
    shape=(None, 8),
    input_name="X",
    expected=None,
    tolerance=1e-4,
    no_reference="",
    rows=zoo.ROWS,
    whole=False,
    train_rows=data.TRAINING_ROWS,
):
    """Registers a model whose only input is a matrix of numbers."""

    def make():
        train = data.numbers(missing=missing)[:train_rows]
        test = data.numbers(rows, seed=101, missing=missing)
        if change:
            train, test = change(train), change(test)
        train, test = train.astype(dtype), test.astype(dtype)
        # Fit on float64 copies of the same values: what most users do.
        fitted_on = train.astype(np.float64) if np.dtype(dtype).kind == "f" else train
        labels = target(data.numbers(missing=missing))[:train_rows] if target else None
        model = build().fit(fitted_on, labels) if labels is not None else build().fit(fitted_on)
        tensor_type = {
            np.float32: FloatTensorType,
            np.float64: DoubleTensorType,
            np.int64: Int64TensorType,
            np.bool_: BooleanTensorType,
        }[dtype]
        columns = list(shape[:-1]) + [train.shape[1]] if shape else None
        exported = export(model, [(input_name, tensor_type(columns))], options, opset, zipmap)
        said = expected(model, test) if expected else answers(model, test, exported)
        if kind == "trees":
            return zoo.with_edges(exported, test, said, nan=nan, tolerance=tolerance, no_reference=no_reference)
        return Made(exported, {input_name: test}, said, tolerance, whole=whole, no_reference=no_reference)

    zoo.register(name, PRODUCER, estimator or described(build()), kind, make)


def described(model):
    if hasattr(model, "steps"):
        return " + ".join(described(step) for _, step in model.steps)
    return type(model).__name__


# ---------------------------------------------------------------------------------------------------
# Linear models


numeric("logistic_binary", lambda: make_pipeline(StandardScaler(), LogisticRegression()), data.binary)
numeric("logistic_multi", lambda: make_pipeline(StandardScaler(), LogisticRegression()), data.several)
numeric("logistic_strings", lambda: make_pipeline(MinMaxScaler(), LogisticRegression()), data.named)
numeric(
    "logistic_zipmap_int",
    lambda: make_pipeline(RobustScaler(), LogisticRegression()),
    data.several,
    estimator="RobustScaler + LogisticRegression, ZipMap with integer keys",
    zipmap=True,
)
numeric(
    "logistic_zipmap_strings",
    lambda: make_pipeline(MaxAbsScaler(), LogisticRegression()),
    data.named,
    estimator="MaxAbsScaler + LogisticRegression, ZipMap with string keys",
    zipmap=True,
)
numeric(
    "logistic_zipmap_columns",
    lambda: make_pipeline(StandardScaler(), LogisticRegression()),
    data.named,
    estimator="LogisticRegression, one output a class (zipmap=columns)",
    zipmap="columns",
    expected=lambda model, test: {"output_label": model.predict(test)},
)
numeric(
    "logistic_raw_scores",
    lambda: make_pipeline(StandardScaler(), LogisticRegression()),
    data.several,
    estimator="LogisticRegression, raw scores",
    options={"raw_scores": True},
    expected=lambda model, test: {
        "label": model.predict(test),
        "probabilities": model.decision_function(test),
    },
)
numeric(
    "logistic_double",
    lambda: make_pipeline(StandardScaler(), LogisticRegression()),
    data.binary,
    estimator="StandardScaler + LogisticRegression, float64 input",
    dtype=np.float64,
)
numeric(
    "logistic_int64",
    lambda: LogisticRegression(),
    data.binary,
    estimator="LogisticRegression, int64 input",
    dtype=np.int64,
    change=lambda table: np.round(table * 3),
)
numeric(
    "logistic_fixed_batch",
    lambda: make_pipeline(StandardScaler(), LogisticRegression()),
    data.binary,
    estimator="LogisticRegression, batch size fixed to 5",
    shape=(5, 8),
    rows=5,
    whole=True,
)
numeric("linear_regression", lambda: LinearRegression(), data.amount)
numeric(
    "ridge_opset11",
    lambda: make_pipeline(StandardScaler(), Ridge()),
    data.amount,
    estimator="StandardScaler + Ridge, old opsets (11 and ai.onnx.ml 1)",
    opset=OLD,
)
numeric("lasso", lambda: Lasso(alpha=0.5), data.amount)
numeric("elastic_net_double", lambda: ElasticNet(alpha=0.3), data.amount, dtype=np.float64)
numeric("bayesian_ridge", lambda: BayesianRidge(), data.amount)
numeric("huber", lambda: HuberRegressor(max_iter=1000), data.amount)
numeric("poisson_regressor", lambda: PoissonRegressor(), data.positive)
numeric("gamma_regressor", lambda: GammaRegressor(), data.positive)
numeric("tweedie_regressor", lambda: TweedieRegressor(power=1.5, link="log"), data.positive)
numeric(
    "sgd_classifier",
    lambda: make_pipeline(StandardScaler(), SGDClassifier(loss="log_loss", random_state=0)),
    data.several,
)
numeric(
    "sgd_modified_huber",
    lambda: make_pipeline(StandardScaler(), SGDClassifier(loss="modified_huber", random_state=0)),
    data.several,
)
numeric("sgd_regressor", lambda: make_pipeline(StandardScaler(), SGDRegressor(random_state=0)), data.amount)
numeric("perceptron", lambda: make_pipeline(StandardScaler(), Perceptron(random_state=0)), data.binary)
numeric("ridge_classifier", lambda: make_pipeline(StandardScaler(), RidgeClassifier()), data.several)
numeric(
    "polynomial_ridge",
    lambda: make_pipeline(StandardScaler(), PolynomialFeatures(3), Ridge(alpha=10.0)),
    data.amount,
)
numeric("pls_regression", lambda: PLSRegression(n_components=3), data.amount)

# ---------------------------------------------------------------------------------------------------
# Support vector machines


def scaled(model):
    return make_pipeline(StandardScaler(), model)


OTHER_COUPLING = "it couples the probabilities of pairs of classes in another way"

numeric("svc_rbf", lambda: scaled(SVC(probability=True, random_state=0)), data.binary)
numeric(
    "svc_rbf_multi", lambda: scaled(SVC(probability=True, random_state=0)), data.several, no_reference=OTHER_COUPLING
)
numeric(
    "svc_poly",
    lambda: scaled(SVC(kernel="poly", degree=3, coef0=1.0, probability=True, random_state=0)),
    data.named,
    no_reference=OTHER_COUPLING,
)
numeric("svc_linear", lambda: scaled(SVC(kernel="linear", probability=True, random_state=0)), data.binary)
numeric(
    "svc_sigmoid",
    lambda: scaled(SVC(kernel="sigmoid", gamma=0.02, probability=True, random_state=0)),
    data.several,
    no_reference=OTHER_COUPLING,
)
numeric("svc_scores", lambda: scaled(SVC()), data.several, estimator="StandardScaler + SVC without probabilities")
numeric(
    "nu_svc", lambda: scaled(NuSVC(nu=0.3, probability=True, random_state=0)), data.several, no_reference=OTHER_COUPLING
)
numeric("svr_rbf", lambda: scaled(SVR(C=50.0)), data.amount)
numeric("svr_poly", lambda: scaled(SVR(kernel="poly", C=5.0, coef0=0.5)), data.amount)
numeric("nu_svr", lambda: scaled(NuSVR(kernel="linear")), data.amount)
numeric(
    "linear_svc",
    lambda: scaled(LinearSVC(random_state=0)),
    data.several,
    zipmap=None,
    options={"raw_scores": True},
    expected=lambda model, test: {"label": model.predict(test), "probabilities": model.decision_function(test)},
)
numeric("linear_svr", lambda: scaled(LinearSVR(random_state=0)), data.amount)
numeric(
    "one_class_svm",
    lambda: scaled(OneClassSVM(nu=0.1)),
    expected=lambda model, test: {
        "label": model.predict(test),
        "scores": model.decision_function(test),
    },
)

# ---------------------------------------------------------------------------------------------------
# Naive Bayes, neighbours, clusters, densities


def non_negative(table):
    return np.abs(np.round(table * 2))


numeric("gaussian_nb", lambda: GaussianNB(), data.several)
numeric("bernoulli_nb", lambda: BernoulliNB(binarize=0.5), data.binary)
numeric("multinomial_nb", lambda: MultinomialNB(), data.several, change=non_negative)
numeric("complement_nb", lambda: ComplementNB(), data.several, change=non_negative)
numeric(
    "categorical_nb",
    lambda: CategoricalNB(min_categories=40),
    data.several,
    dtype=np.int64,
    change=lambda table: np.minimum(non_negative(table), 30),
)
numeric("knn_classifier", lambda: scaled(KNeighborsClassifier(5)), data.several)
numeric(
    "knn_classifier_cdist",
    lambda: scaled(KNeighborsClassifier(5)),
    data.several,
    estimator="StandardScaler + KNeighborsClassifier, with com.microsoft CDist",
    options={"optim": "cdist"},
)
numeric("knn_regressor", lambda: scaled(KNeighborsRegressor(4)), data.amount)
numeric(
    "knn_regressor_weighted",
    lambda: scaled(KNeighborsRegressor(4, weights="distance")),
    data.amount,
    estimator="StandardScaler + KNeighborsRegressor, weights by distance",
    # What the exporter writes comes out as the plain mean.
    expected=lambda model, test: {},
)
numeric(
    "knn_regressor_cdist",
    lambda: scaled(KNeighborsRegressor(4)),
    data.amount,
    estimator="StandardScaler + KNeighborsRegressor, with com.microsoft CDist",
    options={"optim": "cdist"},
)
numeric(
    "knn_manhattan",
    lambda: scaled(KNeighborsRegressor(3, metric="manhattan")),
    data.amount,
    estimator="StandardScaler + KNeighborsRegressor, Manhattan distance",
)
numeric("knn_imputer", lambda: KNNImputer(n_neighbors=3), missing=0.1)
numeric(
    "local_outlier_factor",
    lambda: scaled(LocalOutlierFactor(n_neighbors=10, novelty=True)),
    expected=lambda model, test: {"label": model.predict(test)},
)


def cluster_answers(model, test):
    test = test.astype(np.float64)
    return {"label": model.predict(test), "scores": model.transform(test)}


# Scaled: far from the origin ONNX Runtime's float32 distances lose the digits that are compared.
numeric(
    "kmeans",
    lambda: scaled(KMeans(5, n_init=2, random_state=0)),
    expected=cluster_answers,
    tolerance=1e-3,
)
numeric(
    "mini_batch_kmeans",
    lambda: scaled(MiniBatchKMeans(4, n_init=2, random_state=0)),
    expected=cluster_answers,
    tolerance=1e-3,
)
numeric(
    "gaussian_mixture",
    lambda: scaled(GaussianMixture(3, random_state=0)),
    expected=lambda model, test: {
        "label": model.predict(test),
        "probabilities": model.predict_proba(test),
    },
)
numeric(
    "gaussian_mixture_diag",
    lambda: scaled(BayesianGaussianMixture(n_components=3, covariance_type="diag", random_state=0, max_iter=300)),
    expected=lambda model, test: {
        "label": model.predict(test),
        "probabilities": model.predict_proba(test),
    },
)
numeric("lda", lambda: LinearDiscriminantAnalysis(), data.several)
numeric("qda", lambda: QuadraticDiscriminantAnalysis(), data.several)


numeric(
    "gaussian_process_double",
    lambda: GaussianProcessRegressor(RBF(4.0) * ConstantKernel(10.0), alpha=0.5, optimizer=None, normalize_y=True),
    data.amount,
    dtype=np.float64,
    train_rows=60,
)
numeric(
    "gaussian_process_std",
    lambda: GaussianProcessRegressor(
        RationalQuadratic(2.0) + ConstantKernel(1.0), alpha=1.0, optimizer=None, random_state=0
    ),
    data.amount,
    estimator="GaussianProcessRegressor with its standard deviation, float64 input",
    dtype=np.float64,
    options={"return_std": True},
    expected=lambda model, test: dict(zip(("GPmean", "GPcovstd"), model.predict(test, return_std=True))),
    train_rows=60,
)

# ---------------------------------------------------------------------------------------------------
# Trees


numeric("decision_tree_classifier", lambda: DecisionTreeClassifier(max_depth=6, random_state=0), data.several, "trees")
numeric("decision_tree_strings", lambda: DecisionTreeClassifier(max_depth=4, random_state=0), data.named, "trees")
numeric("decision_tree_regressor", lambda: DecisionTreeRegressor(max_depth=7, random_state=0), data.amount, "trees")
numeric(
    "decision_tree_paths",
    lambda: DecisionTreeClassifier(max_depth=4, random_state=0),
    data.several,
    estimator="DecisionTreeClassifier with decision path and leaf number",
    options={"decision_path": True, "decision_leaf": True},
    expected=lambda model, test: {
        "label": model.predict(test),
        "probabilities": model.predict_proba(test),
        "decision_path": ["".join(map(str, row)) for row in model.decision_path(test).toarray()],
        "decision_leaf": model.apply(test),
    },
    no_reference="it has no LabelEncoder of this kind",
)
numeric("extra_tree_classifier", lambda: ExtraTreeClassifier(max_depth=6, random_state=0), data.binary, "trees")
numeric("forest_binary", lambda: RandomForestClassifier(20, max_depth=6, random_state=0), data.binary, "trees")
numeric("forest_multi", lambda: RandomForestClassifier(15, max_depth=6, random_state=0), data.several, "trees")
numeric("forest_strings", lambda: RandomForestClassifier(15, max_depth=5, random_state=0), data.named, "trees")
numeric(
    "forest_zipmap",
    lambda: RandomForestClassifier(10, max_depth=5, random_state=0),
    data.named,
    "trees",
    estimator="RandomForestClassifier, ZipMap with string keys",
    zipmap=True,
)
numeric("forest_regressor", lambda: RandomForestRegressor(20, max_depth=6, random_state=0), data.amount, "trees")
numeric(
    "forest_missing",
    lambda: RandomForestClassifier(15, max_depth=6, random_state=0),
    data.binary,
    "trees",
    estimator="RandomForestClassifier trained with missing values",
    missing=0.15,
    # The exporter forgets on which side missing values go, so scikit-learn disagrees on such rows.
    expected=lambda model, test: {},
)
numeric(
    "forest_double",
    lambda: RandomForestClassifier(12, max_depth=6, random_state=0),
    data.several,
    "trees",
    estimator="RandomForestClassifier, float64 input",
    dtype=np.float64,
)
numeric(
    "forest_int64",
    lambda: RandomForestClassifier(12, max_depth=6, random_state=0),
    data.several,
    estimator="RandomForestClassifier, int64 input",
    dtype=np.int64,
    change=lambda table: np.round(table * 3),
)
numeric(
    "forest_two_targets",
    lambda: RandomForestRegressor(10, max_depth=5, random_state=0),
    lambda table: np.stack([data.amount(table), data.positive(table)], axis=1),
    "trees",
    estimator="RandomForestRegressor with two targets",
)
numeric(
    "forest_ml5",
    lambda: RandomForestRegressor(10, max_depth=5, random_state=0),
    data.amount,
    "trees",
    estimator="RandomForestRegressor, opsets 21 and ai.onnx.ml 5",
    opset=NEW,
)
numeric("extra_trees_classifier", lambda: ExtraTreesClassifier(15, max_depth=6, random_state=0), data.several, "trees")
numeric("extra_trees_regressor", lambda: ExtraTreesRegressor(15, max_depth=6, random_state=0), data.amount, "trees")
numeric(
    "gradient_boosting_binary",
    lambda: GradientBoostingClassifier(n_estimators=30, random_state=0),
    data.binary,
    "trees",
)
numeric(
    "gradient_boosting_multi",
    lambda: GradientBoostingClassifier(n_estimators=15, random_state=0),
    data.several,
    "trees",
)
numeric(
    "gradient_boosting_regressor",
    lambda: GradientBoostingRegressor(n_estimators=40, random_state=0),
    data.amount,
    "trees",
)
numeric(
    "hist_boosting_missing",
    lambda: HistGradientBoostingClassifier(max_iter=30, random_state=0),
    data.binary,
    "trees",
    estimator="HistGradientBoostingClassifier with missing values",
    missing=0.15,
)
numeric(
    "hist_boosting_multi", lambda: HistGradientBoostingClassifier(max_iter=12, random_state=0), data.several, "trees"
)
numeric(
    "hist_boosting_regressor",
    lambda: HistGradientBoostingRegressor(max_iter=40, random_state=0),
    data.amount,
    "trees",
    estimator="HistGradientBoostingRegressor with missing values",
    missing=0.1,
)
numeric(
    "isolation_forest",
    lambda: IsolationForest(n_estimators=20, max_samples=64, random_state=0),
    expected=lambda model, test: {"label": model.predict(test), "scores": model.decision_function(test)},
)


# ---------------------------------------------------------------------------------------------------
# Ensembles of other models


numeric(
    "adaboost_classifier",
    lambda: AdaBoostClassifier(DecisionTreeClassifier(max_depth=2, random_state=0), n_estimators=15, random_state=0),
    data.several,
)
numeric(
    "adaboost_regressor",
    lambda: AdaBoostRegressor(DecisionTreeRegressor(max_depth=3, random_state=0), n_estimators=12, random_state=0),
    data.amount,
)
numeric(
    "bagging_classifier",
    lambda: BaggingClassifier(DecisionTreeClassifier(max_depth=4), n_estimators=8, max_features=0.7, random_state=0),
    data.several,
)
numeric(
    "bagging_regressor",
    lambda: BaggingRegressor(make_pipeline(StandardScaler(), Ridge()), n_estimators=6, random_state=0),
    data.amount,
)


def committee():
    return [
        ("line", make_pipeline(StandardScaler(), LogisticRegression())),
        ("tree", DecisionTreeClassifier(max_depth=4, random_state=0)),
        ("bayes", GaussianNB()),
    ]


numeric(
    "voting_soft",
    lambda: VotingClassifier(committee(), voting="soft", flatten_transform=False, weights=np.array([2, 1, 1])),
    data.several,
)
numeric(
    "voting_hard",
    lambda: VotingClassifier(committee(), voting="hard", flatten_transform=False, weights=np.array([1.0, 1.3, 1.1])),
    data.several,
)
numeric(
    "voting_regressor",
    lambda: VotingRegressor([("ridge", Ridge()), ("tree", DecisionTreeRegressor(max_depth=4, random_state=0))]),
    data.amount,
)
numeric(
    "stacking_classifier",
    lambda: StackingClassifier(committee(), final_estimator=LogisticRegression(), cv=3),
    data.several,
)
numeric(
    "stacking_regressor",
    lambda: StackingRegressor(
        [("ridge", Ridge()), ("forest", RandomForestRegressor(8, max_depth=4, random_state=0))], cv=3
    ),
    data.amount,
)
numeric(
    "calibrated_sigmoid",
    lambda: CalibratedClassifierCV(RandomForestClassifier(8, max_depth=4, random_state=0), method="sigmoid", cv=3),
    data.several,
    estimator="CalibratedClassifierCV (sigmoid) of RandomForestClassifier",
)
numeric(
    "calibrated_isotonic",
    lambda: CalibratedClassifierCV(
        GradientBoostingClassifier(n_estimators=10, random_state=0), method="isotonic", cv=2
    ),
    data.binary,
    # The exporter takes the nearest step where scikit-learn interpolates.
    expected=lambda model, test: {"label": model.predict(test)},
    estimator="CalibratedClassifierCV (isotonic) of GradientBoostingClassifier",
)
numeric(
    "calibrated_svc",
    lambda: CalibratedClassifierCV(LinearSVC(random_state=0, max_iter=20000), cv=2),
    data.binary,
    estimator="CalibratedClassifierCV (sigmoid) of LinearSVC",
)
numeric("one_vs_rest", lambda: OneVsRestClassifier(make_pipeline(StandardScaler(), LogisticRegression())), data.several)
# The exporter of this one writes positions, not classes: 0, 1, 2, … are the only classes it gets right.
numeric(
    "one_vs_one",
    lambda: OneVsOneClassifier(LogisticRegression(max_iter=2000)),
    lambda table: (data.several(table) - 2) // 3,
    expected=lambda model, test: {"label": model.predict(test)},
)


def two_labels(table):
    return np.stack([data.binary(table), data.several(table)], axis=1)


numeric(
    "multi_output_classifier",
    lambda: MultiOutputClassifier(LogisticRegression(max_iter=2000)),
    two_labels,
    expected=lambda model, test: {
        "label": model.predict(test),
        "probabilities_0": model.predict_proba(test)[0],
        "probabilities_1": model.predict_proba(test)[1],
    },
)
numeric(
    "multi_output_regressor",
    lambda: MultiOutputRegressor(Ridge()),
    lambda table: np.stack([data.amount(table), data.positive(table)], axis=1),
)

# ---------------------------------------------------------------------------------------------------
# Networks


numeric("mlp_classifier", lambda: scaled(MLPClassifier((24, 12), max_iter=60, random_state=0)), data.several)
numeric(
    "mlp_binary_tanh", lambda: scaled(MLPClassifier((16,), activation="tanh", max_iter=60, random_state=0)), data.binary
)
numeric(
    "mlp_regressor",
    lambda: scaled(MLPRegressor(hidden_layer_sizes=(24,), activation="logistic", max_iter=60, random_state=0)),
    data.amount,
)

# ---------------------------------------------------------------------------------------------------
# Preparation steps


numeric("pca", lambda: make_pipeline(StandardScaler(), PCA(4, whiten=True)))
numeric("truncated_svd", lambda: make_pipeline(MaxAbsScaler(), TruncatedSVD(4, random_state=0)))
numeric("kernel_pca", lambda: scaled(KernelPCA(3, kernel="rbf", gamma=0.05, random_state=0)))
numeric("k_bins_ordinal", lambda: KBinsDiscretizer(5, encode="ordinal", quantile_method="averaged_inverted_cdf"))
numeric("k_bins_onehot", lambda: KBinsDiscretizer(4, encode="onehot-dense", strategy="uniform"))
numeric(
    "binarizer_normalizer",
    lambda: FeatureUnion([("flags", Binarizer(threshold=0.3)), ("unit", Normalizer("l1"))]),
    estimator="FeatureUnion of Binarizer and Normalizer (L1)",
)
numeric("normalizer_l2", lambda: make_pipeline(Normalizer("l2"), Ridge()), data.amount)
# ONNX Runtime divides by the largest value, scikit-learn by the largest magnitude.
numeric(
    "normalizer_max",
    lambda: Normalizer("max"),
    expected=lambda model, test: {"variable": test / test.max(axis=1, keepdims=True)},
    no_reference="it divides by the largest magnitude",
)
numeric("power_transformer", lambda: make_pipeline(PowerTransformer(), Ridge()), data.amount)
numeric(
    "imputer_mean_ridge", lambda: make_pipeline(SimpleImputer(), StandardScaler(), Ridge()), data.amount, missing=0.1
)
numeric(
    "imputer_indicator",
    lambda: make_pipeline(SimpleImputer(strategy="median"), StandardScaler(), LogisticRegression()),
    data.binary,
    missing=0.1,
)
numeric(
    "select_k_best",
    lambda: make_pipeline(SelectKBest(k=4), StandardScaler(), LogisticRegression()),
    data.binary,
)
numeric(
    "min_max_clipped",
    lambda: make_pipeline(MinMaxScaler(clip=True), LogisticRegression()),
    data.binary,
    estimator="MinMaxScaler (clip) + LogisticRegression",
)

# ---------------------------------------------------------------------------------------------------
# Data frames: one input a column, strings among them


COLUMN_TYPES = {
    "age": FloatTensorType,
    "income": FloatTensorType,
    "visits": Int64TensorType,
    "city": StringTensorType,
    "plan": StringTensorType,
}


def frame_model(
    name,
    build,
    estimator,
    columns=("age", "income", "visits", "city", "plan"),
    regression=False,
    expected=None,
    zipmap=False,
    opset=None,
    unseen=True,
):
    """Registers a model that takes the columns of a data frame as separate inputs."""

    def make():
        train = data.customers()[list(columns)]
        test = data.customers(zoo.ROWS, seed=103, unseen=unseen)[list(columns)]
        target = data.churn(data.customers())
        if regression:
            target = target * 3.5 + 1
        model = build().fit(train, target)
        types = [(column, COLUMN_TYPES[column]([None, 1])) for column in columns]
        exported = export(model, types, opset=opset, zipmap=zipmap)
        said = expected(model, test) if expected else answers(model, test, exported)
        inputs = {column: test[column].to_numpy().reshape(-1, 1) for column in columns}
        return Made(exported, inputs, said, no_reference="its Imputer or OneHotEncoder differs")

    zoo.register(name, PRODUCER, estimator, "other", make)


def prepared(model, encoder=None, numeric_step=None):
    steps = [
        (
            "numbers",
            numeric_step or make_pipeline(SimpleImputer(strategy="median"), StandardScaler()),
            ["age", "income"],
        ),
        ("counts", StandardScaler(), ["visits"]),
        ("words", encoder or OneHotEncoder(handle_unknown="ignore"), ["city", "plan"]),
    ]
    return make_pipeline(ColumnTransformer(steps), model)


frame_model(
    "frame_logistic",
    lambda: prepared(LogisticRegression()),
    "ColumnTransformer (SimpleImputer, StandardScaler, OneHotEncoder ignoring unknowns) + LogisticRegression",
)
frame_model(
    "frame_logistic_zipmap",
    lambda: prepared(LogisticRegression(), OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=60)),
    "ColumnTransformer (OneHotEncoder with infrequent categories) + LogisticRegression, ZipMap",
    zipmap=True,
    unseen=False,
)
frame_model(
    "frame_forest",
    lambda: prepared(
        RandomForestClassifier(12, max_depth=5, random_state=0),
        OneHotEncoder(handle_unknown="ignore", drop="if_binary"),
    ),
    "ColumnTransformer + RandomForestClassifier",
)
frame_model(
    "frame_ordinal_boosting",
    lambda: prepared(
        GradientBoostingClassifier(n_estimators=15, random_state=0),
        OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1),
    ),
    "ColumnTransformer (OrdinalEncoder with a value for unknowns) + GradientBoostingClassifier",
)
frame_model(
    "frame_target_encoder",
    lambda: prepared(Ridge(), TargetEncoder(random_state=0, target_type="continuous")),
    "ColumnTransformer (TargetEncoder) + Ridge",
    regression=True,
)
frame_model(
    "frame_bins_regression",
    lambda: prepared(
        Ridge(),
        numeric_step=make_pipeline(
            SimpleImputer(), KBinsDiscretizer(4, encode="onehot-dense", quantile_method="averaged_inverted_cdf")
        ),
    ),
    "ColumnTransformer (KBinsDiscretizer, OneHotEncoder) + Ridge",
    regression=True,
)
frame_model(
    "frame_encoded",
    lambda: OneHotEncoder(handle_unknown="ignore"),
    "OneHotEncoder of string columns alone",
    columns=("city", "plan"),
)

# ---------------------------------------------------------------------------------------------------
# Text


def text_model(name, build, estimator):
    def make():
        texts, labels = data.messages()
        test, _ = data.messages(zoo.ROWS, seed=105)
        model = build().fit(texts, labels)
        locale = {TfidfVectorizer: {"locale": "C"}, CountVectorizer: {"locale": "C"}}
        exported = skl2onnx.to_onnx(
            model,
            initial_types=[("text", StringTensorType([None]))],
            options={id(model): {"zipmap": False}, **locale},
            target_opset=OPSET,
        )
        return Made(exported, {"text": test}, answers(model, test, exported), no_reference="no Tokenizer")

    zoo.register(name, PRODUCER, estimator, "other", make)


text_model(
    "text_tfidf", lambda: make_pipeline(TfidfVectorizer(), LogisticRegression()), "TfidfVectorizer + LogisticRegression"
)
text_model(
    "text_counts",
    lambda: make_pipeline(
        CountVectorizer(ngram_range=(1, 2), lowercase=False, token_pattern="[a-zA-Z]+"), MultinomialNB()
    ),
    "CountVectorizer (words and pairs of words) + MultinomialNB",
)

"""LightGBM and XGBoost, exported by onnxmltools, and CatBoost, which writes ONNX files itself."""

import os
import tempfile

import catboost
import lightgbm
import numpy as np
import onnx
import onnxmltools
import xgboost
from onnxmltools.convert.common.data_types import FloatTensorType

import data
import zoo

LIGHTGBM = f"LightGBM {lightgbm.__version__} / onnxmltools {onnxmltools.__version__}"
XGBOOST = f"XGBoost {xgboost.__version__} / onnxmltools {onnxmltools.__version__}"
CATBOOST = f"CatBoost {catboost.__version__}"


def predictions(model, test, exported):
    """What the estimator says, under the output names of the file."""
    outputs = [o.name for o in exported.graph.output]
    if hasattr(model, "predict_proba"):
        return {outputs[0]: model.predict(test), outputs[1]: model.predict_proba(test)}
    return {outputs[0]: model.predict(test)}


# ---------------------------------------------------------------------------------------------------
# LightGBM


def light(
    name,
    build,
    target,
    estimator,
    *,
    rows=2000,
    missing=0.0,
    categorical=None,
    zipmap=False,
    test_rows=zoo.ROWS,
    opset=15,
    **options,
):
    def make():
        train = data.numbers(rows, missing=missing)
        test = data.numbers(test_rows, seed=101, missing=missing)
        model = build().set_params(n_jobs=1, verbose=-1, deterministic=True, force_row_wise=True, random_state=0)
        model.fit(train, target(train), categorical_feature=categorical or [])
        kwargs = {"zipmap": zipmap} if hasattr(model, "predict_proba") else {}
        exported = onnxmltools.convert_lightgbm(
            model, initial_types=[("X", FloatTensorType([None, 8]))], target_opset=opset, **kwargs, **options
        )
        return zoo.with_edges(exported, test, predictions(model, test, exported))

    zoo.register(name, LIGHTGBM, estimator, "trees", make)


light("lightgbm_binary", lambda: lightgbm.LGBMClassifier(n_estimators=40, num_leaves=15), data.binary, "LGBMClassifier")
light(
    "lightgbm_multi",
    lambda: lightgbm.LGBMClassifier(n_estimators=15, num_leaves=15),
    data.several,
    "LGBMClassifier, four classes",
)
light(
    "lightgbm_strings",
    lambda: lightgbm.LGBMClassifier(n_estimators=8, num_leaves=15),
    data.named,
    "LGBMClassifier, string labels, ZipMap",
    zipmap=True,
)
light(
    "lightgbm_regression", lambda: lightgbm.LGBMRegressor(n_estimators=40, num_leaves=15), data.amount, "LGBMRegressor"
)
light(
    "lightgbm_missing",
    lambda: lightgbm.LGBMClassifier(n_estimators=30, num_leaves=15),
    data.binary,
    "LGBMClassifier with missing values",
    missing=0.15,
)
light(
    "lightgbm_zero_as_missing",
    lambda: lightgbm.LGBMRegressor(n_estimators=20, num_leaves=15, zero_as_missing=True),
    data.amount,
    "LGBMRegressor, zero as missing",
)
light(
    "lightgbm_dart",
    lambda: lightgbm.LGBMClassifier(boosting_type="dart", n_estimators=25, num_leaves=15),
    data.binary,
    "LGBMClassifier (dart)",
)
# The exporter divides by 100 whatever the number of trees.
light(
    "lightgbm_rf",
    lambda: lightgbm.LGBMRegressor(
        boosting_type="rf", n_estimators=100, num_leaves=8, bagging_freq=1, bagging_fraction=0.6
    ),
    data.amount,
    "LGBMRegressor (rf)",
)
light(
    "lightgbm_categorical",
    lambda: lightgbm.LGBMRegressor(n_estimators=15, num_leaves=10),
    lambda t: data.amount(t) + 20 * np.isin(t[:, 6], [3, 7, 8, 13]),
    "LGBMRegressor with categorical columns",
    categorical=[5, 6],
)
light(
    "lightgbm_poisson",
    lambda: lightgbm.LGBMRegressor(objective="poisson", n_estimators=25, num_leaves=15),
    data.positive,
    "LGBMRegressor, Poisson objective",
)
light(
    "lightgbm_500x64",
    lambda: lightgbm.LGBMClassifier(n_estimators=500, num_leaves=64, min_child_samples=10),
    data.binary,
    "LGBMClassifier, 500 trees of 64 leaves",
    rows=6000,
    test_rows=20,
)
light(
    "lightgbm_split",
    lambda: lightgbm.LGBMRegressor(n_estimators=60, num_leaves=15),
    data.amount,
    "LGBMRegressor, split into several tree nodes that are summed",
    split=20,
)

# ---------------------------------------------------------------------------------------------------
# XGBoost


def extreme(name, build, target, estimator, *, missing=0.0, opset=15):
    def make():
        train = data.numbers(1500, missing=missing)
        test = data.numbers(zoo.ROWS, seed=101, missing=missing)
        model = build().set_params(n_jobs=1, random_state=0)
        labels = target(train)
        model.fit(train, labels)
        exported = onnxmltools.convert_xgboost(
            model, initial_types=[("X", FloatTensorType([None, 8]))], target_opset=opset
        )
        return zoo.with_edges(exported, test, predictions(model, test, exported))

    zoo.register(name, XGBOOST, estimator, "trees", make)


def position(table):
    return (data.several(table) - 2) // 3


extreme("xgboost_binary", lambda: xgboost.XGBClassifier(n_estimators=30, max_depth=4), data.binary, "XGBClassifier")
extreme(
    "xgboost_softprob",
    lambda: xgboost.XGBClassifier(n_estimators=12, max_depth=4, objective="multi:softprob"),
    position,
    "XGBClassifier (multi:softprob)",
)
extreme("xgboost_regression", lambda: xgboost.XGBRegressor(n_estimators=40, max_depth=4), data.amount, "XGBRegressor")
extreme(
    "xgboost_missing",
    lambda: xgboost.XGBClassifier(n_estimators=25, max_depth=4),
    data.binary,
    "XGBClassifier with missing values",
    missing=0.15,
)
extreme(
    "xgboost_hist",
    lambda: xgboost.XGBRegressor(
        n_estimators=25, tree_method="hist", grow_policy="lossguide", max_leaves=15, max_depth=0, base_score=100.0
    ),
    data.amount,
    "XGBRegressor (hist, by leaves)",
)
extreme(
    "xgboost_exact",
    lambda: xgboost.XGBRegressor(n_estimators=15, tree_method="exact", max_depth=5),
    data.amount,
    "XGBRegressor (exact)",
)
extreme(
    "xgboost_poisson",
    lambda: xgboost.XGBRegressor(n_estimators=20, objective="count:poisson", max_depth=3),
    data.positive,
    "XGBRegressor (count:poisson)",
)
extreme(
    "xgboost_random_forest",
    lambda: xgboost.XGBRFClassifier(n_estimators=20, max_depth=5),
    data.binary,
    "XGBRFClassifier",
)

# ---------------------------------------------------------------------------------------------------
# CatBoost


def cat(name, build, target, estimator, *, missing=0.0):
    def make():
        train = data.numbers(1500, missing=missing)
        test = data.numbers(zoo.ROWS, seed=101, missing=missing)
        model = build().set_params(thread_count=1, verbose=0, allow_writing_files=False, random_seed=0)
        model.fit(train, target(train))
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "model.onnx")
            model.save_model(path, format="onnx", export_parameters={"onnx_domain": "zoo", "onnx_model_version": 1})
            exported = onnx.load(path)
        said = {}
        outputs = [o.name for o in exported.graph.output]
        if hasattr(model, "predict_proba"):
            said = {outputs[0]: np.asarray(model.predict(test)).reshape(-1), outputs[1]: model.predict_proba(test)}
        else:
            said = {outputs[0]: np.asarray(model.predict(test))}
        return zoo.with_edges(exported, test, said, nan=True)

    zoo.register(name, CATBOOST, estimator, "trees", make)


cat(
    "catboost_binary",
    lambda: catboost.CatBoostClassifier(iterations=30, depth=4),
    data.binary,
    "CatBoostClassifier, ZipMap",
)
cat(
    "catboost_multi",
    lambda: catboost.CatBoostClassifier(iterations=12, depth=4, loss_function="MultiClass"),
    data.several,
    "CatBoostClassifier, four classes, ZipMap",
)
cat(
    "catboost_strings",
    lambda: catboost.CatBoostClassifier(iterations=12, depth=4, loss_function="MultiClass"),
    data.named,
    "CatBoostClassifier, string labels, ZipMap",
)
cat("catboost_regression", lambda: catboost.CatBoostRegressor(iterations=30, depth=4), data.amount, "CatBoostRegressor")
cat(
    "catboost_missing",
    lambda: catboost.CatBoostRegressor(iterations=20, depth=4, nan_mode="Min"),
    data.amount,
    "CatBoostRegressor with missing values",
    missing=0.15,
)

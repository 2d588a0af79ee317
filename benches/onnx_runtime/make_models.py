"""The reference models of the speed comparison: make_models.py OUT_DIR

One seeded table of 20,000 rows and 30 columns (X.npy, float32), a label that is partly linear
(y.npy), and five models trained on them. Every ONNX file has one input, X (float [N, 30]), and two outputs, label and
probabilities. The two boosted models are also written as LightGBM text (.txt), which the peers read.

    lr        standardisation + logistic regression
    mlp       standardisation + network of 64 and 32 units
    rf100     random forest, 100 trees of depth 12
    gbdt100   LightGBM, 100 trees of 31 leaves
    gbdt500   LightGBM, 500 trees of 63 leaves
"""

import pathlib
import sys
import warnings

import lightgbm
import numpy as np
import onnxmltools
import skl2onnx
from onnxmltools.convert.common.data_types import FloatTensorType
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

ROWS, COLUMNS = 20_000, 30
BOOSTED = {"gbdt100": (100, 31), "gbdt500": (500, 63)}


def reference_table():
    """Rows and labels. The order of the draws is part of the definition."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(ROWS, COLUMNS)).astype(np.float32)
    weights = rng.normal(size=COLUMNS)
    bend = 2 * np.sin(3 * rows[:, 0]) + rows[:, 1] * rows[:, 2]
    noise = rng.normal(size=ROWS)
    labels = ((rows @ weights + bend + noise) > 0).astype(int)
    return rows, labels


def main(folder):
    warnings.filterwarnings("ignore")
    folder.mkdir(parents=True, exist_ok=True)
    rows, labels = reference_table()
    np.save(folder / "X.npy", rows)
    np.save(folder / "y.npy", labels)

    fitted_by_sklearn = {
        "lr": make_pipeline(StandardScaler(), LogisticRegression()),
        "mlp": make_pipeline(StandardScaler(), MLPClassifier((64, 32), max_iter=30, random_state=0)),
        "rf100": RandomForestClassifier(100, max_depth=12, n_jobs=2, random_state=0),
    }
    for name, estimator in fitted_by_sklearn.items():
        estimator.fit(rows, labels)
        exported = skl2onnx.to_onnx(estimator, rows[:1], options={id(estimator): {"zipmap": False}}, target_opset=17)
        (folder / f"{name}.onnx").write_bytes(exported.SerializeToString())

    for name, (trees, leaves) in BOOSTED.items():
        booster = lightgbm.LGBMClassifier(n_estimators=trees, num_leaves=leaves, n_jobs=2, verbose=-1)
        booster.fit(rows, labels)
        booster.booster_.save_model(str(folder / f"{name}.txt"))
        exported = onnxmltools.convert_lightgbm(
            booster,
            initial_types=[("X", FloatTensorType([None, COLUMNS]))],
            zipmap=False,
            target_opset=15,
        )
        (folder / f"{name}.onnx").write_bytes(exported.SerializeToString())


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(pathlib.Path(sys.argv[1]))

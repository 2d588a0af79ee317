"""What the comparison needs: its base, its third model, and a look at whether both scored alike.

    make.py base PLAIN TARGET       the customers of PLAIN with the data they used
    make.py model BASE FOLDER       500 boosted trees of 64 leaves over numbers of BASE, as a model version
    make.py compare SCORES SCORES   ends with 1 when the scores of the same customers differ
"""

import pathlib
import sys

import numpy as np
import polars as pl

from peer import ADD_ONS, RETENTION

TREES, LEAVES = 500, 64
TOLERANCE = 1e-4

MANIFEST = f"""# Made by benches/batch/make.py.
[model]
task = "binary"
view = "customer"
description = "{TREES} boosted trees of {LEAVES} leaves over made-up customers, to measure with."

[inputs]
X = {RETENTION!r}

[output]
probabilities = "probabilities"
positive = 1
""".replace("'", '"')


def base(plain, target):
    used = (pl.col("customer_id").hash(7) % 4000).cast(pl.Float64) / 100.0
    pl.scan_parquet(plain).with_columns(used.alias("data_gb_7d")).sink_parquet(target)


def model(file, folder):
    import lightgbm
    import onnxmltools
    from onnxmltools.convert.common.data_types import FloatTensorType

    table = pl.read_parquet(file).with_columns(
        (pl.col("total_charges") / pl.max_horizontal(pl.col("tenure"), 1)).alias("charge_per_month"),
        pl.sum_horizontal([(pl.col(name) == "Yes").cast(pl.Int64) for name in ADD_ONS]).alias("addon_count"),
        (pl.col("tenure") < 12).alias("is_new_customer"),
    )
    rows = table.select([pl.col(name).cast(pl.Float32) for name in RETENTION]).to_numpy()
    random = np.random.default_rng(0)
    filled = np.nan_to_num(rows)
    bend = np.sin(filled[:, 1] / 5) + filled[:, 4] * filled[:, 6] / 60 - filled[:, 2] / 40
    labels = (bend + random.normal(size=len(rows)) > 0).astype(int)
    booster = lightgbm.LGBMClassifier(n_estimators=TREES, num_leaves=LEAVES, n_jobs=2, verbose=-1)
    booster.fit(rows, labels)
    exported = onnxmltools.convert_lightgbm(
        booster, initial_types=[("X", FloatTensorType([None, len(RETENTION)]))], zipmap=False, target_opset=15
    )
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(exported.SerializeToString())
    (folder / "model.toml").write_text(MANIFEST)


def compare(left, right):
    left, right = pl.read_parquet(left), pl.read_parquet(right)
    both = left.join(right, on="customer_id", suffix="_other")
    if both.is_empty():
        sys.exit("the two have no customer in common")
    for name in ("churn_score", "upsell_score", "retention_score"):
        difference = (both[name] - both[f"{name}_other"]).abs().max()
        print(f"{name}: {both.height} rows, largest difference {difference:.1e}", file=sys.stderr)
        if not difference <= TOLERANCE:
            sys.exit(f"{name}: they differ by more than {TOLERANCE}")


if __name__ == "__main__":
    commands = {"base": base, "model": model, "compare": compare}
    if len(sys.argv) != 4 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    commands[sys.argv[1]](*map(pathlib.Path, sys.argv[2:]))

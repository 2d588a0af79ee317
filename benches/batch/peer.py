"""The same job with Polars and ONNX Runtime, as their users would write it: peer.py BASE MODELS OUTPUT

Slices bound the memory; derived features are Polars expressions; ONNX Runtime has all cores.
"""

import pathlib
import sys

import numpy as np
import onnxruntime
import polars as pl

SLICE_ROWS = 100_000
ADD_ONS = [
    "online_security",
    "online_backup",
    "device_protection",
    "tech_support",
    "streaming_tv",
    "streaming_movies",
]
TYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(string)": object}
RETENTION = [
    "senior_citizen",
    "tenure",
    "monthly_charges",
    "total_charges",
    "data_gb_7d",
    "charge_per_month",
    "addon_count",
    "is_new_customer",
]


def named_inputs(session, table):
    """One input for each column."""
    feeds = {}
    for info in session.get_inputs():
        values = table[info.name].to_numpy()
        feeds[info.name] = values.astype(TYPES[info.type]).reshape(-1, 1)
    return feeds


def main(base, models, output):
    session = {
        name: onnxruntime.InferenceSession(str(models / name / "1" / "model.onnx"))
        for name in ("churn", "upsell", "retention")
    }
    tenure_or_one = pl.max_horizontal(pl.col("tenure"), 1)
    table = pl.read_parquet(base).with_columns(
        (pl.col("total_charges") / tenure_or_one).alias("charge_per_month"),
        pl.sum_horizontal([(pl.col(name) == "Yes").cast(pl.Int64) for name in ADD_ONS]).alias("addon_count"),
        (pl.col("tenure") < 12).alias("is_new_customer"),
    )
    parts = []
    for part in table.iter_slices(SLICE_ROWS):
        churn = session["churn"].run(["probabilities"], named_inputs(session["churn"], part))[0][:, 1]
        affinity = session["upsell"].run(["probabilities"], named_inputs(session["upsell"], part))[0]
        held = part.select([pl.col(name) == "Yes" for name in ADD_ONS]).to_numpy()
        affinity = np.where(held, -1.0, affinity)
        best = affinity.argmax(axis=1)
        score = affinity[np.arange(len(best)), best]
        rows = part.select([pl.col(name).cast(pl.Float32) for name in RETENTION]).to_numpy()
        retention = session["retention"].run(["probabilities"], {"X": rows})[0][:, 1]
        labels = pl.Series(np.array(ADD_ONS)[best])
        parts.append(
            pl.DataFrame(
                {
                    "customer_id": part["customer_id"],
                    "churn_score": churn.astype(np.float64),
                    "upsell_score": np.maximum(score, 0.0).astype(np.float64),
                    "upsell_label": labels.set(pl.Series(score < 0.0), None),
                    "retention_score": retention.astype(np.float64),
                }
            )
        )
    pl.concat(parts).write_parquet(output)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*map(pathlib.Path, sys.argv[1:]))

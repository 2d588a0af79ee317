"""Seeded tables that look like tabular data: skewed amounts, counts, flags, missing cells, categories."""

import numpy as np
import pandas as pd

TRAINING_ROWS = 500


def numbers(rows=TRAINING_ROWS, seed=1, missing=0.0):
    """Eight float32 columns: four of them real numbers, then an amount, two counts and a flag."""
    rng = np.random.default_rng(seed)
    table = rng.normal(size=(rows, 8))
    table[:, 4] = np.exp(table[:, 4])
    table[:, 5] = rng.poisson(3, size=rows)
    table[:, 6] = rng.integers(0, 20, size=rows)
    table[:, 7] = rng.integers(0, 2, size=rows)
    # Few digits: the numbers stay short in the files, and rows meet thresholds.
    table = np.round(table, 3).astype(np.float32)
    if missing:
        table[rng.random(table.shape) < missing] = np.nan
    return table


def score(table, seed=2):
    """A smooth and partly non-linear function of the columns, plus noise."""
    rng = np.random.default_rng(seed)
    x = np.nan_to_num(table.astype(np.float64), nan=0.5)
    return (
        x[:, 0]
        - 0.7 * x[:, 1]
        + np.sin(2 * x[:, 2])
        + 0.5 * x[:, 3] * x[:, 7]
        + 0.4 * np.log1p(x[:, 4])
        + 0.2 * (x[:, 5] - 3)
        + 0.05 * (x[:, 6] - 10)
        + rng.normal(scale=0.4, size=len(x))
    )


def binary(table):
    return (score(table) > 0.4).astype(np.int64)


def several(table, classes=4):
    """Class numbers that are not 0, 1, 2, …: a reader that returns positions is found out."""
    values = score(table)
    cuts = np.quantile(values, np.linspace(0, 1, classes + 1)[1:-1])
    return np.digitize(values, cuts).astype(np.int64) * 3 + 2


NAMES = np.array(["gold", "silver", "bronze", "not scored é"], dtype=object)


def named(table, classes=4):
    return NAMES[(several(table, classes) - 2) // 3]


def amount(table):
    return np.round(100 + 25 * score(table), 3)


def positive(table):
    return np.round(np.exp(score(table) / 3), 3)


def customers(rows=TRAINING_ROWS, seed=3, unseen=False):
    """Mixed columns as a data frame; `unseen` adds categories that training did not have."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "age": np.round(rng.normal(42, 12, rows)).clip(18, 90).astype(np.float32),
            "income": np.round(np.exp(rng.normal(10, 0.6, rows)), 1).astype(np.float32),
            "visits": rng.poisson(4, rows).astype(np.int64),
            "city": rng.choice(["Graz", "Lyon", "Ålesund", "東京", "Porto"], rows),
            "plan": rng.choice(["free", "basic", "pro"], rows, p=[0.5, 0.3, 0.2]),
        }
    )
    frame["city"] = frame["city"].astype(object)
    frame["plan"] = frame["plan"].astype(object)
    if unseen:
        frame.loc[1, "city"] = "Nowhere"
        frame.loc[4, "city"] = ""
        frame.loc[5, "plan"] = "Pro"
    frame.loc[rng.random(rows) < 0.1, "age"] = np.nan
    frame.loc[rng.random(rows) < 0.1, "income"] = np.nan
    return frame


def churn(frame):
    rng = np.random.default_rng(4)
    values = (
        (frame["plan"] == "free") * 1.0
        - 0.3 * (frame["visits"] - 4)
        + 0.8 * (frame["city"].isin(["Graz", "Porto"]))
        - np.log(frame["income"].fillna(22000) / 22000)
        + rng.normal(scale=0.5, size=len(frame))
    )
    return (values > 0.6).astype(np.int64).to_numpy()


WORDS = [
    "late",
    "refund",
    "broken",
    "great",
    "fast",
    "slow",
    "price",
    "support",
    "card",
    "login",
    "please",
    "help",
    "again",
    "never",
]


def messages(rows=200, seed=5):
    rng = np.random.default_rng(seed)
    texts, labels = [], []
    for _ in range(rows):
        label = int(rng.random() < 0.5)
        likely = WORDS[:7] if label else WORDS[7:]
        words = [rng.choice(likely if rng.random() < 0.7 else WORDS) for _ in range(rng.integers(3, 9))]
        if rng.random() < 0.3:
            words[0] = words[0].capitalize()
        texts.append(" ".join(words))
        labels.append(label)
    return np.array(texts, dtype=object), np.array(labels)

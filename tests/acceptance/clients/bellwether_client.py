"""Uses the project's own client, with tables of one library, and prints what came of it as JSON.

    python bellwether_client.py URL arrow|pandas|polars
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "clients" / "python" / "src"))

import bellwether  # noqa: E402
import pandas  # noqa: E402
import polars  # noqa: E402
import pyarrow  # noqa: E402

url, library = sys.argv[1:]


def table(columns):
    if library == "pandas":
        return pandas.DataFrame(columns)
    return polars.DataFrame(columns) if library == "polars" else pyarrow.table(columns)


with bellwether.Client(url) as client:
    ids = [f"{library}-{number}" for number in range(3)]
    customers = {"customer_id": ids, "tenure": [3, 40, 5], "monthly_charges": [20.5, None, float("nan")]}
    pushed = client.features.push(table(customers))
    partly = client.features.push(table({"customer_id": [*ids, "x"], "tenure": [4, 41, -1, 7]}))
    try:
        client.features.push(table({"customer_id": ids, "tenur": [1, 2, 3]}))
        typo = None
    except bellwether.BellwetherError as error:
        typo = str(error)
    except Exception as error:  # noqa: BLE001
        typo = f"other: {error!r}"

    later = pandas.Timestamp.now("UTC") + pandas.Timedelta(hours=1)
    observations = {
        "customer_id": [*ids, "nobody"],
        "observed_at": [later, later, pandas.Timestamp("2020-01-01T00:00:00Z"), later],
        "churned": [1, 0, 1, 0],
    }
    given = table(observations)
    features = client.features.training_set(given, features=["tenure", "monthly_charges"])
    as_arrow = client.features.training_set(given, features=["tenure"], returns="arrow")
    try:
        client.features.training_set(given, view="custmer")
        unknown = None
    except bellwether.BellwetherError as error:
        unknown = [error.status, str(error)]

rows = features.to_dict("records") if library == "pandas" else (
    features.to_dicts() if library == "polars" else features.to_pylist()
)
try:
    with bellwether.Client("http://127.0.0.1:9", timeout=2) as client:
        client.features.push(table(customers))
    lost = None
except bellwether.ServerUnavailable as error:
    lost = str(error)

print(
    json.dumps(
        {
            "pushed": pushed.written,
            "partly": [partly.written, partly.refused_total, [(row.index, row.error) for row in partly.refused]],
            "typo": typo,
            "library": type(features).__module__.partition(".")[0],
            "arrow": isinstance(as_arrow, pyarrow.Table),
            "tenure": [row["tenure"] for row in rows],
            "charges_missing": [row["monthly_charges"] != row["monthly_charges"] or row["monthly_charges"] is None for row in rows],
            "churned": [row["churned"] for row in rows],
            "unknown": unknown,
            "lost": lost,
        }
    )
)

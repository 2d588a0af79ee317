"""`bellwether features push`: a whole base from CSV or Parquet into the online store."""

import csv

import polars
import pytest

from models import reference
from server import FEATURES, Server, prediction_of, refuse, succeed
from telco import FEATURES as FEATURE_NAMES, numbered
from telco import IBM_COLUMNS, IBM_CSV, VARIED, customer, ibm_customers


def push(data_dir, file, *arguments):
    return (
        "features",
        "push",
        "--view",
        "customer",
        file,
        "--data-dir",
        data_dir,
        "--features",
        FEATURES,
        *arguments,
    )


def write_csv(path, rows, header=None, extra=None):
    """Customers row-0, row-1, ... under the headers of the IBM file; null is blank."""
    extra = extra or {}
    header = header or ["customerID", *IBM_COLUMNS, *extra]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for number, row in enumerate(rows):
            values = [" " if row[name] is None else row[name] for name in IBM_COLUMNS.values()]
            writer.writerow([f"row-{number}", *values, *extra.values()])
    return path


def assert_stored(data_dir, rows):
    with Server(data_dir) as server:
        client = server.client()
        expected = reference("churn").run(rows)["probabilities"][:, 1]
        for number, row in enumerate(rows):
            stored = client.stored(f"row-{number}")
            assert {name: stored[name]["value"] for name in FEATURE_NAMES} == row
            score = prediction_of(client.score(f"row-{number}", models=["churn"]), "churn")["score"]
            assert score == pytest.approx(float(expected[number]), abs=1e-5)


def test_csv_with_other_spelling_of_the_headers(data_dir, tmp_path):
    file = write_csv(tmp_path / "base.csv", VARIED)
    succeed(*push(data_dir, file))
    assert_stored(data_dir, VARIED)


def test_parquet(data_dir, tmp_path):
    file = tmp_path / "base.parquet"
    rows = numbered(VARIED)
    polars.DataFrame(rows).write_parquet(file)
    succeed(*push(data_dir, file))
    assert_stored(data_dir, VARIED)


def test_parquet_with_narrower_types(data_dir, tmp_path):
    file = tmp_path / "base.parquet"
    rows = numbered(VARIED)
    narrow = polars.DataFrame(rows).with_columns(
        polars.col("tenure").cast(polars.Int32), polars.col("contract").cast(polars.Categorical)
    )
    narrow.write_parquet(file)
    succeed(*push(data_dir, file))
    assert_stored(data_dir, VARIED)


def test_some_columns_update_and_leave_the_others(data_dir, tmp_path):
    succeed(*push(data_dir, write_csv(tmp_path / "base.csv", VARIED)))
    (tmp_path / "update.csv").write_text("customer_id,tenure\nrow-0,99\n")
    succeed(*push(data_dir, tmp_path / "update.csv"))
    assert_stored(data_dir, [{**VARIED[0], "tenure": 99}, *VARIED[1:]])


def test_a_column_that_is_no_feature_is_an_error_unless_ignored(data_dir, tmp_path):
    file = write_csv(tmp_path / "base.csv", VARIED, extra={"Churn": "No", "Shoe Size": 43})
    said = refuse(*push(data_dir, file))
    assert "Churn" in said and "Shoe Size" in said and "--ignore" in said
    said = refuse(*push(data_dir, file, "--ignore", "Churn"))
    assert "Shoe Size" in said
    succeed(*push(data_dir, file, "--ignore", "Churn", "--ignore", "Shoe Size"))
    assert_stored(data_dir, VARIED)


@pytest.mark.parametrize(
    "text, words",
    [
        ("customer_id,tenure\na,1\nb,twelve\n", ["tenure", "twelve", "row"]),
        ("customer_id,tenure\na,1\nb,-5\n", ["tenure", "-5"]),
        ("customer_id,tenure\na,1.5\n", ["tenure", "1.5"]),
        ("customer_id,tenure\n,1\n", ["customer_id"]),
        ("customer_id,tenure,Tenure\na,1,2\n", ["tenure"]),
        ("customer_id,tenure\na,1,2,3\n", []),
        ("customer_id,addon_count\na,3\n", ["addon_count"]),
        ("tenure\n1\n", ["customer_id"]),
        ("", []),
    ],
    ids=[
        "text",
        "range",
        "fraction",
        "no id",
        "twice",
        "too many fields",
        "derived",
        "no key column",
        "empty file",
    ],
)
def test_a_wrong_file_is_refused_with_file_and_place(data_dir, tmp_path, text, words):
    file = tmp_path / "wrong.csv"
    file.write_text(text)
    said = refuse(*push(data_dir, file))
    for word in ["wrong.csv", *words]:
        assert word in said, said


def test_a_file_that_is_not_there_or_of_no_known_kind(data_dir, tmp_path):
    assert "nowhere.csv" in refuse(*push(data_dir, tmp_path / "nowhere.csv"))
    (tmp_path / "base.xls").write_bytes(b"\xd0\xcf\x11\xe0")
    assert "base.xls" in refuse(*push(data_dir, tmp_path / "base.xls"))
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and nothing more")
    assert "broken.parquet" in refuse(*push(data_dir, tmp_path / "broken.parquet"))


def test_a_view_that_does_not_exist_is_named(data_dir, tmp_path):
    file = write_csv(tmp_path / "base.csv", VARIED)
    arguments = ["--view", "household", file, "--data-dir", data_dir, "--features", FEATURES]
    assert "household" in refuse("features", "push", *arguments)


def test_a_directory_in_use_is_a_clear_error(data_dir, tmp_path):
    file = write_csv(tmp_path / "base.csv", VARIED)
    with Server(data_dir) as server:
        said = refuse(*push(data_dir, file))
        assert "in use" in said
        server.client().store("c", customer())


def test_the_public_file_as_it_is(data_dir):
    customers = ibm_customers()
    succeed(*push(data_dir, IBM_CSV, "--ignore", "Churn"), timeout=600)
    with Server(data_dir) as server:
        client = server.client()
        for customer_id, features, _ in customers[::70]:
            stored = client.stored(customer_id)
            assert {name: stored[name]["value"] for name in FEATURE_NAMES} == features


def test_a_running_server_takes_a_table_and_scores_with_it_at_once(data_dir, tmp_path):
    wrong = write_csv(tmp_path / "wrong.csv", [VARIED[0], {**VARIED[1], "tenure": -1}, VARIED[2]])
    with Server(data_dir) as server:
        client = server.client()
        place = ("--server", f"http://{server.address}", "--features", FEATURES)
        said = refuse("features", "push", "--view", "customer", wrong, *place)
        assert "row 2: tenure: -1 is out of range" in said and "1 of 3 rows" in said
        file = write_csv(tmp_path / "base.csv", VARIED)
        done = succeed("features", "push", "--view", "customer", file, *place)
        assert f"{len(VARIED)} rows written" in done.stdout
        expected = reference("churn").run(VARIED)["probabilities"][:, 1]
        for number, row in enumerate(VARIED):
            stored = client.stored(f"row-{number}")
            assert {name: stored[name]["value"] for name in FEATURE_NAMES} == row
            score = prediction_of(client.score(f"row-{number}", models=["churn"]), "churn")["score"]
            assert score == pytest.approx(float(expected[number]), abs=1e-5)

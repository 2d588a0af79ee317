"""`bellwether events load`: events from NDJSON, CSV and Parquet, offline and into a running server; history
in tables of profiles."""

import csv
import datetime
import json

import polars
import pytest

from server import Server, refuse, succeed

VIEW = """
[view]
name = "customer"
entity = "customer_id"

[[feature]]
name = "plan"
type = "string"

[[feature]]
name = "tickets"
type = "int64"
aggregate = { event = "ticket", function = "count", window = "90d" }

[[feature]]
name = "hours"
type = "float64"
aggregate = { event = "ticket", function = "sum", window = "90d", value = "hours" }

[[feature]]
name = "last_code"
type = "string"
aggregate = { event = "ticket", function = "last", window = "90d", value = "code" }
"""

NOW = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
ROWS = [
    {
        "id": f"t{number}",
        "account": f"c{number % 3}",
        "opened": NOW - datetime.timedelta(days=1, minutes=number),
        "hours": number + 0.5,
        "code": f"00{number}",
    }
    for number in range(9)
]
EXPECTED = {
    "c0": {"tickets": 3, "hours": 10.5, "last_code": "000"},
    "c1": {"tickets": 3, "hours": 13.5, "last_code": "001"},
    "c2": {"tickets": 3, "hours": 16.5, "last_code": "002"},
}
COLUMNS = ("--event", "ticket", "--column", "occurred_at=opened", "--column", "customer_id=account")


@pytest.fixture
def features(tmp_path):
    folder = tmp_path / "features"
    folder.mkdir()
    (folder / "customer.toml").write_text(VIEW)
    return folder


def as_event(row):
    return {
        "event_id": row["id"],
        "event": "ticket",
        "customer_id": row["account"],
        "occurred_at": row["opened"].isoformat(),
        "properties": {"hours": row["hours"], "code": row["code"]},
    }


def write_ndjson(path, rows=ROWS):
    path.write_text("".join(json.dumps(as_event(row)) + "\n" for row in rows))
    return path


def write_csv(path, rows=ROWS):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, "opened": row["opened"].isoformat()} for row in rows)
    return path


def write_parquet(path, rows=ROWS):
    polars.DataFrame(rows).write_parquet(path)
    return path


def load(*arguments, data_dir, features):
    return ("events", "load", *arguments, "--data-dir", data_dir, "--features", features, "--json")


def report(*arguments, **options):
    return json.loads(succeed(*load(*arguments, **options)).stdout)


def state_in(client):
    state = {}
    for customer in EXPECTED:
        features = client.stored(customer)
        state[customer] = {name: features[name]["value"] for name in ("tickets", "hours", "last_code")}
    return state


def assert_state(data_dir, features):
    with Server(data_dir, features=features) as server:
        assert state_in(server.client()) == EXPECTED


@pytest.mark.parametrize("kind", ["ndjson", "csv", "parquet"])
def test_every_kind_of_file_comes_to_the_same(tmp_path, data_dir, features, kind):
    if kind == "ndjson":
        arguments = [write_ndjson(tmp_path / "tickets.ndjson")]
    else:
        write = write_csv if kind == "csv" else write_parquet
        arguments = [write(tmp_path / f"tickets.{kind}"), *COLUMNS, "--column", "event_id=id"]
    found = report(*arguments, data_dir=data_dir, features=features)
    assert found == {"read": 9, "written": 9, "duplicates": 0, "rejected": 0, "resumed": 0}
    assert_state(data_dir, features)


def test_ids_can_be_made_of_columns(tmp_path, data_dir, features):
    rows = [{name: row[name] for name in row if name != "id"} for row in ROWS]
    file = write_parquet(tmp_path / "tickets.parquet", rows)
    # A row that is there twice is one event.
    twice = write_parquet(tmp_path / "twice.parquet", rows + rows[:2])
    options = (*COLUMNS, "--event-id-from", "account,opened")
    assert report(file, *options, data_dir=data_dir, features=features)["written"] == 9
    found = report(twice, *options, data_dir=data_dir, features=features)
    assert (found["written"], found["duplicates"]) == (0, 11)
    assert_state(data_dir, features)


def test_a_file_that_was_loaded_is_passed_over_until_it_changes(tmp_path, data_dir, features):
    file = write_ndjson(tmp_path / "tickets.ndjson", ROWS[:5])
    options = {"data_dir": data_dir, "features": features}
    assert report(file, **options)["written"] == 5
    assert report(file, **options) == {
        "read": 0,
        "written": 0,
        "duplicates": 0,
        "rejected": 0,
        "resumed": 5,
    }
    found = report(file, "--from-start", **options)
    assert (found["written"], found["duplicates"]) == (0, 5)
    write_ndjson(file)
    found = report(file, **options)
    assert (found["written"], found["duplicates"]) == (4, 5)
    assert_state(data_dir, features)


def test_a_load_that_was_interrupted_goes_on_where_it_was(tmp_path, data_dir, features):
    # Given a file whose end cannot be read: the load fails there, and what came before is kept,
    lines = "".join(json.dumps(as_event(row)) + "\n" for row in ROWS)
    file = tmp_path / "tickets.ndjson"
    file.write_text(lines * 200 + "x" * (5 * 1024 * 1024))
    said = refuse(*load(file, data_dir=data_dir, features=features))
    assert "tickets.ndjson" in said and "line 1801" in said and "goes on there" in said, said
    (position,) = (data_dir / "loads").glob("*.json")
    assert json.loads(position.read_text())["rows"] == 1800
    # and when the same command is given again, it begins there.
    said = refuse(*load(file, data_dir=data_dir, features=features))
    assert "line 1801" in said and "goes on there" not in said, said
    assert_state(data_dir, features)


def test_wrong_rows_are_listed_and_the_others_loaded(tmp_path, data_dir, features):
    rows = [
        {**ROWS[0], "id": ""},
        {**ROWS[0], "id": "far", "opened": NOW + datetime.timedelta(days=3)},
        *ROWS,
    ]
    file = write_csv(tmp_path / "tickets.csv", rows)
    with file.open("a") as text:
        text.write("late,c1,yesterday,1,2\nnobody,,2026-01-01T00:00:00Z,1,2\n")
    options = (*COLUMNS, "--column", "event_id=id")
    said = refuse(*load(file, *options, data_dir=data_dir, features=features))
    for words in (["row 1:", "event_id"], ["row 2:", "future"], ["row 12:", "yesterday"], ["row 13:"]):
        line = next(line for line in said.splitlines() if words[0] in line)
        assert all(word in line for word in words), said
    assert "4 of 13 rows" in said, said
    assert_state(data_dir, features)


def test_wrong_lines_are_listed_and_the_others_loaded(tmp_path, data_dir, features):
    file = write_ndjson(tmp_path / "tickets.jsonl")
    with file.open("a") as text:
        text.write('{"event_id": \n\n[]\n{"event_id": "x"}\n')
    said = refuse(*load(file, data_dir=data_dir, features=features))
    assert "row 10:" in said and "row 13:" in said, said
    assert_state(data_dir, features)


def test_what_a_table_lacks_is_said_with_the_option_that_helps(tmp_path, data_dir, features):
    file = write_csv(tmp_path / "tickets.csv")
    cases = [
        ((), "--event NAME"),
        (("--event", "ticket"), "event_id"),
        (("--event", "ticket", "--column", "event_id=id"), "occurred_at"),
        ((*COLUMNS, "--column", "event_id=ids"), "did you mean id?"),
        ((*COLUMNS, "--column", "event_id=id", "--ignore", "hour"), "hours"),
        ((*COLUMNS, "--column", "event_id=id", "--known-at", "learned"), "--known-at"),
        ((*COLUMNS, "--event-id-from", "account,when"), "when"),
    ]
    for options, word in cases:
        said = refuse(*load(file, *options, data_dir=data_dir, features=features))
        assert "tickets.csv" in said and word in said, said
    lines = write_ndjson(tmp_path / "tickets.ndjson")
    said = refuse(*load(lines, "--event", "ticket", data_dir=data_dir, features=features))
    assert "--event" in said, said
    (tmp_path / "tickets.xls").write_bytes(b"\xd0\xcf")
    said = refuse(*load(tmp_path / "tickets.xls", data_dir=data_dir, features=features))
    assert ".parquet" in said, said
    assert "nowhere" in refuse(*load(tmp_path / "nowhere.csv", data_dir=data_dir, features=features))


def test_a_file_can_be_sent_to_a_running_server(tmp_path, data_dir, features):
    file = write_csv(tmp_path / "tickets.csv", [*ROWS, {**ROWS[0], "id": "bad", "account": ""}])
    options = [*COLUMNS, "--column", "event_id=id", "--features", features, "--json"]
    with Server(data_dir, features=features) as server:
        to_server = ("events", "load", file, "--server", f"http://{server.address}", *options)
        assert "row 10:" in refuse(*to_server)
        assert state_in(server.client()) == EXPECTED
        # Sent again, every event is known.
        assert "row 10:" in refuse(*to_server)
        assert state_in(server.client()) == EXPECTED
        in_use = load(file, *COLUMNS, "--column", "event_id=id", data_dir=data_dir, features=features)
        assert "in use" in refuse(*in_use)


def test_history_says_when_it_was_learned(tmp_path, data_dir, features):
    rows = [{**row, "learned": row["opened"] + datetime.timedelta(hours=2)} for row in ROWS]
    late = {**ROWS[0], "id": "later", "learned": NOW + datetime.timedelta(days=1)}
    file = write_parquet(tmp_path / "tickets.parquet", [*rows, late])
    options = (*COLUMNS, "--column", "event_id=id", "--known-at", "learned")
    said = refuse(*load(file, *options, data_dir=data_dir, features=features))
    assert "row 10:" in said and "future" in said, said
    assert_state(data_dir, features)
    with_server = ("--server", "http://127.0.0.1:1", "--features", features)
    said = refuse("events", "load", file, *options, *with_server)
    assert "--known-at" in said, said


def test_profiles_say_since_when_they_hold(tmp_path, data_dir, features):
    day = datetime.timedelta(days=1)
    times = [NOW - 3 * day, NOW - 2 * day, NOW - day]
    rows = [
        {"customer_id": "c0", "plan": "new", "since": times[2], "loaded": times[2]},
        # A correction of the past that came later does not replace what holds now.
        {"customer_id": "c0", "plan": "old", "since": times[0], "loaded": times[2]},
        {"customer_id": "c1", "plan": "only", "since": times[1], "loaded": times[1]},
        {"customer_id": "c2", "plan": "early", "since": NOW + day, "loaded": times[1]},
        {"customer_id": "c2", "plan": "blank", "since": None, "loaded": times[1]},
    ]
    file = tmp_path / "plans.parquet"
    polars.DataFrame(rows).write_parquet(file)
    push = ("features", "push", "--view", "customer", file, "--data-dir", data_dir, "--features", features)
    said = refuse(*push, "--occurred-at", "since", "--known-at", "loaded")
    assert "row 4" in said and "future" in said and "row 5" in said and "since" in said, said
    with Server(data_dir, features=features) as server:
        client = server.client()
        plan = client.stored("c0")["plan"]
        assert plan["value"] == "new"
        assert datetime.datetime.fromisoformat(plan["as_of"]) == times[2]
        assert client.stored("c1")["plan"]["value"] == "only"
        assert client.get("/v1/customers/c2").status == 404
    assert "--occurred-at" in refuse(*push, "--known-at", "occurred")
    assert "loaded" in refuse(*push, "--occurred-at", "load", "--known-at", "loaded")

"""What was served is what a training set holds, what can be computed again, and what a window holds that
was declared too late and filled from history."""

import csv
import datetime
import io
import json
import shutil
import threading

import polars
import pytest

from server import FEATURES, Server, refuse, run, succeed
from waiting import eventually

WINDOWS = """
[[feature]]
name = "tickets_7d"
type = "int64"
aggregate = { event = "ticket", function = "count", window = "7d" }

[[feature]]
name = "minutes_30d"
type = "float64"
aggregate = { event = "ticket", function = "avg", window = "30d", value = "minutes" }
"""


def views(folder, more):
    """The sample views with `more` features of a customer."""
    shutil.copytree(FEATURES, folder)
    view = folder / "customer.toml"
    view.write_text(view.read_text() + more)
    return folder


def now():
    return datetime.datetime.now(datetime.timezone.utc)


def text_of(time):
    return time.isoformat().replace("+00:00", "Z")


def ticket(customer_id, number, occurred_at, minutes):
    return {
        "event_id": f"{customer_id}-{number}",
        "event": "ticket",
        "customer_id": customer_id,
        "occurred_at": text_of(occurred_at),
        "properties": {"minutes": minutes},
    }


def post_events(client, events):
    answer = client.post("/v1/events", events)
    assert answer.status in (200, 202), answer


def training_set(client, rows, query=""):
    """Sends observations as CSV; the rows of the answer."""
    body = io.StringIO()
    writer = csv.DictWriter(body, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    path = f"/v1/features/customer/training-set{query}"
    answer = client.request("POST", path, body.getvalue(), {"Content-Type": "text/csv"})
    assert answer.status == 200, answer
    return polars.read_parquet(io.BytesIO(answer.body)).to_dicts()


@pytest.fixture
def windows(tmp_path):
    return views(tmp_path / "features", WINDOWS)


def test_a_training_set_has_what_was_known_at_the_time_of_each_row(tmp_path, windows):
    with Server(tmp_path / "data", features=windows) as server:
        client = server.client()
        client.store("C-1", {"tenure": 3})
        post_events(client, [ticket("C-1", 1, now() - datetime.timedelta(days=2), 10)])
        between = now()
        # Learned later: the tenure, and a ticket of before
        client.store("C-1", {"tenure": 4})
        post_events(client, [ticket("C-1", 2, now() - datetime.timedelta(days=3), 30)] * 2)

        rows = [
            {"customer_id": "C-1", "observed_at": text_of(now()), "label": 1},
            {"customer_id": "C-1", "observed_at": text_of(between), "label": 0},
            {"customer_id": "C-2", "observed_at": text_of(between), "label": 0},
        ]
        query = "?features=tenure,tickets_7d,minutes_30d"
        made = training_set(client, rows, query)
        wanted = ["customer_id", "label", "tenure", "tickets_7d", "minutes_30d"]
        assert [[row[name] for name in wanted] for row in made] == [
            ["C-1", 1, 4, 2, 20.0],
            ["C-1", 0, 3, 1, 10.0],
            ["C-2", 0, made[2]["tenure"], 0, None],
        ]
        # The same from the command line, beside the running server
        observations = tmp_path / "observations.csv"
        with observations.open("w") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        output = tmp_path / "train.parquet"
        arguments = ["--observations", observations, "--view", "customer", "--output", output]
        places = ["--data-dir", tmp_path / "data"]
        succeed(
            "ledger",
            "training-set",
            *arguments,
            *places,
            "--columns",
            "tenure,tickets_7d,minutes_30d",
            env={"BELLWETHER_FEATURES": str(windows)},
        )
        assert polars.read_parquet(output).to_dicts() == made


def test_mistakes_in_observations_are_refused_and_named(tmp_path, windows):
    with Server(tmp_path / "data", features=windows) as server:
        client = server.client()

        def post(body, path="/v1/features/customer/training-set"):
            return client.request("POST", path, body, {"Content-Type": "text/csv"})

        unknown = post("x\n1\n", "/v1/features/custmer/training-set")
        assert unknown.status == 404 and "did you mean customer?" in unknown.error()
        for body, part in [
            ("observed_at\n2026-01-01\n", "customer_id"),
            ("customer_id,observed_at\nC-1,soon\n", "row 1: observed_at"),
            ("customer_id,observed_at,tenure\nC-1,2026-01-01,1\n", "tenure"),
            ("PAR1 and nothing more", "observations"),
            ("", "customer_id"),
        ]:
            answer = post(body)
            assert answer.status in (400, 422), answer
            assert part in answer.error(), answer
        bad = post("customer_id,observed_at\nC-1,2026-01-01\n", "/v1/features/customer/training-set?x=1")
        assert bad.status == 400


def test_values_as_served_are_recomputed_from_the_log_of_a_running_server(tmp_path, windows):
    with Server(tmp_path / "data", features=windows) as server:
        client = server.client()
        for customer in range(20):
            client.store(f"C-{customer}", {"tenure": customer, "monthly_charges": 20.5 + customer})
        stop = threading.Event()

        def send():
            sender = server.client()
            number = 0
            while not stop.is_set():
                customer = f"C-{number % 20}"
                post_events(sender, [ticket(customer, number, now(), number)])
                number += 1

        sending = threading.Thread(target=send)
        sending.start()
        try:
            for number in range(100):
                client.score(f"C-{number % 20}", features={"tenure": 1} if number % 7 == 0 else {})
        finally:
            stop.set()
            sending.join()

        def check(*more):
            done = run(
                "ledger", "consistency", "--data-dir", tmp_path / "data", "--features", *more, "--json"
            )
            return done.returncode, json.loads(done.stdout.splitlines()[0])

        def all_logged():
            return check(windows)[1]["predictions"] == 100

        # The last predictions may not be in the log yet
        eventually("all predictions in the log", all_logged, 120)
        code, report = check(windows)
        assert report["predictions"] == 100
        assert (code, report["mismatched_values"], report["passed_over"]) == (0, 0, 0), report
        # A view that has changed since is found out
        other = views(tmp_path / "other", WINDOWS)
        view = other / "customer.toml"
        view.write_text(view.read_text().replace('default = "Female"', 'default = "Male"', 1))
        code, report = check(other)
        assert code == 1
        differ = [f["feature"] for f in report["features"] if f["mismatched"]]
        assert differ == ["gender"]
        assert report["other_view_version"] == 100


def test_a_new_window_is_filled_from_history_while_the_server_serves(tmp_path):
    data = tmp_path / "data"
    with Server(data, features=views(tmp_path / "before", "")) as server:
        client = server.client()
        # Events are logged although no window counts them yet
        client.store("C-1", {"tenure": 3})
        for number in range(5):
            occurred_at = now() - datetime.timedelta(days=number)
            post_events(client, [ticket("C-1", number, occurred_at, 10 * number)])
    after = views(tmp_path / "after", WINDOWS)
    with Server(data, features=after) as server:
        client = server.client()
        post_events(client, [ticket("C-1", 9, now(), 50)])
        assert client.stored("C-1")["tickets_7d"]["value"] == 1
        url = f"http://{server.address}"
        done = succeed("features", "backfill", "--view", "customer", "--server", url)
        assert "1 entities" in done.stdout, done.stdout
        assert client.stored("C-1")["tickets_7d"]["value"] == 6
        assert client.stored("C-1")["minutes_30d"]["value"] == 25.0
        # A second time there is nothing left to do
        again = client.post("/v1/features/customer/backfill", "")
        assert again.status == 200 and again.json()["filled"] == 0
        said = refuse("features", "backfill", "--view", "nobody", "--server", url)
        assert "no such view" in said
    # It lasts
    with Server(data, features=after) as server:
        assert server.client().stored("C-1")["minutes_30d"]["value"] == 25.0


def test_a_running_server_takes_a_new_window_and_fills_it_while_requests_run(tmp_path):
    folder = views(tmp_path / "features", "")
    with Server(tmp_path / "data", features=folder) as server:
        client = server.client()
        client.store("C-1", {"tenure": 3})
        for number in range(5):
            occurred_at = now() - datetime.timedelta(days=number)
            post_events(client, [ticket("C-1", number, occurred_at, 10 * number)])
        stop = threading.Event()
        failures = []

        def score():
            scorer = server.client()
            while not stop.is_set():
                answer = scorer.post("/v1/score", {"customer_id": "C-1"})
                if answer.status != 200:
                    failures.append(answer)

        scoring = threading.Thread(target=score)
        scoring.start()
        try:
            view = folder / "customer.toml"
            before = view.read_text()
            # A mistake changes nothing
            view.write_text(before + WINDOWS.replace("count", "cuont", 1))
            answer = client.post("/v1/features/reload", "")
            assert answer.status == 422 and "customer.toml" in answer.error(), answer
            assert "tickets_7d" not in client.stored("C-1")
            # Nor does a view without what a served model reads
            view.write_text(before.replace('name = "tenure"', 'name = "tenures"').replace("tenure,", "tenures,"))
            answer = client.post("/v1/features/reload", "")
            assert answer.status == 422 and "tenure" in answer.error(), answer
            for _ in range(3):
                view.write_text(before)
                assert client.post("/v1/features/reload", "").status == 200
                view.write_text(before + WINDOWS)
                answer = client.post("/v1/features/reload", "")
                assert answer.status == 200 and answer.json()["changed"] == ["customer"], answer
            post_events(client, [ticket("C-1", 9, now(), 50)])
            assert client.stored("C-1")["tickets_7d"]["value"] == 1
            assert client.post("/v1/features/customer/backfill", "").status == 200
            assert client.stored("C-1")["tickets_7d"]["value"] == 6
            assert client.stored("C-1")["minutes_30d"]["value"] == 25.0
        finally:
            stop.set()
            scoring.join()
        assert failures == []

"""`bellwether score --from-store` and `--to-store`: the online store in and out, with the numbers of
/v1/score."""

import json
import random
import signal
import subprocess
import threading
import time
from datetime import UTC, datetime, timedelta

import polars
import pytest

from keys import create
from models import weighted_sum_model
from page import Page
from redis_server import RedisServer
from score_command import FINISH_SECONDS, bits, summary_of
from server import (
    BINARY,
    FEATURES,
    MODELS,
    REPOSITORY,
    Server,
    clean_environment,
    prediction_of,
    refuse,
    run,
    succeed,
)
from telco import IBM_CSV, VARIED, ibm_customers, numbered


SCORE_FEATURES = """
[[feature]]
name = "churn_score"
type = "float64"

[[feature]]
name = "upsell_score"
type = "float64"

[[feature]]
name = "upsell_label"
type = "string"
"""

# A score of stored, window, related and derived features.
CUSTOMER = """
[view]
name = "customer"
entity = "customer_id"

[[relation]]
name = "site"
view = "site"
key = "site_id"

[[feature]]
name = "site_id"
type = "string"

[[feature]]
name = "charges"
type = "float64"
default = 10.0
max_age = "1d"

[[feature]]
name = "tickets"
type = "int64"
aggregate = { event = "ticket", function = "count", window = "30d" }

[[feature]]
name = "site_risk"
type = "float64"
from = "site.risk"
default = 0.25

[[feature]]
name = "pressure"
type = "float64"
expression = "charges * site_risk + tickets / 3.0"

[[feature]]
name = "strain_score"
type = "float64"

[[feature]]
name = "strain_by"
type = "string"
"""

SITE = """
[view]
name = "site"
entity = "site_id"

[[feature]]
name = "risk"
type = "float64"
"""

STRAIN = """
[model]
task = "regression"
view = "customer"

[inputs]
measurements = ["tickets", "site_risk", "pressure"]
"""


def from_store(output, *arguments, features=FEATURES, models=MODELS, model="churn,upsell"):
    folders = ("--models", models, "--features", features)
    return ("score", "--model", model, "--from-store", "--output", output, *folders, *arguments)


def rows_of(output, key="customer_id"):
    """The rows of an output by key; each key is there once."""
    rows = {row[key]: row for row in polars.read_parquet(output).iter_rows(named=True)}
    assert len(rows) == polars.read_parquet(output).height
    return rows


def push(data_dir, file, features, *arguments):
    place = ("--features", features, "--data-dir", data_dir)
    succeed("features", "push", "--view", "customer", file, *place, *arguments, timeout=FINISH_SECONDS)


@pytest.fixture
def telco_features(tmp_path):
    """The sample view with features for scores."""
    folder = tmp_path / "features"
    folder.mkdir()
    (folder / "customer.toml").write_text((FEATURES / "customer.toml").read_text() + SCORE_FEATURES)
    return folder


@pytest.fixture
def strain(tmp_path):
    """Views and a model over every kind of feature, and what is known of six customers."""
    for name in ("features", "models"):
        (tmp_path / name).mkdir()
    (tmp_path / "features" / "customer.toml").write_text(CUSTOMER)
    (tmp_path / "features" / "site.toml").write_text(SITE)
    (weighted_sum_model(tmp_path / "models", "strain") / "model.toml").write_text(STRAIN)
    return tmp_path


def tell(client):
    """Writes six customers, two sites and events, whose windows do not move while a test runs."""

    def write(view, key, features, **fields):
        answer = client.put(f"/v1/features/{view}/{key}", {"features": features, **fields})
        assert answer.status == 200, answer

    write("site", "north", {"risk": 0.7})
    write("site", "south", {"risk": None})
    write("customer", "c-1", {"site_id": "north", "charges": 0.1})
    write("customer", "c-2", {"site_id": "south", "charges": 30.3})
    write("customer", "c-3", {"site_id": "nowhere"})
    long_ago = (datetime.now(UTC) - timedelta(days=3)).isoformat()
    write("customer", "c-4", {"charges": 3.3}, occurred_at=long_ago)
    write("customer", "c-5", {"charges": None})
    for number, (customer_id, days) in enumerate([("c-1", 5), ("c-1", 12), ("c-6", 20), ("c-6", 45)]):
        occurred_at = (datetime.now(UTC) - timedelta(days=days)).isoformat()
        event = {"event_id": f"e-{number}", "event": "ticket", "customer_id": customer_id}
        answer = client.post("/v1/events", {**event, "occurred_at": occurred_at})
        assert answer.status == 200, answer
    return [f"c-{number}" for number in range(1, 7)]


def assert_scores(rows, online, model):
    assert set(rows) == set(online)
    for key, answer in online.items():
        prediction = prediction_of(answer, model)
        assert bits(rows[key][f"{model}_score"]) == bits(prediction["score"]), key
        assert rows[key][f"{model}_version"] == prediction["version"]
        if f"{model}_label" in rows[key]:
            assert rows[key][f"{model}_label"] == prediction.get("label")


def test_every_telco_customer_scores_alike_from_the_store_and_has_its_score_at_once(tmp_path, telco_features):
    customers = [customer_id for customer_id, _, _ in ibm_customers()]
    data = tmp_path / "data"
    push(data, IBM_CSV, telco_features, "--ignore", "Churn")
    stopped = tmp_path / "stopped.parquet"
    summary = summary_of(*from_store(stopped, "--data-dir", data, features=telco_features))
    assert (summary["rows"], summary["scored"], summary["rejected"]) == (7043, 7043, 0)
    assert summary["features"]["total_charges"]["missing"] == 11
    running = tmp_path / "running.parquet"
    with Server(data, features=telco_features) as server:
        client = server.client()
        answers = {}
        failures = []
        done = threading.Event()

        def keep_scoring():
            busy = server.client()
            for number in range(10_000_000):
                if done.is_set():
                    return
                answer = busy.post("/v1/score", {"customer_id": customers[number % len(customers)]})
                if answer.status != 200:
                    failures.append(answer)

        scoring = threading.Thread(target=keep_scoring)
        scoring.start()
        try:
            url = f"http://{server.address}"
            summary = summary_of(
                *from_store(running, "--server", url, "--to-store", features=telco_features)
            )
        finally:
            done.set()
            scoring.join()
        assert not failures, failures[:3]
        assert summary["stored"]["entities"] == 7043
        rows = rows_of(running)
        for customer_id in customers:
            answers[customer_id] = client.score(customer_id, models=["churn", "upsell"])
        for customer_id in customers[::50]:
            stored = client.stored(customer_id)
            assert bits(stored["churn_score"]["value"]) == bits(rows[customer_id]["churn_score"])
            assert bits(stored["upsell_score"]["value"]) == bits(rows[customer_id]["upsell_score"])
            assert stored["upsell_label"]["value"] == rows[customer_id]["upsell_label"]
            assert stored["churn_score"]["as_of"] == summary["stored"]["as_of"]
    for output in (stopped, running):
        rows = rows_of(output)
        assert_scores(rows, answers, "churn")
        assert_scores(rows, answers, "upsell")
    assert polars.read_parquet(stopped)["customer_id"].is_sorted()


def test_windows_related_and_derived_features_are_those_of_the_server(strain):
    folders = {"features": strain / "features", "models": strain / "models"}
    data = strain / "data"
    with Server(data, **folders) as server:
        client = server.client()
        customers = tell(client)
        online = {key: client.score(key, models=["strain"]) for key in customers}
        url = f"http://{server.address}"
        running, page = strain / "running.parquet", strain / "running.html"
        summary = summary_of(*from_store(running, "--server", url, "--html", page, model="strain", **folders))
        assert summary["scored"] == 6
        expected = {"missing": 3, "unknown": 0, "out_of_range": 0, "stale": 1}
        assert summary["features"]["charges"] == expected
        table = Page(page.read_text()).table_of("feature")
        assert table[0][2:] == ["missing", "unknown", "out of range", "stale"]
        (charges,) = [[cell.split()[0] for cell in row[2:]] for row in table if row[0] == "charges"]
        assert charges == ["3", "0", "0", "1"], "the page says what the summary says"
        assert summary["features"]["site_risk"]["missing"] == 5
        server.kill()
    # What the store of a killed server lacks is in its log.
    stopped = strain / "stopped.parquet"
    again = summary_of(*from_store(stopped, "--data-dir", data, "--threads", 2, model="strain", **folders))
    assert again["features"] == summary["features"]
    assert_scores(rows_of(running), online, "strain")
    assert_scores(rows_of(stopped), online, "strain")


def test_scores_go_back_into_the_store_of_a_stopped_server(strain):
    folders = {"features": strain / "features", "models": strain / "models"}
    data = strain / "data"
    with Server(data, **folders) as server:
        customers = tell(server.client())
    for extension, named in [
        ("parquet", []),
        ("csv", ["strain_score=strain_score,strain_by=strain_version"]),
        ("arrow", ["strain_score=strain_score"]),
    ]:
        output = strain / f"scores.{extension}"
        command = from_store(output, "--data-dir", data, "--to-store", *named, model="strain", **folders)
        assert summary_of(*command)["stored"]["entities"] == 6
    rows = rows_of(strain / "scores.parquet")
    with Server(data, **folders) as server:
        client = server.client()
        for key in customers:
            stored = client.stored(key)
            assert bits(stored["strain_score"]["value"]) == bits(rows[key]["strain_score"])
            assert stored["strain_by"]["value"] == "1"


def test_a_table_is_scored_into_the_store(tmp_path, telco_features):
    base = tmp_path / "base.parquet"
    polars.DataFrame(numbered(VARIED)).write_parquet(base)
    output = tmp_path / "scores.parquet"
    with Server(tmp_path / "data", features=telco_features) as server:
        command = ("score", "--model", "churn", "--input", base, "--output", output, "--to-store")
        command += ("--models", MODELS, "--features", telco_features, "--server", f"http://{server.address}")
        assert summary_of(*command)["stored"]["features"] == {"churn_score": "churn_score"}
        client = server.client()
        for key, row in rows_of(output).items():
            assert bits(client.stored(key)["churn_score"]["value"]) == bits(row["churn_score"])


@pytest.fixture
def redis(tmp_path):
    folder = tmp_path / "redis"
    folder.mkdir()
    with RedisServer(folder) as redis:
        yield redis


def test_a_shared_store_is_read_beside_its_servers_and_written(strain, redis):
    folders = {"features": strain / "features", "models": strain / "models"}
    settings = strain / "bellwether.toml"
    settings.write_text(f'[store]\nurl = "{redis.url}"\ntimeout = "5s"\n')
    with_redis = ("--config", settings)
    with Server(strain / "data", arguments=with_redis, **folders) as server:
        client = server.client()
        customers = tell(client)
        online = {key: client.score(key, models=["strain"]) for key in customers}
        beside = (*with_redis, "--data-dir", strain / "job")
        output = strain / "beside.parquet"
        assert summary_of(*from_store(output, *beside, model="strain", **folders))["scored"] == 6
        assert_scores(rows_of(output), online, "strain")
        # The server gives its entities, too, and a log of its own takes the scores.
        through = strain / "through.parquet"
        url = f"http://{server.address}"
        assert summary_of(*from_store(through, "--server", url, model="strain", **folders))["scored"] == 6
        assert_scores(rows_of(through), online, "strain")
        summary = summary_of(*from_store(output, *beside, "--to-store", model="strain", **folders))
        assert summary["stored"]["entities"] == 6
        for key, row in rows_of(output).items():
            assert bits(client.stored(key)["strain_score"]["value"]) == bits(row["strain_score"])


def begin(command):
    return subprocess.Popen(
        [str(BINARY), *map(str, command)],
        cwd=REPOSITORY,
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def kill_when(command, file):
    """Runs a command and kills it when a file appears."""
    process = begin(command)
    deadline = time.monotonic() + FINISH_SECONDS
    while process.poll() is None and not file.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)  # between two looks for it
    process.kill()
    assert process.wait() in (0, -signal.SIGKILL)


def kill_on_the_way(command, output, part):
    """Runs a command and kills it when a part of its output is there, before all of it is."""
    for _ in range(20):
        kill_when(command, output.with_name(output.name + ".job") / part)
        if not output.exists():
            return
        # It was quicker than whoever was to kill it. The next one begins anew.
        output.unlink()
        output.with_name(output.name + ".manifest.json").unlink(missing_ok=True)
    raise AssertionError("it is always quicker")


def run_and_kill(command, seconds):
    """Runs a command and kills it after some time; whether it was still running then."""
    process = begin(command)
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return True
    assert code == 0
    return False


def test_a_shared_store_of_many_gives_each_once(tmp_path, redis):
    settings = tmp_path / "bellwether.toml"
    settings.write_text(f'[store]\nurl = "{redis.url}"\ntimeout = "5s"\n')
    base = tmp_path / "base.parquet"
    succeed("simulate", "customers", "--rows", 30_000, "--output", base)
    push(tmp_path / "data", base, FEATURES, "--config", settings)
    output = tmp_path / "scores.parquet"
    place = ("--config", settings, "--data-dir", tmp_path / "data")
    command = from_store(output, *place, "--memory", "300MiB", "--checkpoint-rows", 1000)
    kill_on_the_way(command, output, "part-000000.json")
    assert "begins again" in succeed(*command, "--resume", timeout=FINISH_SECONDS).stderr
    rows = rows_of(output)
    assert set(rows) == set(polars.read_parquet(base)["customer_id"].cast(str))


def test_killed_at_any_point_and_resumed_every_entity_is_scored_and_stored_once(tmp_path, telco_features):
    base = tmp_path / "base.parquet"
    succeed("simulate", "customers", "--rows", 12_000, "--output", base)
    data = tmp_path / "data"
    push(data, base, telco_features)
    whole, output = tmp_path / "whole.parquet", tmp_path / "scores.parquet"

    def command(output, *arguments):
        steps = ("--checkpoint-rows", 2048, "--threads", 2, "--to-store", "--data-dir", data)
        return from_store(output, *steps, *arguments, features=telco_features)

    started = time.monotonic()
    summary = summary_of(*command(whole))
    seconds = time.monotonic() - started
    assert summary["stored"]["entities"] == 12_000
    # In the middle of scoring, and of writing what is scored.
    kill_on_the_way(command(output), output, "part-000001.json")
    kill_when(command(output, "--resume"), output)
    randomly = random.Random(11)
    kills = 2
    # Later and later, because the last step, writing into the store, is one that is done as a whole.
    while run_and_kill(command(output, "--resume"), randomly.uniform(0.2, 0.9) * seconds * (1 + kills / 8)):
        kills += 1
        assert kills < 100, "every run gets further than the one before"
    print(f"killed {kills} times; one run takes {seconds:.1f} s")
    assert polars.read_parquet(output).equals(polars.read_parquet(whole))
    rows = rows_of(output)
    assert len(rows) == 12_000
    manifest = json.loads((tmp_path / "scores.parquet.manifest.json").read_text())
    assert manifest["summary"]["stored"]["entities"] == 12_000
    with Server(data, features=telco_features) as server:
        client = server.client()
        for key in list(rows)[::400]:
            stored = client.stored(key)
            assert bits(stored["churn_score"]["value"]) == bits(rows[key]["churn_score"])
            assert stored["churn_score"]["as_of"] == manifest["summary"]["stored"]["as_of"]


def test_what_cannot_be_is_said_before_anything_is_scored(tmp_path, telco_features):
    output = tmp_path / "scores.parquet"
    data = tmp_path / "data"
    said = refuse(*from_store(output, "--data-dir", data))
    assert "no store in --data-dir" in said and "--server" in said
    said = refuse(*from_store(output, "--data-dir", data, "--input", "x.csv"))
    assert "--input" in said and "--from-store" in said
    said = refuse(*from_store(output, "--server", "http://127.0.0.1:1"))
    assert "is the server running" in said
    arguments = ("--model", "churn", "--input", "x.csv", "--output", output, "--models", MODELS)
    said = refuse("score", *arguments, "--features", FEATURES, "--server", "http://127.0.0.1:1")
    assert "--server" in said and "--to-store" in said
    base = tmp_path / "base.parquet"
    polars.DataFrame(numbered(VARIED)).write_parquet(base)
    push(data, base, telco_features)

    said = refuse(*from_store(output, "--data-dir", data, "--to-store"))
    for feature, kind in [("churn_score", "float64"), ("upsell_score", "float64"), ("upsell_label", "string")]:
        assert f'name = "{feature}"\ntype = "{kind}"' in said
    said = refuse(*from_store(output, "--data-dir", data, "--to-store", "tenure=churn_score"))
    assert "tenure" in said and "int64" in said and "float64" in said
    said = refuse(*from_store(output, "--data-dir", data, "--to-store", "x=churn_scores"))
    assert "churn_score" in said and "no such column" in said
    twice = "churn_score=churn_score,churn_score=upsell_score"
    said = refuse(*from_store(output, "--data-dir", data, "--to-store", twice, features=telco_features))
    assert "churn_score" in said and "named twice" in said
    assert not output.exists()

    with Server(data, features=telco_features) as server:
        said = refuse(*from_store(output, "--data-dir", data, features=telco_features))
        assert "in use" in said and "--server" in said
        # Not with models over other features than those of the server.
        said = refuse(*from_store(output, "--server", f"http://{server.address}", features=FEATURES))
        assert "view customer of the server" in said
    assert not output.exists()
    place = ("--data-dir", tmp_path / "other", "--features", telco_features)
    succeed("features", "push", "--view", "customer", *place, write_header(tmp_path / "none.csv"))
    said = refuse(*from_store(output, "--data-dir", tmp_path / "other", features=telco_features))
    assert "no entities" in said
    assert not output.exists()


def write_header(file):
    file.write_text("customer_id,tenure\n")
    return file


def test_refused_values_are_told_and_the_output_stays(tmp_path, telco_features):
    view = telco_features / "customer.toml"
    narrow = view.read_text().replace(
        'name = "churn_score"\ntype = "float64"', 'name = "churn_score"\ntype = "float64"\nmax = 0.01'
    )
    view.write_text(narrow)
    base = tmp_path / "base.parquet"
    polars.DataFrame(numbered(VARIED)).write_parquet(base)
    push(tmp_path / "data", base, telco_features)
    output = tmp_path / "scores.parquet"
    command = from_store(output, "--data-dir", tmp_path / "data", "--to-store", features=telco_features)
    said = refuse(*command)
    assert "churn_score" in said and "out of range" in said and "--resume" in said
    assert polars.read_parquet(output).height == len(VARIED)
    assert "stored" not in json.loads((tmp_path / "scores.parquet.manifest.json").read_text())["summary"]
    view.write_text(narrow.replace("\nmax = 0.01", ""))
    said = refuse(*command, "--resume")
    assert "view customer has changed" in said
    view.write_text(narrow)
    named = ("upsell_score=upsell_score",)
    summary = summary_of(*command, *named, "--resume")
    assert summary["stored"]["entities"] == len(VARIED) == summary["resumed_rows"]


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A server with 2,500 customers."""
    folder = tmp_path_factory.mktemp("pages")
    base = folder / "base.parquet"
    succeed("simulate", "customers", "--rows", 2500, "--output", base)
    push(folder / "data", base, FEATURES)
    with Server(folder / "data") as server:
        yield server


def all_pages(client, limit, between=lambda: None):
    rows, path = [], f"/v1/features/customer?limit={limit}"
    answer = client.get(path)
    while True:
        assert answer.status == 200, answer
        assert answer.headers["content-type"] == "application/x-ndjson"
        rows += [json.loads(line) for line in answer.body.splitlines()]
        after = answer.headers["bellwether-next"]
        if after is None:
            return rows
        between()
        answer = client.get(f"{path}&after={after}")


def test_pages_give_every_entity_once_while_others_come_and_go(pages):
    client = pages.client()
    numbers = iter(range(1000))

    def meanwhile():
        """Entities at both ends of the keys, and one that is changed."""
        number = next(numbers)
        client.store(f"!new-{number}", {"tenure": number})
        client.store(f"~new-{number}", {"tenure": number})
        assert client.delete(f"/v1/customers/!new-{number}").status == 204

    for number in range(1000, 1010):
        client.store(f"!there-{number}", {"tenure": number, "contract": "One year"})
    rows = all_pages(client, 100, meanwhile)
    keys = [row["customer_id"] for row in rows]
    assert len(keys) == len(set(keys))
    there = [key for key in keys if not key.startswith(("!new", "~new"))]
    assert len(there) == 2510
    assert keys == sorted(keys)
    row = next(row for row in rows if row["customer_id"] == "!there-1003")
    assert (row["tenure"], row["contract"], row["gender"]) == (1003, "One year", None)
    whole = all_pages(client, 10_000)
    assert [row for row in whole if row in rows] == rows


def test_a_page_in_arrow_has_the_same_values(pages):
    client = pages.client()
    headers = {"Accept": "application/vnd.apache.arrow.stream"}
    answer = client.request("GET", "/v1/features/customer?limit=50", headers=headers)
    assert answer.status == 200 and answer.headers["content-type"] == headers["Accept"]
    lines = client.get("/v1/features/customer?limit=50").body.splitlines()
    assert polars.read_ipc_stream(answer.body).to_dicts() == [json.loads(line) for line in lines]


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/v1/features/customers", 404, "customer"),
        ("/v1/features/customer?limit=0", 400, "limit"),
        ("/v1/features/customer?limit=10001", 400, "limit"),
        ("/v1/features/customer?limit=x", 400, "limit"),
        ("/v1/features/customer?after=xyz", 422, "after"),
        ("/v1/features/customer?after=" + "41" * 5000, 422, "after"),
        ("/v1/features/customer?at=yesterday", 400, "at"),
        ("/v1/features/customer?page=2", 400, "page"),
    ],
)
def test_a_page_that_cannot_be_is_refused(pages, path, status, said):
    answer = pages.client().get(path)
    assert answer.status == status
    assert said in answer.error()


def test_entities_are_read_and_written_with_a_key_for_data(tmp_path, telco_features):
    data = tmp_path / "data"
    base = tmp_path / "base.parquet"
    polars.DataFrame(numbered(VARIED)).write_parquet(base)
    push(data, base, telco_features)
    for_scores, for_data = create(data, "score"), create(data, "data")
    output = tmp_path / "scores.parquet"
    with Server(data, features=telco_features) as server:
        command = from_store(
            output, "--server", f"http://{server.address}", "--to-store", features=telco_features
        )
        assert "BELLWETHER_API_KEY" in refuse(*command)
        said = refuse(*command, env={"BELLWETHER_API_KEY": for_scores.text})
        assert "data" in said and for_scores.secret not in said
        summary = summary_of(*command, env={"BELLWETHER_API_KEY": for_data.text})
        assert summary["stored"]["entities"] == len(VARIED)


def test_help_names_the_store():
    said = run("score", "--help").stdout
    for option in ("--from-store", "--to-store", "--server", "--data-dir"):
        assert option in said

"""`bellwether score`: whole tables, with the numbers of /v1/score, whatever happens on the way."""

import json
import random
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import polars
import pytest

from score_command import FINISH_SECONDS, bits, run_and_kill, score, summary_of
from server import BINARY, FEATURES, REPOSITORY, Server, clean_environment, prediction_of, refuse, succeed
from telco import IBM_CSV, VARIED, customer, ibm_customers, numbered

CONNECTIONS = 4


def write_parquet(path, rows):
    table = polars.DataFrame(numbered(rows))
    table.write_parquet(path)
    return path


def scored_online(rows):
    """The answers of /v1/score for customers row-0, row-1, ..., with reasons."""
    with Server(rows["data"]) as server:
        client = server.client()
        answers = []
        for number, features in enumerate(rows["rows"]):
            client.store(f"row-{number}", features)
            answers.append(client.score(f"row-{number}", models=["churn", "upsell"], explain=4))
    return answers


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Varied customers as Parquet."""
    return write_parquet(tmp_path_factory.mktemp("base") / "base.parquet", VARIED)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A base of made-up customers that takes a while, in several row groups."""
    file = tmp_path_factory.mktemp("many") / "many.parquet"
    succeed("simulate", "customers", "--rows", 30_000, "--output", file)
    polars.read_parquet(file).write_parquet(file, row_group_size=7000)
    return file


def test_every_telco_customer_has_the_same_bits_online_and_in_batch(tmp_path):
    customers = ibm_customers()
    output = tmp_path / "scores.parquet"
    summary = summary_of(*score(IBM_CSV, output))
    assert (summary["rows"], summary["scored"], summary["rejected"]) == (7043, 7043, 0)
    assert summary["features"]["total_charges"]["missing"] == 11
    assert "Churn" in summary["unread"]
    batch = polars.read_parquet(output)
    assert batch["customer_id"].to_list() == [customer_id for customer_id, _, _ in customers]

    def answers(part):
        client = server.client()
        found = [client.score(customer_id, models=["churn", "upsell"]) for customer_id, _, _ in part]
        client.close()
        return found

    data = tmp_path / "data"
    view = ("--view", "customer", "--features", FEATURES, "--data-dir", data)
    succeed("features", "push", *view, "--ignore", "Churn", IBM_CSV, timeout=FINISH_SECONDS)
    with Server(data) as server:
        parts = [customers[start::CONNECTIONS] for start in range(CONNECTIONS)]
        with ThreadPoolExecutor(CONNECTIONS) as threads:
            found = list(threads.map(answers, parts))
    online = [None] * len(customers)
    for start, part in enumerate(found):
        online[start::CONNECTIONS] = part

    for row, answer in zip(batch.iter_rows(named=True), online, strict=True):
        churn, upsell = prediction_of(answer, "churn"), prediction_of(answer, "upsell")
        assert bits(row["churn_score"]) == bits(churn["score"]), answer
        assert bits(row["upsell_score"]) == bits(upsell["score"]), answer
        assert row["upsell_label"] == upsell.get("label"), answer
        assert (row["churn_version"], row["upsell_version"]) == (churn["version"], upsell["version"])


def test_reasons_are_those_of_the_server(base, tmp_path):
    output = tmp_path / "scores.parquet"
    succeed(*score(base, output, "--explain", 4))
    online = scored_online({"data": tmp_path / "data", "rows": VARIED})
    for row, answer in zip(polars.read_parquet(output).iter_rows(named=True), online, strict=True):
        for model in ("churn", "upsell"):
            expected = prediction_of(answer, model).get("reasons")
            found = row[f"{model}_reasons"]
            assert (found and json.loads(found)) == expected


def test_every_format_in_and_out_gives_the_same(base, tmp_path):
    table = polars.read_parquet(base)
    table.write_csv(tmp_path / "base.csv")
    table.write_ndjson(tmp_path / "base.ndjson")
    table.write_ipc(tmp_path / "base.arrow")
    outputs = {}
    for source in (base, tmp_path / "base.csv", tmp_path / "base.ndjson", tmp_path / "base.arrow"):
        for extension in ("parquet", "csv", "arrow"):
            output = tmp_path / f"from-{source.suffix[1:]}.{extension}"
            succeed(*score(source, output))
            text = {"customer_id": str, "churn_version": str, "upsell_version": str}
            read = {
                "parquet": polars.read_parquet,
                "csv": lambda file: polars.read_csv(file, schema_overrides=text),
                "arrow": polars.read_ipc,
            }
            outputs[output.name] = read[extension](output)
    first = outputs["from-parquet.parquet"]
    assert first.height == len(VARIED)
    for name, table in outputs.items():
        assert table.equals(first, null_equal=True), name


def test_patterns_and_folders_are_read_in_the_order_of_their_paths(tmp_path):
    (tmp_path / "base").mkdir()
    write_parquet(tmp_path / "base" / "b.parquet", VARIED[4:])
    write_parquet(tmp_path / "base" / "a.parquet", VARIED[:4])
    whole = tmp_path / "whole.parquet"
    succeed(*score(write_parquet(tmp_path / "all.parquet", VARIED), whole))
    for source in (tmp_path / "base", tmp_path / "base" / "*.parquet"):
        output = tmp_path / "out.parquet"
        succeed(*score(source, output))
        scores = polars.read_parquet(output)["churn_score"]
        assert scores.equals(polars.read_parquet(whole)["churn_score"])


def test_files_without_rows_and_a_byte_order_mark_are_no_trouble(tmp_path):
    (tmp_path / "base").mkdir()
    table = polars.read_parquet(write_parquet(tmp_path / "base.parquet", VARIED))
    (tmp_path / "base" / "a.ndjson").touch()
    table.write_csv(tmp_path / "base" / "b.csv", include_bom=True, line_terminator="\r\n")
    table.head(0).write_csv(tmp_path / "base" / "c.csv")
    table.head(0).write_parquet(tmp_path / "base" / "d.parquet")
    summary = summary_of(*score(tmp_path / "base", tmp_path / "scores.csv"))
    assert (summary["scored"], summary["rejected"]) == (len(VARIED), 0)
    summary = summary_of(*score(tmp_path / "base" / "d.parquet", tmp_path / "none.parquet"))
    assert summary["scored"] == 0
    assert polars.read_parquet(tmp_path / "none.parquet").columns[:2] == ["customer_id", "churn_score"]


def test_columns_of_other_names_are_named_and_none_is_taken_for_missing(tmp_path):
    table = polars.read_parquet(write_parquet(tmp_path / "base.parquet", VARIED))
    table = table.rename({"tenure": "months", "customer_id": "who"})
    table.write_parquet(tmp_path / "other.parquet")
    output = tmp_path / "scores.csv"
    said = refuse(*score(tmp_path / "other.parquet", output))
    assert "customer_id" in said and "--column" in said
    said = refuse(*score(tmp_path / "other.parquet", output, "--column", "customer_id=who"))
    assert "tenure" in said and "--without tenure" in said
    assert not output.exists()
    named = ("--column", "customer_id=who", "--column", "tenure=months")
    succeed(*score(tmp_path / "other.parquet", output, *named))
    assert polars.read_csv(output)["customer_id"].to_list() == [f"row-{n}" for n in range(len(VARIED))]
    summary = summary_of(
        *score(tmp_path / "other.parquet", output, "--column", "customer_id=who", "--without", "tenure")
    )
    assert summary["features"]["tenure"]["missing"] == len(VARIED)


def test_bad_rows_go_to_a_file_with_their_reason_and_the_others_are_scored(tmp_path):
    rows = ["customer_id," + ",".join(customer())]
    good = [str(value) for value in customer().values()]

    def line(key, **changes):
        cells = dict(zip(customer(), good, strict=True)) | changes
        return ",".join([key, *cells.values()])

    rows += [line("a"), line("b", tenure="soon"), line("", tenure="4"), line("d", monthly_charges="-1")]
    rows += [line("e") + ",more", line("f", contract="Weekly"), line("g")]
    source = tmp_path / "base.csv"
    source.write_text("\n".join(rows) + "\n")
    output = tmp_path / "scores.csv"
    summary = summary_of(*score(source, output))
    assert (summary["rows"], summary["scored"], summary["rejected"]) == (7, 3, 4)
    assert summary["features"]["contract"]["unknown"] == 1
    assert polars.read_csv(output)["customer_id"].to_list() == ["a", "f", "g"]
    rejects = [json.loads(text) for text in (tmp_path / "scores.csv.rejects.ndjson").read_text().splitlines()]
    assert [(reject["row"], reject["column"]) for reject in rejects] == [
        (2, "tenure"),
        (3, "customer_id"),
        (4, "monthly_charges"),
        (5, ""),
    ]
    assert "expected int64, found \"soon\"" in rejects[0]["reason"]
    assert rejects[0]["content"]["customer_id"] == "b"
    assert all(reject["file"] == str(source) for reject in rejects)

    said = refuse(*score(source, tmp_path / "none.csv", "--max-rejects", "3", "--rejects", tmp_path / "r"))
    assert "4 of 7 rows were rejected" in said and "--max-rejects" in said
    assert not (tmp_path / "none.csv").exists()
    assert len((tmp_path / "r").read_text().splitlines()) == 4
    succeed(*score(source, tmp_path / "none.csv", "--max-rejects", "4"))


def test_a_mistake_in_the_command_is_told_before_anything_is_read(base, tmp_path):
    for arguments, expected in [
        (score(base, tmp_path / "a.csv", models="chrun"), "chrun"),
        (score(base, tmp_path / "a.txt"), ".parquet"),
        (score(tmp_path / "nothing-*.csv", tmp_path / "a.csv"), "no file matches"),
        (score(base, base), "among the inputs"),
        (score(base, tmp_path / "a.csv", "--column", "tenur=x"), "tenure"),
        (score(base, tmp_path / "a.csv", "--memory", "1KB"), "--memory"),
        (score(base, tmp_path / "a.csv", models="churn,churn"), "twice"),
        *(
            (score(base, tmp_path / "a.csv", "--rejects", rejects), f"--rejects {rejects}")
            for rejects in [
                base,
                tmp_path / "a.csv",
                tmp_path / "no" / ".." / "a.csv.manifest.json",
                tmp_path / "no" / "such" / "folder.ndjson",
            ]
        ),
    ]:
        assert expected in refuse(*arguments)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_of_a_finished_job_but_what_it_made(base, tmp_path):
    output = tmp_path / "scores.parquet"
    summary = summary_of(*score(base, output))
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "scores.parquet",
        "scores.parquet.manifest.json",
    ]
    manifest = json.loads((tmp_path / "scores.parquet.manifest.json").read_text())
    assert manifest["output_bytes"] == output.stat().st_size
    assert manifest["job"]["inputs"][0]["bytes"] == base.stat().st_size
    assert [model["model"] for model in manifest["job"]["models"]] == ["churn", "upsell"]
    scores = polars.read_parquet(output)["churn_score"]
    churn = summary["models"][0]["scores"]
    assert churn["count"] == len(VARIED) == sum(churn["histogram"]["counts"])
    assert churn["mean"] == pytest.approx(scores.mean())
    assert (churn["min"], churn["max"]) == (scores.min(), scores.max())


def small_steps(many, output, *arguments):
    return score(many, output, "--checkpoint-rows", 4096, "--threads", 2, *arguments)


KILLS = 10
# Little memory makes for few rows at a time, and so for many checkpoints.
MANY_CHECKPOINTS = ("--checkpoint-rows", 256, "--memory", "210MiB", "--threads", 2)


@pytest.mark.parametrize("extension", ["parquet", "csv"])
def test_killed_at_ten_random_points_and_resumed_the_output_is_that_of_one_run(many, tmp_path, extension):
    whole = tmp_path / f"whole.{extension}"
    succeed(*score(many, whole, *MANY_CHECKPOINTS), timeout=FINISH_SECONDS)
    output = tmp_path / f"scores.{extension}"
    manifest = output.with_name(output.name + ".manifest.json")
    command = score(many, output, *MANY_CHECKPOINTS, "--resume")
    randomly = random.Random(7)

    def assert_as_one_run():
        assert output.read_bytes() == whole.read_bytes()
        found, expected = (
            json.loads(file.with_name(file.name + ".manifest.json").read_text())["summary"]
            for file in (output, whole)
        )
        for name in ("rows", "scored", "rejected", "models", "features"):
            assert found[name] == expected[name]

    kills, finished = 0, 0
    while kills < KILLS:
        if run_and_kill(command, output, randomly.randint(0, 4), randomly.uniform(0, 0.2)):
            kills += 1
            # It appears when it is complete; whoever is killed after that had only not ended yet.
            assert not output.exists() or output.read_bytes() == whole.read_bytes()
        else:
            # It was quicker than whoever was to kill it. The next one begins anew.
            assert_as_one_run()
            output.unlink()
            manifest.unlink()
            finished += 1
            assert finished < 50
    succeed(*command, timeout=FINISH_SECONDS)
    print(f"killed {kills} times, finished before that {finished} times")
    assert_as_one_run()


def test_a_job_whose_input_or_options_changed_is_not_gone_on_with(many, tmp_path):
    source = tmp_path / "base.parquet"
    source.write_bytes(many.read_bytes())
    output = tmp_path / "scores.parquet"
    process = subprocess.Popen(
        [str(BINARY), *map(str, small_steps(source, output))],
        cwd=REPOSITORY,
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    first_part = tmp_path / "scores.parquet.job" / "part-000000.json"
    deadline = time.monotonic() + FINISH_SECONDS
    while not first_part.exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)  # between two looks for the first part
    # It stays where it is, however long the other one takes to begin.
    process.send_signal(signal.SIGSTOP)
    said = refuse(*small_steps(source, output))
    assert "another process" in said
    process.kill()
    process.wait()
    said = refuse(*small_steps(source, output, "--resume", "--explain", 2))
    assert "--explain" in said
    succeed("simulate", "customers", "--rows", 100, "--output", source)
    said = refuse(*small_steps(source, output, "--resume"))
    assert str(source) in said and "has changed" in said
    summary = summary_of(*small_steps(source, output))
    assert (summary["rows"], summary["resumed_rows"]) == (100, 0)
    assert polars.read_parquet(output).height == 100

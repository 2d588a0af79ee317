"""What `bellwether score` has to say of a run: bands of scores, what changed since the last run, the
summary as a page; and inputs that cannot be trusted or do not fit."""

import contextlib
import json
import random
import subprocess
import time

import polars
import pytest

from churn_versions import add_version
from models import copy_sample, weighted_sum_model
from page import Page
from score_command import FINISH_SECONDS, run_and_kill, score, summary_of
from server import BINARY, REPOSITORY, clean_environment, refuse, succeed
from telco import VARIED, customer

EDGES = [0.2, 0.4, 0.6, 0.8]
REGRESSION = """
[model]
task = "regression"
view = "customer"
[inputs]
measurements = ["tenure", "monthly_charges", "total_charges"]
[output]
probabilities = "total"
"""


def start(*command):
    return subprocess.Popen(
        [str(BINARY), *map(str, command)],
        cwd=REPOSITORY,
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(process, look):
    """Waits for something that is seen while a process runs."""
    deadline = time.monotonic() + FINISH_SECONDS
    while not look():
        assert process.poll() in (None, 0), process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)  # between two looks


def read(file):
    text = {"customer_id": str, "churn_version": str, "upsell_version": str}
    return {
        ".parquet": polars.read_parquet,
        ".csv": lambda file: polars.read_csv(file, schema_overrides=text),
        ".arrow": polars.read_ipc,
    }[file.suffix](file)


def write(table, file):
    {".parquet": table.write_parquet, ".csv": table.write_csv, ".arrow": table.write_ipc}[file.suffix](file)
    return file


def band_of(number, edges=EDGES):
    return sum(edge <= number for edge in edges)


def scores_by_key(file, model):
    """Of a key that comes again, the last row counts."""
    table = read(file)
    return dict(zip(table["customer_id"], table[f"{model}_score"], strict=True))


def assert_is_the_difference(found, then, now, edges=EDGES, movers=20):
    """Compares what was said of a model with a join made here."""
    bands = len(edges) + 1
    migration = [[0] * bands for _ in range(bands)]
    new, gone = [0] * bands, [0] * bands
    for key in then.keys() | now.keys():
        if key in then and key in now:
            migration[band_of(then[key], edges)][band_of(now[key], edges)] += 1
        elif key in now:
            new[band_of(now[key], edges)] += 1
        else:
            gone[band_of(then[key], edges)] += 1
    assert found["migration"] == migration
    assert (found["new"], found["gone"]) == (new, gone)
    moves = {key: now[key] - then[key] for key in then.keys() & now.keys()}
    up = sorted((-change, key) for key, change in moves.items() if change > 0)[:movers]
    down = sorted((change, key) for key, change in moves.items() if change < 0)[:movers]
    assert [mover["key"]["customer_id"] for mover in found["up"]] == [key for _, key in up]
    assert [mover["key"]["customer_id"] for mover in found["down"]] == [key for _, key in down]
    for mover in found["up"] + found["down"]:
        key = mover["key"]["customer_id"]
        assert (mover["then"], mover["now"], mover["change"]) == (then[key], now[key], moves[key])
    assert found["mean_change"] == pytest.approx(sum(moves.values()) / len(moves))
    assert found["rose"] == sum(migration[i][j] for i in range(bands) for j in range(bands) if j > i)
    assert found["fell"] == sum(migration[i][j] for i in range(bands) for j in range(bands) if j < i)
    assert found["stayed"] == sum(migration[i][i] for i in range(bands))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A base of made-up customers."""
    file = tmp_path_factory.mktemp("base") / "base.parquet"
    succeed("simulate", "customers", "--rows", 3000, "--output", file)
    return file


@pytest.fixture(scope="module")
def changed(base, tmp_path_factory):
    """The base some time later: some are gone, some are new, all have stayed longer."""
    table = polars.read_parquet(base)
    new = table.head(40).with_columns(polars.concat_str(polars.lit("new-"), "customer_id").alias("customer_id"))
    stayed = table.slice(100).with_columns((polars.col("tenure") + 7).alias("tenure")).reverse()
    return write(polars.concat([stayed, new]), tmp_path_factory.mktemp("changed") / "base.parquet")


@pytest.fixture(scope="module")
def later(tmp_path_factory):
    """The model repository some time later: another version of churn, and the same of upsell."""
    models = tmp_path_factory.mktemp("later")
    copy_sample("churn", models)
    copy_sample("upsell", models)
    add_version(models, 2, shift=0.7)
    return models


def test_every_summary_has_the_share_of_each_band(base, tmp_path):
    output = tmp_path / "scores.parquet"
    for arguments, edges in [((), EDGES), (("--bands", "0.1,0.3,0.5"), [0.1, 0.3, 0.5])]:
        summary = summary_of(*score(base, output, *arguments))
        for model in summary["models"]:
            scores = read(output)[f"{model['model']}_score"]
            expected = [0] * (len(edges) + 1)
            for number in scores:
                expected[band_of(number, edges)] += 1
            assert [band["rows"] for band in model["bands"]] == expected
            assert [band["from"] for band in model["bands"]] == [None, *edges]
            assert sum(band["share"] for band in model["bands"]) == pytest.approx(1)
    told = succeed(*score(base, output), timeout=FINISH_SECONDS).stdout
    assert "below 0.2" in told and "from 0.8" in told
    assert "diff" not in summary
    for text in ("x", "0.5,0.1", ""):
        assert "--bands" in refuse(*score(base, output, "--bands", text))
    assert "--diff" in refuse(*score(base, output, "--movers", 3)), "movers since when?"


@pytest.mark.parametrize("extension", ["parquet", "csv", "arrow"])
def test_the_difference_to_the_last_run_is_that_of_a_join(base, changed, later, tmp_path, extension):
    last, output = tmp_path / f"last.{extension}", tmp_path / f"now.{extension}"
    succeed(*score(base, last), timeout=FINISH_SECONDS)
    command = score(changed, output, "--diff", last, repository=later)
    summary = summary_of(*command)
    diff = summary["diff"]
    assert (diff["both"], diff["new"], diff["gone"]) == (2900, 40, 100)
    assert (diff["last"], diff["last_bytes"]) == (str(last), last.stat().st_size)
    assert [model["model"] for model in diff["models"]] == ["churn", "upsell"]
    assert (diff["models"][0]["last_version"], diff["models"][0]["version"]) == ("1", "2")
    for model in diff["models"]:
        then, now = scores_by_key(last, model["model"]), scores_by_key(output, model["model"])
        assert_is_the_difference(model, then, now)
    manifest = json.loads(output.with_name(output.name + ".manifest.json").read_text())
    assert manifest["summary"]["diff"] == diff
    assert not output.with_name(output.name + ".job").exists()

    told = succeed(*command, "--bands", "0.5", "--movers", 3, timeout=FINISH_SECONDS).stdout
    assert f"since {last}: 2900 in both, 40 new, 100 gone" in told
    assert "churn version 2 (version 1 then)" in told
    assert "below 0.5" in told and "most up:" in told


def test_the_last_run_may_be_the_file_that_is_replaced(base, changed, tmp_path):
    output, page = tmp_path / "scores.parquet", tmp_path / "scores.html"
    nightly = ("--diff", output, "--resume", "--html", page)
    first = start(*score(base, output, *nightly))
    _, said = first.communicate(timeout=FINISH_SECONDS)
    assert first.returncode == 0 and "no earlier run" in said
    then = {model: scores_by_key(output, model) for model in ("churn", "upsell")}
    summary = summary_of(*score(changed, output, *nightly))
    for model in summary["diff"]["models"]:
        assert_is_the_difference(model, then[model["model"]], scores_by_key(output, model["model"]))
    again = summary_of(*score(changed, tmp_path / "." / "scores.parquet", *nightly))
    assert again["diff"]["new"] == 0
    for model in again["diff"]["models"]:
        assert model["rose"] == model["fell"] == 0 and model["up"] == model["down"] == []


def test_keys_that_come_again_are_told_and_the_last_row_counts(tmp_path):
    rows = [{"customer_id": f"c{n % 3}", **row} for n, row in enumerate(VARIED)]
    last, output = tmp_path / "last.csv", tmp_path / "now.csv"
    succeed(*score(write(polars.DataFrame(rows), tmp_path / "a.parquet"), last))
    table = polars.DataFrame(rows[2:])
    summary = summary_of(*score(write(table, tmp_path / "b.parquet"), output, "--diff", last))
    diff = summary["diff"]
    assert (diff["both"], diff["new"], diff["gone"]) == (3, 0, 0)
    assert (diff["last_duplicates"], diff["duplicates"]) == (5, 3)
    then, now = scores_by_key(last, "churn"), scores_by_key(output, "churn")
    moved = {key for key in then if then[key] != now[key]}
    found = diff["models"][0]
    assert {mover["key"]["customer_id"] for mover in found["up"] + found["down"]} == moved
    assert "come again" in succeed(*score(tmp_path / "b.parquet", output, "--diff", last)).stdout


def test_the_bands_of_a_regression_are_the_quintiles_of_the_last_run(base, changed, tmp_path):
    models = tmp_path / "models"
    (weighted_sum_model(models) / "model.toml").write_text(REGRESSION)
    copy_sample("churn", models)
    options = {"models": "weighted_sum,churn", "repository": models}
    last, output = tmp_path / "last.parquet", tmp_path / "now.parquet"
    alone = summary_of(*score(base, last, **options))["models"][0]
    shares = [band["share"] for band in alone["bands"]]
    assert len(shares) == 5 and all(0.15 < share < 0.25 for share in shares)
    summary = summary_of(*score(changed, output, "--diff", last, **options))
    bands, found = summary["models"][0]["bands"], summary["diff"]["models"][0]
    edges = [band["from"] for band in bands[1:]]
    assert edges == [band["from"] for band in alone["bands"][1:]], "they are those of the last run"
    then, now = scores_by_key(last, "weighted_sum"), scores_by_key(output, "weighted_sum")
    assert_is_the_difference(found, then, now, edges)
    columns = [sum(row[band] for row in found["migration"]) + found["new"][band] for band in range(5)]
    assert columns == [band["rows"] for band in bands]


def test_a_model_that_the_last_run_lacks_is_told_and_the_others_are_compared(base, changed, tmp_path):
    last = tmp_path / "last.csv"
    succeed(*score(base, last, models="churn"), timeout=FINISH_SECONDS)
    diff = summary_of(*score(changed, tmp_path / "now.csv", "--diff", last))["diff"]
    assert diff["not_compared"] == ["upsell"]
    assert [model["model"] for model in diff["models"]] == ["churn"]


def test_a_last_run_that_cannot_be_compared_is_refused_before_anything_is_scored(base, tmp_path):
    good = polars.DataFrame({"customer_id": ["a"], "churn_score": [0.5]})
    for name, table, expected in [
        ("a.csv", good.rename({"customer_id": "who"}), "no key column customer_id"),
        ("a.parquet", good.rename({"churn_score": "leaver_score"}), "churn_score or upsell_score"),
        ("a.csv", good.with_columns(polars.lit("high").alias("churn_score")), "churn_score"),
        ("a.csv", good.with_columns(polars.lit(None).alias("churn_score")), "churn_score row 1"),
    ]:
        write(table, tmp_path / name)
        said = refuse(*score(base, tmp_path / "now.csv", "--diff", tmp_path / name))
        assert expected in said and f"--diff {tmp_path / name}" in said, said
        assert not (tmp_path / "now.csv").exists()
    (tmp_path / "a.parquet").write_text("no Parquet")
    (tmp_path / "a.txt").write_text("nothing")
    for name, expected in [("a.parquet", "a.parquet"), ("a.txt", ".parquet"), ("none.csv", "No such file")]:
        assert expected in refuse(*score(base, tmp_path / "now.csv", "--diff", tmp_path / name))


def test_a_comparison_that_was_interrupted_is_done_again(base, changed, tmp_path):
    """The output is in its place by then, and took that of the last run."""
    output = tmp_path / "scores.csv"
    succeed(*score(base, output), timeout=FINISH_SECONDS)
    then = {model: scores_by_key(output, model) for model in ("churn", "upsell")}
    before = output.read_bytes()
    command = score(changed, output, "--diff", output)
    folder = output.with_name(output.name + ".job")
    for _ in range(20):
        process = start(*command)
        wait_for(process, lambda: (folder / "last.json").exists() or process.poll() == 0)
        # In the place of a file that the comparison needs.
        with contextlib.suppress(FileNotFoundError, FileExistsError):
            (folder / "now-000.bucket").mkdir()
        _, said = process.communicate(timeout=FINISH_SECONDS)
        if process.returncode != 0:
            break
        # It was quicker than whoever was to stand in its way. The next one begins anew.
        output.write_bytes(before)
    assert process.returncode == 1 and "is complete, but was not compared" in said and "--resume" in said
    assert output.read_bytes() != before
    (folder / "now-000.bucket").rmdir()
    diff = summary_of(*command, "--resume")["diff"]
    assert (diff["both"], diff["new"], diff["gone"]) == (2900, 40, 100)
    for model in diff["models"]:
        assert_is_the_difference(model, then[model["model"]], scores_by_key(output, model["model"]))


def test_killed_anywhere_and_resumed_the_comparison_is_that_of_one_run(base, changed, tmp_path):
    last = tmp_path / "last.parquet"
    succeed(*score(base, last), timeout=FINISH_SECONDS)
    steps = ("--checkpoint-rows", 256, "--memory", "210MiB", "--threads", 2)
    output = tmp_path / "scores.parquet"
    output.write_bytes(last.read_bytes())
    command = score(changed, output, "--diff", output, *steps)
    expected = summary_of(*command)["diff"]
    output.write_bytes(last.read_bytes())
    randomly = random.Random(11)
    kills, finished = 0, 0
    while kills < 6:
        if run_and_kill((*command, "--resume"), output, randomly.randint(0, 2), randomly.uniform(0, 0.3)):
            kills += 1
        else:
            # It was quicker than whoever was to kill it. The next one begins anew.
            output.write_bytes(last.read_bytes())
            finished += 1
            assert finished < 50
    found = summary_of(*command, "--resume")["diff"]
    print(f"killed {kills} times, finished before that {finished} times")
    assert found == expected


def test_the_page_says_what_ran_and_what_came_out_and_needs_nothing_else(later, tmp_path):
    evil = "<script>alert('&\"')</script>"
    rows = [{"customer_id": f"c{n}", **VARIED[n % len(VARIED)]} for n in range(400)]
    rows[7]["customer_id"] = evil
    source = write(polars.DataFrame(rows), tmp_path / "a<b>&.csv")
    last, output, page = tmp_path / "last.csv", tmp_path / "scores.csv", tmp_path / "page.html"
    succeed(*score(source, last))
    rows += [{"customer_id": "bad", **customer(tenure=-4)}, {"customer_id": "bad", **customer(tenure=-5)}]
    rows[7] |= customer(contract="Weekly", tenure=72, total_charges=None)
    write(polars.DataFrame(rows), source)
    options = ("--diff", last, "--html", page, "--movers", 400)
    summary = summary_of(*score(source, output, *options, repository=later))
    text = page.read_text()
    assert len(text) < 200_000
    found = Page(text)
    words = " ".join(found.words)

    # Nothing runs and nothing is fetched.
    assert not {"script", "link", "img", "iframe", "object"} & set(found.tags)
    for name, value in found.attributes:
        assert name not in ("src", "href", "onclick", "onload") and "url(" not in (value or "")
    assert "default-src 'none'" in text and "@import" not in text and "url(" not in text
    # What is in the data is text.
    assert evil not in text and evil in words and str(source) in words

    for model in summary["models"]:
        assert model["digest"] in words
    assert summary["diff"]["last"] in words
    assert json.loads(output.with_name("scores.csv.manifest.json").read_text())["job"]["inputs"][0]["xxh3"] in words
    assert "tenure: a value is out of range, expected 0 to 1200" in words
    assert "tenure: -4" not in words

    # The pictures are in words as well, and each has its figures in a table.
    assert found.tags.count("svg") == found.tags.count("desc") == found.tags.count("details") == 2
    churn = summary["models"][0]
    figures = next(table for table in found.tables if len(table) == 1 + len(churn["scores"]["histogram"]["counts"]))
    assert [int(row[1]) for row in figures[1:]] == churn["scores"]["histogram"]["counts"]
    matrix = found.table_of("then, now")
    migration = summary["diff"]["models"][0]["migration"]
    for row, expected in zip(matrix[1:], migration):
        starts = [cell.startswith(str(count)) for cell, count in zip(row[1:], expected)]
        assert all(starts), (row, expected)
    quality = found.table_of("feature")
    names = [row[0] for row in quality[1:]]
    counts = {name: sum(found.values()) for name, found in summary["features"].items()}
    assert names == sorted(counts, key=lambda name: (-counts[name], name))
    movers = [row for table in found.tables for row in table if row[0] == evil]
    assert movers, "who moved is named as they are called"


def test_a_page_takes_the_place_of_nothing(base, tmp_path):
    output = tmp_path / "scores.csv"
    (tmp_path / "folder").mkdir()
    for page, expected in [
        (output, "a file of its own"),
        (tmp_path / "scores.csv.manifest.json", "a file of its own"),
        (tmp_path / "scores.csv.rejects.ndjson", "a file of its own"),
        (base, "a file of its own"),
        (tmp_path / "folder", "folder"),
        (tmp_path / "none" / "page.html", "its folder"),
    ]:
        said = refuse(*score(base, output, "--html", page))
        assert "--html" in said and expected in said
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("change", ["grows", "is replaced"])
def test_an_input_that_changes_while_it_is_read_stops_the_job(tmp_path, change):
    source, output = tmp_path / "base.csv", tmp_path / "scores.csv"
    succeed("simulate", "customers", "--rows", 30_000, "--output", source)
    manifest = output.with_name("scores.csv.manifest.json")
    part = output.with_name("scores.csv.job") / "part-000000.json"
    for _ in range(20):
        process = start(*score(source, output, "--checkpoint-rows", 4096))
        wait_for(process, lambda: part.exists() or process.poll() == 0)
        if change == "grows":
            with source.open("a") as file:
                file.write("\n")
        else:
            copy = tmp_path / "copy"
            copy.write_bytes(source.read_bytes())
            copy.rename(source)
        _, said = process.communicate(timeout=FINISH_SECONDS)
        if process.returncode != 0:
            break
        # It had read it before that. The next one begins anew.
        output.unlink()
        manifest.unlink()
    assert process.returncode == 1 and "changed while it was read" in said and str(source) in said, said
    assert not output.exists() and not manifest.exists()


def test_a_batch_of_an_arrow_file_that_does_not_fit_is_refused_before_it_is_read(tmp_path):
    note = "x" * 200_000
    rows = [{"customer_id": f"c{n}", **VARIED[n % len(VARIED)], "note": note} for n in range(400)]
    table = polars.DataFrame(rows)
    source, output = tmp_path / "base.arrow", tmp_path / "scores.csv"
    options = ("--memory", "280MB")
    table.write_ipc(source, record_batch_size=400)
    said = refuse(*score(source, output, *options))
    assert str(source) in said and "record_batch_size" in said and "77 MiB" in said, said
    table.write_ipc(source, record_batch_size=40)
    assert summary_of(*score(source, output, *options))["scored"] == 400
    table.write_ipc(source, compression="lz4")
    assert "uncompressed" in refuse(*score(source, output))
    source.write_bytes(source.read_bytes()[:-100])
    assert "not a whole Arrow file" in refuse(*score(source, output))

"""`bellwether score --cluster`: the same scores from several machines, whatever becomes of one."""

import json
import shutil
import signal
import subprocess

import polars
import pytest

from cluster import Cluster, require_cluster
from score_command import FINISH_SECONDS, bits, score
from server import BINARY, MODELS, REPOSITORY, clean_environment, refuse, run, succeed
from telco import IBM_CSV, VARIED, customer, ibm_customers, numbered
from waiting import eventually

# Into how many a job of a few megabytes is cut.
TASKS = 16


def read(output):
    """An output in the order of its keys: on a cluster rows come in any order."""
    readers = {".parquet": polars.read_parquet, ".arrow": polars.read_ipc}
    return readers[output.suffix](output).sort("customer_id")


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """The model repository of the executors, a copy."""
    folder = tmp_path_factory.mktemp("executors") / "models"
    shutil.copytree(MODELS, folder)
    return folder


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, repository):
    require_cluster()
    with Cluster(tmp_path_factory.mktemp("work"), models=repository) as cluster:
        yield cluster


def assert_nothing_is_left(output):
    """Of a job that failed: its output is not there, nor anything it would be gone on with from."""
    assert not output.exists()
    assert not output.with_name(output.name + ".job").exists()


def test_every_telco_customer_has_the_same_bits_on_a_cluster_of_two(cluster, tmp_path):
    # test_batch.py has the same customers online and on one machine.
    customers = ibm_customers()
    here, there = tmp_path / "here.parquet", tmp_path / "there.parquet"
    succeed(*score(IBM_CSV, here), timeout=FINISH_SECONDS)
    before = [executor.tasks_done() for executor in cluster.executors]

    def both_took_part():
        after = [executor.tasks_done() for executor in cluster.executors]
        return all(now > then for then, now in zip(before, after, strict=True))

    # A machine that has one of them wait leaves the work to the other.
    for _ in range(5):
        done = succeed(*score(IBM_CSV, there, "--cluster", cluster.url, "--json"), timeout=FINISH_SECONDS)
        if both_took_part():
            break
    eventually("both took part", both_took_part)
    summary = json.loads(done.stdout)
    assert (summary["rows"], summary["scored"], summary["rejected"]) == (7043, 7043, 0)
    assert summary["features"]["total_charges"]["missing"] == 11
    one, two = read(here), read(there)
    assert two["customer_id"].to_list() == sorted(customer_id for customer_id, _, _ in customers)
    for model in ("churn", "upsell"):
        assert list(map(bits, one[f"{model}_score"])) == list(map(bits, two[f"{model}_score"]))
    assert one.equals(two, null_equal=True)
    manifest = json.loads((tmp_path / "there.parquet.manifest.json").read_text())
    assert manifest["output_bytes"] == there.stat().st_size
    assert not (tmp_path / "there.parquet.job").exists()


def test_every_format_gives_what_one_machine_gives(cluster, tmp_path):
    rows = numbered(VARIED * 30)
    table = polars.DataFrame(rows)
    base = tmp_path / "base of all*"
    base.mkdir()
    table[:100].write_parquet(base / "a.parquet", row_group_size=30)
    table[100:150].write_csv(base / "b.csv", include_bom=True, line_terminator="\r\n")
    table[150:200].write_ndjson(base / "c.ndjson")
    # Blank lines are no rows.
    (base / "c.ndjson").write_text((base / "c.ndjson").read_text() + "\n  \n")
    table[200:].write_ipc(base / "d.arrow")
    (base / "e.ndjson").touch()
    table.head(0).write_csv(base / "f.csv")
    here, there = tmp_path / "here.arrow", tmp_path / "there.arrow"
    succeed(*score(base, here, "--explain", 3), timeout=FINISH_SECONDS)
    succeed(*score(base, there, "--explain", 3, "--cluster", cluster.url), timeout=FINISH_SECONDS)
    assert read(here).height == len(rows)
    assert read(here).equals(read(there), null_equal=True)


def test_columns_of_other_names_and_features_without_a_column_are_named(cluster, tmp_path):
    table = polars.DataFrame(numbered(VARIED, "who"))
    table.rename({"tenure": "months"}).drop("gender").write_parquet(tmp_path / "base.parquet")
    named = ("--column", "customer_id=who", "--column", "tenure=months", "--without", "gender")
    here, there = tmp_path / "here.parquet", tmp_path / "there.parquet"
    succeed(*score(tmp_path / "base.parquet", here, *named))
    succeed(*score(tmp_path / "base.parquet", there, *named, "--cluster", cluster.url), timeout=FINISH_SECONDS)
    assert read(here).equals(read(there), null_equal=True)


def test_bad_rows_come_back_with_their_reason(cluster, tmp_path):
    cells = customer()
    good = [str(value) for value in cells.values()]

    def line(key, **changes):
        return ",".join([key, *(dict(zip(cells, good, strict=True)) | changes).values()])

    rows = ["customer_id," + ",".join(cells)]
    rows += [line("a"), line("b", tenure="soon"), line("", tenure="4"), line("d", monthly_charges="-1")]
    rows += [line("e") + ",more", line("f", contract="Weekly"), line("g")]
    source = tmp_path / "base.csv"
    source.write_text("\n".join(rows) + "\n")
    here, there = tmp_path / "here.parquet", tmp_path / "there.parquet"
    succeed(*score(source, here))
    done = succeed(*score(source, there, "--cluster", cluster.url, "--json"), timeout=FINISH_SECONDS)
    summary = json.loads(done.stdout)
    assert (summary["rows"], summary["scored"], summary["rejected"]) == (7, 3, 4)
    assert summary["features"]["contract"]["unknown"] == 1
    assert read(there)["customer_id"].to_list() == ["a", "f", "g"]

    def rejects(output):
        lines = output.with_name(output.name + ".rejects.ndjson").read_text().splitlines()
        found = [json.loads(text) for text in lines]
        # Which row of the file it is, readers side by side do not know.
        return sorted([{k: v for k, v in reject.items() if k != "row"} for reject in found], key=str)

    assert rejects(there) == rejects(here)

    base = tmp_path / "base"
    base.mkdir()
    (base / "one.csv").write_text("\n".join(rows[:3]) + "\n")
    (base / "two *.csv").write_text("\n".join([rows[0], *rows[4:6]]) + "\n")
    (base / "three.ndjson").write_text('\n{"customer_id": "x"\n \n' + json.dumps({"customer_id": "y", **customer()}))
    here, there = tmp_path / "here.arrow", tmp_path / "there.arrow"
    succeed(*score(base, here))
    succeed(*score(base, there, "--cluster", cluster.url), timeout=FINISH_SECONDS)
    assert rejects(there) == rejects(here)
    assert {reject["file"] for reject in rejects(there)} == {str(file) for file in base.iterdir()}
    assert read(there).equals(read(here), null_equal=True)

    said = refuse(*score(source, tmp_path / "none.csv", "--max-rejects", "3", "--cluster", cluster.url))
    assert "4 of 7 rows were rejected" in said
    assert_nothing_is_left(tmp_path / "none.csv")


def test_text_that_cannot_be_cut_exactly_is_refused(cluster, tmp_path):
    source = tmp_path / "base.csv"
    header = ",".join(["customer_id", *customer()])
    source.write_text(f'{header}\n"a\nb",' + ",".join(str(value) for value in customer().values()) + "\n")
    succeed(*score(source, tmp_path / "here.csv"))
    said = refuse(*score(source, tmp_path / "there.csv", "--cluster", cluster.url))
    assert "inside quotes" in said and "Parquet" in said


def test_another_model_of_the_same_name_is_refused_and_a_new_version_is_found(cluster, repository, tmp_path):
    source = tmp_path / "base.parquet"
    polars.DataFrame(numbered(VARIED)).write_parquet(source)
    mine = tmp_path / "models"
    shutil.copytree(MODELS, mine)
    latest = max((mine / "churn").iterdir(), key=lambda version: int(version.name))
    new = mine / "churn" / "90"
    shutil.copytree(latest, new)
    with (new / "model.toml").open("a") as manifest:
        manifest.write("\n# a version of its own\n")
    theirs = repository / "churn" / "90"

    def try_score(name):
        command = score(source, tmp_path / name, "--cluster", cluster.url, models="churn", repository=mine)
        return run(*command, timeout=FINISH_SECONDS)

    done = try_score("missing.parquet")
    assert done.returncode == 1 and "churn version 90" in done.stderr and str(theirs) in done.stderr, done

    shutil.copytree(latest, theirs)
    done = try_score("other.parquet")
    assert done.returncode == 1, done
    said = done.stderr
    assert "the job was made with digest" in said and said.count("digest") == 2 and str(theirs) in said, said
    assert_nothing_is_left(tmp_path / "other.parquet")

    shutil.copy(new / "model.toml", theirs / "model.toml")
    done = try_score("same.parquet")
    assert done.returncode == 0, done
    assert set(read(tmp_path / "same.parquet")["churn_version"]) == {"90"}


def test_a_mistake_in_the_command_is_told_before_anything_runs(tmp_path):
    require_cluster()
    source = tmp_path / "base.parquet"
    polars.DataFrame([{"customer_id": "a", **customer()}]).write_parquet(source)
    output = tmp_path / "scores.parquet"
    unreachable = refuse(*score(source, output, "--cluster", "http://127.0.0.1:1"), timeout=60)
    assert "--cluster http://127.0.0.1:1" in unreachable and "--resume" not in unreachable
    assert_nothing_is_left(output)
    for arguments, expected in [
        (("--cluster", "127.0.0.1:1"), "http://HOST:PORT"),
        (("--cluster", "https://127.0.0.1:1"), "TLS"),
        (("--cluster", "http://127.0.0.1:1", "--resume"), "--resume"),
    ]:
        assert expected in refuse(*score(source, output, *arguments))
    assert "--allow-remote" in refuse("scheduler", "--listen", "0.0.0.0:0")
    assert "--executor-timeout" in refuse("scheduler", "--listen", "127.0.0.1:0", "--executor-timeout", "1s")
    alone = ("executor", "--listen", "127.0.0.1:0", "--scheduler", "http://127.0.0.1:1")
    assert "--connect-timeout" in refuse(*alone, "--connect-timeout", "1s")
    assert not output.exists()


def test_many_files_are_one_job(cluster, tmp_path):
    base = tmp_path / "base"
    base.mkdir()
    for number in range(300):
        table = polars.DataFrame([{"customer_id": f"row-{number}-{n}", **row} for n, row in enumerate(VARIED[:2])])
        table.write_csv(base / f"{number:03}.csv")
    before = sum(executor.tasks_done() for executor in cluster.executors)
    done = succeed(*score(base, tmp_path / "there.csv", "--cluster", cluster.url, "--json"), timeout=FINISH_SECONDS)
    assert json.loads(done.stdout)["scored"] == 600
    assert sum(executor.tasks_done() for executor in cluster.executors) - before < 100, "not a task for each"


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A base that takes two executors some seconds, and its scores by one machine."""
    folder = tmp_path_factory.mktemp("large")
    succeed("simulate", "customers", "--rows", 20_000, "--output", folder / "base.parquet")
    source = folder / "base.csv"
    polars.read_parquet(folder / "base.parquet").write_csv(source)
    succeed(*score(source, folder / "here.parquet"), timeout=FINISH_SECONDS)
    return source, read(folder / "here.parquet")


class Job:
    """A job on a cluster that loses machines quickly. Use it as a context."""

    def __init__(self, source, output, cluster):
        self.process = subprocess.Popen(
            [str(BINARY), *map(str, score(source, output, "--cluster", cluster.url))],
            cwd=REPOSITORY,
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, error_type, error, trace):
        self.process.kill()
        self.process.wait()

    def finish(self, cluster):
        """Its remarks, when it succeeds."""
        stdout, stderr = self.process.communicate(timeout=FINISH_SECONDS)
        assert self.process.returncode == 0, (stdout, stderr, cluster.log_text())
        return stderr


QUICK = ("--executor-timeout", "10s")


def test_an_executor_that_dies_in_the_middle_of_a_job_is_made_up_for(large, tmp_path):
    require_cluster()
    source, expected = large
    there = tmp_path / "there.parquet"
    with Cluster(tmp_path / "work", scheduler=QUICK) as cluster, Job(source, there, cluster) as job:
        victim, other = cluster.executors
        eventually("a task of the victim is done", victim.tasks_done, FINISH_SECONDS)
        victim.kill()
        assert job.process.poll() is None, "it dies in the middle"
        done_before = other.tasks_done()
        job.finish(cluster)
        eventually("the other one's tasks in its log", lambda: other.tasks_done() > done_before)
    assert read(there).equals(expected, null_equal=True)


def test_rows_that_are_lost_with_their_executor_after_the_job_are_made_again(large, tmp_path):
    require_cluster()
    source, expected = large
    there = tmp_path / "there.parquet"
    with Cluster(tmp_path / "work", scheduler=QUICK) as cluster, Job(source, there, cluster) as job:
        victim, other = cluster.executors
        eventually("both have rows", lambda: victim.tasks_done() and other.tasks_done(), FINISH_SECONDS)
        # The command does not see that the job is done before its rows are gone.
        job.process.send_signal(signal.SIGSTOP)
        eventually("the job is done", lambda: victim.tasks_done() + other.tasks_done() >= TASKS, FINISH_SECONDS)
        finished = "Job finished successfully"
        eventually("the scheduler knows", lambda: cluster.scheduler.has_logged(finished), FINISH_SECONDS)
        victim.kill()
        job.process.send_signal(signal.SIGCONT)
        assert "run again" in job.finish(cluster)
    assert read(there).equals(expected, null_equal=True)


def test_a_command_that_is_interrupted_calls_its_job_off(large, tmp_path):
    require_cluster()
    source, _ = large
    with Cluster(tmp_path / "work", executors=1) as cluster, Job(source, tmp_path / "a.csv", cluster) as job:
        (executor,) = cluster.executors
        eventually("a task is done", executor.tasks_done, FINISH_SECONDS)
        job.process.send_signal(signal.SIGINT)
        _, said = job.process.communicate(timeout=FINISH_SECONDS)
        assert job.process.returncode == 1 and "called off" in said
        assert executor.tasks_done() < TASKS
        assert_nothing_is_left(tmp_path / "a.csv")


def test_what_a_killed_command_has_left_is_not_gone_on_with(large, tmp_path):
    require_cluster()
    source, expected = large
    output = tmp_path / "there.parquet"
    with Cluster(tmp_path / "work", executors=1) as cluster:
        (executor,) = cluster.executors
        with Job(source, output, cluster):
            eventually("a task is done", executor.tasks_done, FINISH_SECONDS)
        assert output.with_name(output.name + ".job").exists(), "nobody was left to remove it"
    # A nightly command that always says --resume does not stand still before it.
    done = run(*score(source, output, "--resume"), timeout=FINISH_SECONDS)
    assert done.returncode == 0 and "a job on a cluster has left is discarded" in done.stderr, done
    assert read(output).equals(expected, null_equal=True)

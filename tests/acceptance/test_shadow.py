"""A version in shadow: whatever is wrong with it, nobody's answer is another, later or missing; and its
report says what is wrong."""

import math

import pytest

import faulty
from export import export, read
from rollouts import rolled_out
from server import Server, prediction_of, refuse
from waiting import eventually

# A busy machine runs shadow versions when nobody else wants to: these take a hundredth of the time alone.
REPORT_SECONDS = 900


def shadow(client, version):
    rolled_out(client, "shadow", version, reason="to see what it says")


def version_of(client, version):
    """What is said of one version."""
    answer = client.get(f"/v1/models/{faulty.MODEL}")
    assert answer.status == 200, answer
    (found,) = [v for v in answer.json()["versions"] if v["version"] == str(version)]
    return found


def report_of(client, version):
    return version_of(client, version)["shadow"]


def score_all(client, customers, **fields):
    """{customer: answer} of every customer, without what is different every time."""
    answers = {}
    for customer_id in customers:
        answer = client.score(customer_id, models=[faulty.MODEL], **fields)
        answer.pop("prediction_id")
        answers[customer_id] = answer
    return answers


@pytest.fixture(scope="module")
def customers():
    return faulty.varied_customers(60)


@pytest.fixture(scope="module")
def alone(customers, tmp_path_factory):
    """What the champion answers where nobody is in shadow."""
    folder = tmp_path_factory.mktemp("alone")
    faulty.champion(folder / "models")
    with Server(folder / "data", models=folder / "models") as server:
        client = server.client()
        faulty.store_all(client, customers)
        return score_all(client, customers, explain=4)


@pytest.mark.parametrize(
    "plant, rounds, fault",
    [
        (faulty.not_a_number, 1, "fails"),
        (faulty.failing, 1, "fails"),
        (faulty.slow, 1, "slow"),
        (faulty.drifting, 10, "drifts"),
    ],
)
def test_a_faulty_shadow_changes_no_bit_of_an_answer_and_its_fault_is_reported(
    tmp_path, customers, alone, plant, rounds, fault
):
    models = tmp_path / "models"
    faulty.champion(models)
    plant(models, 2)
    with Server(tmp_path / "data", models=models) as server:
        client = server.client()
        faulty.store_all(client, customers)
        # Given a version in shadow that fails, is slow or drifts
        shadow(client, 2)
        # Then every request is answered, with the bits of a server without it
        for _ in range(rounds):
            assert score_all(client, customers, explain=4) == alone

        # And the report counts every row, and names the fault
        total = rounds * len(customers)

        def all_run():
            report = report_of(client, 2)
            return report if report["pairs"] + report["errors"] + report["dropped"] == total else None

        report = eventually("the report of all rows", all_run, REPORT_SECONDS)
        assert report["dropped"] == 0
        assert any(said.startswith(fault) for said in report["faults"]), report
        if fault == "fails":
            is_long = [f["tenure"] >= faulty.FAULTY_FROM_TENURE for f in customers.values()]
            assert report["errors"] == rounds * sum(is_long)
            assert report["last_error"]
        else:
            assert report["errors"] == 0
        if fault == "drifts":
            assert report["rank_correlation"] > 0.999
            assert report["difference"]["mean"] > 0.05
            assert report["score_drift"] > 0.25
        else:
            assert report["difference"]["identical"] == report["pairs"]
        metrics = client.get("/metrics").body.decode()
        labels = f'{{model="{faulty.MODEL}",version="2"}}'
        assert f"bellwether_shadow_faults{labels} {len(report['faults'])}\n" in metrics
        role = f'{{model="{faulty.MODEL}",version="2",role="shadow"}}'
        assert f"bellwether_model_requests_total{role} {total}\n" in metrics
        def is_logged():
            return any(
                entry.get("version") == "2" and fault in entry.get("fault", "") for entry in server.entries()
            )

        eventually("the fault in the log", is_logged, REPORT_SECONDS)


def test_every_score_of_a_shadow_is_a_row_beside_what_was_answered(tmp_path, customers):
    models = tmp_path / "models"
    faulty.champion(models)
    faulty.drifting(models, 2)
    faulty.failing(models, 3)
    answered = {}
    with Server(tmp_path / "data", models=models) as server:
        client = server.client()
        faulty.store_all(client, customers)
        shadow(client, 2)
        shadow(client, 3)
        for customer_id in customers:
            answer = client.score(customer_id, models=[faulty.MODEL])
            score = prediction_of(answer, faulty.MODEL)["score"]
            answered[answer["prediction_id"]] = (customer_id, score)

        def all_run():
            reports = [report_of(client, version) for version in (2, 3)]
            return all(r["pairs"] + r["errors"] == len(customers) for r in reports)

        eventually("the report of all rows", all_run, REPORT_SECONDS)
    export(tmp_path / "data", tmp_path / "export")
    rows = read(tmp_path / "export", "shadow_scores").to_dicts()
    assert len(rows) == 2 * len(customers)
    for version in ("2", "3"):
        of_version = [row for row in rows if row["version"] == version]
        assert {row["prediction_id"] for row in of_version} == set(answered)
        for row in of_version:
            customer_id, served = answered[row["prediction_id"]]
            said = (row["customer_id"], row["model"], row["served_version"], row["served_score"])
            assert said == (customer_id, faulty.MODEL, "1", served)
            if version == "2":
                log_odds = math.log(served / (1 - served)) + faulty.SHIFT
                assert row["score"] == pytest.approx(1 / (1 + math.exp(-log_odds)), abs=1e-5)
                assert row["problem"] is None
            elif customers[customer_id]["tenure"] >= faulty.FAULTY_FROM_TENURE:
                assert row["score"] is None and row["problem"]
            else:
                assert row["score"] == served and row["problem"] is None


def test_what_a_slow_shadow_does_not_keep_up_with_is_counted_and_waits_for_nobody(tmp_path, customers):
    models = tmp_path / "models"
    faulty.champion(models)
    faulty.slow(models, 2)
    settings = "[rollout]\nshadow_queue = 4\nshadow_cpu_share = 0.05\n"
    with Server(tmp_path / "data", models=models, settings=settings) as server:
        client = server.client()
        faulty.store_all(client, customers)
        shadow(client, 2)
        with faulty.Traffic(server, customers) as traffic:
            eventually("a hundred dropped rows", lambda: report_of(client, 2)["dropped"] > 100, REPORT_SECONDS)
        assert not traffic.failed, traffic.failed[:3]

        def all_known():
            report = report_of(client, 2)
            return report["pairs"] + report["errors"] + report["dropped"] == len(traffic.answered)

        eventually("the report of all rows", all_known, REPORT_SECONDS)
        report = report_of(client, 2)
        assert 0 < report["pairs"] < len(traffic.answered)
        metrics = client.get("/metrics").body.decode()
        labels = f'{{model="{faulty.MODEL}",version="2"}}'
        assert f"bellwether_shadow_dropped_total{labels} {report['dropped']}\n" in metrics


def test_a_version_that_leaves_shadow_is_compared_no_more(tmp_path, customers):
    models = tmp_path / "models"
    faulty.champion(models)
    faulty.drifting(models, 2)
    with Server(tmp_path / "data", models=models) as server:
        client = server.client()
        faulty.store_all(client, customers)
        shadow(client, 2)
        score_all(client, customers)
        eventually("the report of all rows", lambda: report_of(client, 2)["pairs"] == 60, REPORT_SECONDS)
        labels = f'{{model="{faulty.MODEL}",version="2"}}'
        gauge = f"bellwether_shadow_score_difference{labels} "
        metrics = client.get("/metrics").body.decode()
        assert gauge in metrics and gauge + "0\n" not in metrics
        rolled_out(client, "candidate", 2, reason="enough")
        assert version_of(client, 2)["state"] == "candidate"
        assert "shadow" not in version_of(client, 2)
        metrics = client.get("/metrics").body.decode()
        assert gauge not in metrics
        # What was counted is counted on.
        role = f'{{model="{faulty.MODEL}",version="2",role="shadow"}}'
        assert f"bellwether_model_requests_total{role} 60\n" in metrics
        # And back in shadow it begins anew.
        shadow(client, 2)
        assert report_of(client, 2)["pairs"] == 0


def test_settings_that_cannot_be_meant_are_refused_with_their_name(tmp_path):
    models = tmp_path / "models"
    faulty.champion(models)
    for line, name in [
        ("shadow_queue = 0", "rollout.shadow_queue"),
        ("shadow_cpu_share = 2.0", "rollout.shadow_cpu_share"),
        ("max_error_rate = 3.0", "rollout.max_error_rate"),
    ]:
        (tmp_path / "bellwether.toml").write_text(f"[rollout]\n{line}\n")
        said = refuse("serve", "--listen", "127.0.0.1:0", "--models", models, cwd=tmp_path)
        assert name in said
        assert name in refuse("check", "--models", models, cwd=tmp_path)

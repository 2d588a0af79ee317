"""`bellwether demo --once`: what a newcomer sees first."""

import json
import re

import pytest

from server import REPOSITORY, succeed


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    temporary = tmp_path_factory.mktemp("demo")
    # Ten thousand customers in a development build take their time.
    done = succeed("demo", "--once", cwd=REPOSITORY, env={"TMPDIR": str(temporary)}, timeout=600)
    return done.stdout, temporary


def test_the_demo_shows_predictions_with_reasons(shown):
    text, _ = shown
    assert "churn" in text and "upsell" in text
    assert re.search(r"\b0\.\d+|\b\d+(?:\.\d+)? ?%", text), "no probability"
    assert any(reason in text for reason in ("contract", "tenure", "internet_service", "total_charges")), (
        "no reason"
    )


def test_the_demo_says_that_its_customers_are_simulated(shown):
    text, _ = shown
    assert "simulated" in text.lower()
    assert "10,000" in text or "10000" in text


def test_the_demo_prints_calls_to_try(shown):
    text, _ = shown
    calls = [line for line in text.splitlines() if "curl" in line]
    assert any("/v1/score" in line for line in calls)
    assert all("127.0.0.1" in line or "localhost" in line for line in calls)


def test_the_demo_shows_what_happened_lately(shown):
    text, _ = shown
    assert re.search(r"lately .*data_gb_7d \d", text), "no window feature"
    assert "/v1/events" in text


def test_simulated_events_are_taken_as_they_are(tmp_path):
    made = succeed("simulate", "events", "--customers", "50", "--output", "events.ndjson", cwd=tmp_path)
    written = int(re.search(r"(\d+) events of 50 customers", made.stdout)[1])
    assert written == len((tmp_path / "events.ndjson").read_text().splitlines()) > 100
    features = REPOSITORY / "features"
    loaded = succeed(
        "events", "load", "events.ndjson", "--data-dir", "data", "--features", str(features), "--json", cwd=tmp_path
    )
    report = json.loads(loaded.stdout)
    assert report["written"] == written


def test_the_demo_leaves_nothing_behind(shown):
    _, temporary = shown
    assert list(temporary.iterdir()) == []


def test_the_demo_shows_the_same_to_everybody(shown):
    text, _ = shown
    again = succeed("demo", "--once", cwd=REPOSITORY, timeout=600).stdout
    assert scores(again) == scores(text)


def scores(text):
    """Every probability printed, in order; ids, ports and times differ between two runs."""
    return re.findall(r"(?<![\d.])0\.\d+|(?<![\d.])\d+(?:\.\d+)? ?%", text)

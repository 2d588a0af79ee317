"""The project's Python client: tables of any library in, and the kind that was given out."""

import json
from pathlib import Path

import pytest

from clients import run_client

SCRIPT = Path(__file__).parent / "clients" / "bellwether_client.py"


@pytest.mark.parametrize("library", ["arrow", "pandas", "polars"])
def test_features_are_pushed_and_come_back_as_they_were_known(shared_server, library):
    ended = run_client("python", SCRIPT, f"http://{shared_server.address}", library)
    assert ended.returncode == 0, ended.stdout
    said = json.loads(ended.stdout.splitlines()[-1])

    # Null and NaN are known to be missing; a row that does not fit is refused, the others are written.
    assert said["pushed"] == 3
    written, refused_total, refused = said["partly"]
    assert (written, refused_total) == (3, 1)
    assert refused[0][0] == 2 and "tenure" in refused[0][1]
    assert "tenur" in said["typo"] and "tenure?" in said["typo"]

    # What was known at the time: the last values; of a time before the push, and of a stranger, defaults.
    assert said["library"] == ("pyarrow" if library == "arrow" else library)
    assert said["arrow"] is True
    assert said["tenure"] == [4, 41, 0, 0]
    assert said["charges_missing"] == [False, True, True, True]
    assert said["churned"] == [1, 0, 1, 0]

    status, problem = said["unknown"]
    assert status == 404 and "custmer" in problem
    assert "127.0.0.1:9" in said["lost"]

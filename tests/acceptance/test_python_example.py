"""The notebook of the Python client, from fit to promote, on a real server."""

import os
import subprocess
import sys

import pytest

from server import REPOSITORY, Server, clean_environment
from telco import IBM_CSV, SHARED

EXAMPLE = REPOSITORY / "clients" / "python" / "examples" / "fit_to_promote.py"


@pytest.mark.parametrize("data", ["public", "simulated"])
def test_the_example_ships_a_model_and_takes_it_back(data, tmp_path):
    if data == "public" and not IBM_CSV.is_file():
        pytest.skip(f"skipped: data not found ({IBM_CSV})")
    models = tmp_path / "models"
    models.mkdir()
    with Server(tmp_path / "data", models=models) as server:
        ended = run_example(server, SHARED if data == "public" else tmp_path)
    assert ended.returncode == 0, ended.stdout
    assert ended.stdout.count("from the estimator's own") == 5, ended.stdout


def run_example(server, shared):
    environment = {
        "BELLWETHER_SERVER": f"http://{server.address}",
        # A folder without the public data: the example makes some up.
        "BELLWETHER_SHARED_DIR": str(shared),
        "PYTHONPATH": str(REPOSITORY / "clients" / "python" / "src"),
        "PYTHONWARNINGS": os.environ.get("PYTHONWARNINGS", "default"),
    }
    return subprocess.run(
        [sys.executable, str(EXAMPLE)],
        env=clean_environment(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1800,
    )

"""Runs of `bellwether score`: the command, what it says, and a run that is killed on its way."""

import json
import signal
import struct
import subprocess
import time

from server import BINARY, FEATURES, MODELS, REPOSITORY, clean_environment, succeed

# It runs when nobody else wants to.
FINISH_SECONDS = 900


def score(source, output, *arguments, models="churn,upsell", repository=MODELS):
    """The command that scores a table."""
    return (
        *("score", "--model", models, "--input", source, "--output", output),
        *("--models", repository, "--features", FEATURES, *arguments),
    )


def summary_of(*command, **options):
    """Runs a command to its end; what it says of itself."""
    return json.loads(succeed(*command, "--json", timeout=FINISH_SECONDS, **options).stdout)


def bits(number):
    return struct.pack("<d", number)


def parts_of(output):
    return len(list(output.with_name(output.name + ".job").glob("part-*.json")))


def run_and_kill(command, output, parts, seconds):
    """Runs a command until so many more parts of its output are there, and some time longer, and kills it;
    whether it was still running then."""
    before = parts_of(output)
    process = subprocess.Popen(
        [str(BINARY), *map(str, command)],
        cwd=REPOSITORY,
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + FINISH_SECONDS
    while process.poll() is None and parts_of(output) < before + parts:
        assert time.monotonic() < deadline
        time.sleep(0.002)  # between two looks for parts
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        return True
    assert code == 0, process.communicate()[1]
    return False

"""`bellwether score`, killed somewhere on its way."""

import signal
import subprocess
import time

from server import BINARY, REPOSITORY, clean_environment

FINISH_SECONDS = 300


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

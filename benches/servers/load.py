"""Loading a server with wrk: one thread, a number of connections that each ask as soon as they are answered."""

import json
import os
import pathlib
import resource
import shutil
import subprocess
import sys

import processes

SCRIPT = pathlib.Path(__file__).resolve().parent / "load.lua"


class NoResult(Exception):
    """wrk did not end as it should."""


def require_wrk():
    """wrk's version; ends the program where there is none."""
    if shutil.which("wrk") is None:
        sys.exit("wrk is not installed. Debian, Ubuntu: apt-get install wrk")
    said = subprocess.run(["wrk", "--version"], capture_output=True, text=True, check=False).stdout.split()
    return said[1] if len(said) > 1 else "unknown"


def measure(server, url, bodies, connections, warmup, seconds, paths=None):
    """Figures of one load; `bodies` is a file, or None for GET, of the paths in the file `paths` if given. `other_cpu` is how many cores were busy with
    neither the server nor wrk: above a tenth or two the figures say less."""
    warm = run_wrk(url, bodies, connections, warmup, paths) if warmup else {"requests": 0}
    machine, own, wrk = processes.machine_cpu_seconds(), server.cpu_seconds(), children_cpu_seconds()
    result = run_wrk(url, bodies, connections, seconds, paths)
    own = server.cpu_seconds() - own
    wrk = children_cpu_seconds() - wrk
    machine = processes.machine_cpu_seconds() - machine
    result["asked"] = warm["requests"] + result["requests"]
    result["server_cpu"] = round(own / seconds, 2)
    result["wrk_cpu"] = round(wrk / seconds, 2)
    result["other_cpu"] = round(max(machine - own - wrk, 0) / seconds, 2)
    return result


def run_wrk(url, bodies, connections, seconds, paths=None):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BENCH_")}
    if paths is not None:
        environment["BENCH_PATHS"] = str(paths)
    if bodies is not None:
        environment["BENCH_BODIES"] = str(bodies)
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s", str(SCRIPT), url]
    try:
        ended = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=seconds + 60, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise NoResult(f"wrk has not ended a minute after the {seconds} s it was given") from error
    results = [line for line in ended.stdout.splitlines() if line.startswith("RESULT ")]
    if not results:
        raise NoResult(f"wrk: {(ended.stderr or ended.stdout).strip()[-300:]}")
    return json.loads(results[-1].removeprefix("RESULT "))


def children_cpu_seconds():
    """Processor time of the children that were waited for: between two calls here, that is wrk."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime

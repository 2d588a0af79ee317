"""Measures the servers in turns; `run` starts it with the Python that has what it needs."""

import datetime
import http.client
import json
import os
import pathlib
import platform
import shutil
import signal
import subprocess
import sys
import zlib

import bodies
import catalog
import environments
import launch
import load
import options
import report
import results
from turns import LedgerNotSound, Turns

ROOT = pathlib.Path(__file__).resolve().parents[2]
# What takes one server out of the comparison and leaves the others in it.
FAILURES = (
    launch.NotReady,
    bodies.WrongAnswer,
    load.NoResult,
    LedgerNotSound,
    OSError,
    http.client.HTTPException,
)


def say(text):
    print(text, file=sys.stderr, flush=True)


def reference_model(cache):
    """The model and its table, made by the scripts of benches/onnx_runtime when they have changed."""
    scripts = [environments.ONNX_RUNTIME_BENCH / name for name in ("make_models.py", "requirements.txt")]
    folder = cache / "models"
    wanted = " ".join(str(zlib.crc32(script.read_bytes())) for script in scripts)
    stamp = folder / "stamp"
    if not (stamp.exists() and stamp.read_text() == wanted):
        say("making the reference model")
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, scripts[0], folder], check=True)
        stamp.write_text(wanted)
    return folder / f"{catalog.MODEL}.onnx", folder / "X.npy"


def release_binary():
    subprocess.run(["cargo", "build", "--release", "--locked", "-p", "bellwether"], cwd=ROOT, check=True)
    asked = ["cargo", "metadata", "--format-version", "1", "--no-deps", "--locked"]
    metadata = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return pathlib.Path(json.loads(metadata)["target_directory"]) / "release" / "bellwether"


def binary_version(binary):
    said = subprocess.run([str(binary), "--version"], capture_output=True, text=True, check=True).stdout
    return said.split()[-1]


def commit():
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    described = subprocess.run(git, capture_output=True, text=True, check=False)
    return described.stdout.strip() or "no git"


def prepare(chosen):
    """What is needed to start each server: ({peer: its Python}, bellwether's binary, versions, missing)."""
    pythons, versions, missing, binary = {}, {}, {}, None
    for name in chosen.servers:
        server = catalog.find(name)
        if server.folder is None:
            binary = (chosen.binary or release_binary()).resolve()
            versions[name] = binary_version(binary)
            continue
        try:
            pythons[name] = environments.peer(chosen.cache, server, catalog.PEERS / server.folder)
            versions[name] = catalog.version_of(server)
        except environments.CannotInstall as error:
            missing[name] = str(error)
            say(f"{name}: not run: {error}")
    return pythons, binary, versions, missing


def conditions(chosen, wrk):
    with open("/proc/cpuinfo") as lines:
        model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "?")
    return (
        f"{datetime.date.today()}, {os.cpu_count()} cores of {model}, {platform.system()} {platform.release()}, "
        f"shared with wrk {wrk}; {commit()}; median of {chosen.rounds} rounds of {chosen.seconds} s; "
        f"model {catalog.MODEL}, JSON; onnxruntime {catalog.pinned(catalog.find('fastapi'))['onnxruntime']} "
        "in the peers."
    )


def turn_of(turns, server):
    turn = turns.take(server)
    if server.folder is None:
        turn["many_models"] = turns.many_models(server)
    return turn


def main():
    chosen = options.parse(__doc__)
    if not os.path.exists("/proc/self/smaps_rollup"):
        sys.exit("memory and processor time are read from /proc: this needs Linux 4.14 or newer")
    # So that an interrupted run stops the server it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped by SIGTERM"))
    wrk = load.require_wrk()
    chosen.cache.mkdir(parents=True, exist_ok=True)
    model, table = reference_model(chosen.cache)
    questions = bodies.Questions(model, table, chosen.cache / "bodies")
    pythons, binary, versions, missing = prepare(chosen)
    turns = Turns(chosen, model, questions, binary, pythons)

    measured = {}
    for number in range(1, chosen.rounds + 1):
        for name in chosen.servers:
            if name in missing:
                continue
            try:
                turn = turn_of(turns, catalog.find(name))
                measured.setdefault(name, []).append(turn)
                rates = ", ".join(f"{level['rps']:,.0f}" for level in turn["levels"].values())
                say(f"round {number}, {name}: {rates} req/s; {turn['large']['rps'] * bodies.LARGE_ROWS:,.0f} rows/s")
            except FAILURES as error:
                # A server that fails once is out: a median over fewer rounds would be another measurement.
                missing[name] = f"{type(error).__name__}: {error}"
                measured.pop(name, None)
                say(f"round {number}, {name}: {missing[name]}")
            # What has been measured is kept whatever comes next.
            rows = results.all_rows(measured, versions)
            if chosen.json:
                chosen.json.write_text(json.dumps(rows, indent=1) + "\n")
    if not measured:
        sys.exit("nothing was measured: " + "; ".join(f"{name}: {reason}" for name, reason in missing.items()))
    text = report.report(rows, missing, conditions(chosen, wrk))
    print(text)
    if chosen.markdown:
        chosen.markdown.write_text(text + "\n")
    if catalog.SERVERS[0].name in missing:
        sys.exit(1)


if __name__ == "__main__":
    main()

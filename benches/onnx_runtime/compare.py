"""Compares engines on the reference models: the same rows, one thread each, in one sitting.

    compare.py --models-dir DIR --bellwether BINARY [--engines a,b] [--models a,b] [--batches 1,100]
               [--rounds N] [--seconds S] [--quick] [--json FILE] [--picture FILE.png]

How it measures. For each model and batch size every engine gets a process of its own, loads its model, warms
up and waits. Then the engines take turns (A B C, A B C, …), each timing its calls for about S seconds of its
turn while the others sleep, and the median over the turns counts. So a machine that gets slower for a minute
slows all engines alike. Still, on a machine with other work, differences below half again mean little.

A call is what a user of that library writes: NumPy rows in, probabilities out. For the peers from Python that
includes some microseconds of wrapper, which shows with one row and nowhere else; Bellwether's binary has no
such wrapper. The peers' answers to 200 rows are compared with ONNX Runtime's before anything is timed, and a
difference is reported; Bellwether's are compared by the tests of its crate.

Engines: bellwether (BINARY MODEL.onnx X.npy --batch N --threads 1 --json prints {"rows_per_s", "p50_us",
"p99_us"}), onnxruntime, and for the boosted models lightgbm, treelite (compiled by tl2cgen), lleaves,
daal4py and ydf. YDF cannot read the file: it trains a model of its own with as many trees and leaves on the
same rows, and is marked with a star; since its Python call alone takes over a millisecond, the figure of its
own benchmark is printed too. An engine runs in the Python that BENCH_PYTHON_<ENGINE> names (default: this
one); one that cannot be imported is left out and named.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

ENGINES = ["bellwether", "onnxruntime", "lightgbm", "treelite", "lleaves", "daal4py", "ydf"]
MODELS = ["lr", "mlp", "rf100", "gbdt100", "gbdt500"]
BATCHES = [1, 100, 1000, 20_000, 1_000_000]
ONLY_BOOSTED = {"lightgbm", "treelite", "lleaves", "daal4py", "ydf"}
OWN_MODEL = {"ydf"}
SIZES = {"gbdt100": (100, 31), "gbdt500": (500, 63)}
CHECKED_ROWS = 200
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "DAAL_NUM_THREADS")


# ---------------------------------------------------------------------------------------------------
# The worker: one engine, one model, one batch size

# What a loader wants said about its engine.
NOTES = []


def load_onnxruntime(folder, model):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(folder / f"{model}.onnx", options, providers=["CPUExecutionProvider"])
    return onnxruntime.__version__, lambda rows: session.run(["probabilities"], {"X": rows})[0][:, 1]


def load_lightgbm(folder, model):
    import lightgbm

    booster = lightgbm.Booster(model_file=str(folder / f"{model}.txt"))
    return lightgbm.__version__, lambda rows: booster.predict(rows, num_threads=1)


def load_treelite(folder, model):
    import tl2cgen
    import treelite

    library = folder / "compiled" / f"{model}.so"
    if not library.exists():
        library.parent.mkdir(exist_ok=True)
        trees = treelite.frontend.load_lightgbm_model(folder / f"{model}.txt")
        tl2cgen.export_lib(trees, toolchain="gcc", libpath=library, params={"parallel_comp": 16})
    predictor = tl2cgen.Predictor(library, nthread=1)
    version = f"{treelite.__version__} / tl2cgen {tl2cgen.__version__}"
    return version, lambda rows: predictor.predict(tl2cgen.DMatrix(rows, dtype="float32")).reshape(-1)


def load_lleaves(folder, model):
    from importlib.metadata import version

    import lleaves
    import numpy as np

    (folder / "compiled").mkdir(exist_ok=True)
    compiled = lleaves.Model(model_file=str(folder / f"{model}.txt"))
    compiled.compile(cache=str(folder / "compiled" / f"{model}.lleaves"))
    return version("lleaves"), lambda rows: compiled.predict(rows.astype(np.float64), n_jobs=1)


def load_daal4py(folder, model):
    from importlib.metadata import version

    import daal4py
    import lightgbm

    daal4py.daalinit(1)
    converted = daal4py.mb.convert_model(lightgbm.Booster(model_file=str(folder / f"{model}.txt")))
    return version("scikit-learn-intelex"), lambda rows: converted.predict_proba(rows)[:, 1]


def load_ydf(folder, model):
    import numpy as np
    import ydf

    ydf.verbose(0)
    saved = folder / "compiled" / f"{model}.ydf"
    if not saved.exists():
        trees, leaves = SIZES[model]
        learner = ydf.GradientBoostedTreesLearner(
            label="y",
            num_trees=trees,
            growing_strategy="BEST_FIRST_GLOBAL",
            max_num_nodes=leaves,
            max_depth=-1,
            validation_ratio=0.0,
            early_stopping="NONE",
        )
        learner.train({"x": np.load(folder / "X.npy"), "y": np.load(folder / "y.npy")}).save(str(saved))
    trained = ydf.load_model(str(saved))
    native = trained.benchmark({"x": np.load(folder / "X.npy")}, benchmark_duration=1, num_threads=1)
    NOTES.append(f"without Python, by its own benchmark: {native.duration_per_example * 1e6:.2f} us a row")
    return ydf.__version__, lambda rows: trained.predict({"x": rows}, num_threads=1)


LOADERS = {
    "onnxruntime": load_onnxruntime,
    "lightgbm": load_lightgbm,
    "treelite": load_treelite,
    "lleaves": load_lleaves,
    "daal4py": load_daal4py,
    "ydf": load_ydf,
}


def batches_of(table, batch):
    """Different rows for successive calls, so that no call finds its own rows in the cache."""
    import numpy as np

    if batch > len(table):
        table = np.tile(table, (-(-batch // len(table)), 1))
        return [np.ascontiguousarray(table[:batch])]
    count = min(len(table) // batch, 2000)
    return [np.ascontiguousarray(table[i * batch : (i + 1) * batch]) for i in range(count)]


def worker(engine, model, batch, folder):
    """Says {"version", "answers"} when ready; then each line on stdin, a number of seconds, is a turn."""
    # Libraries print what they like: answers go to the real standard output only.
    talk = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(message):
        print(json.dumps(message), file=talk, flush=True)

    try:
        import numpy as np

        table = np.load(folder / "X.npy")
        version, predict = LOADERS[engine](folder, model)
        answers = np.asarray(predict(table[:CHECKED_ROWS]), dtype=float).reshape(-1).tolist()
    except Exception as error:  # whatever hinders this engine, the others go on
        say({"error": f"{type(error).__name__}: {error}"[:300]})
        return
    inputs = batches_of(table, batch)
    if batch <= 20_000:
        for number in range(300 if batch == 1 else 3):
            predict(inputs[number % len(inputs)])
    say({"version": version, "answers": answers, "notes": NOTES})
    number = 0
    for line in sys.stdin:
        seconds = float(line)
        times = []
        end = time.perf_counter() + seconds
        while not times or time.perf_counter() < end:
            rows = inputs[number % len(inputs)]
            number += 1
            start = time.perf_counter_ns()
            predict(rows)
            times.append(time.perf_counter_ns() - start)
        p50, p99 = np.percentile(times, [50, 99]) / 1e3
        say({"rows_per_s": batch * len(times) / (sum(times) / 1e9), "p50_us": p50, "p99_us": p99})


# ---------------------------------------------------------------------------------------------------
# The comparison


class Peer:
    """A worker process that waits for its turns."""

    def __init__(self, engine, model, batch, folder):
        python = os.environ.get(f"BENCH_PYTHON_{engine.upper()}", sys.executable)
        command = [
            python,
            os.path.abspath(__file__),
            "--worker",
            engine,
            model,
            str(batch),
            "--models-dir",
            str(folder),
        ]
        environment = {**os.environ, **dict.fromkeys(ONE_THREAD, "1")}
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self.hello = self.read()

    def read(self):
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"error": "the worker ended"}

    def turn(self, seconds):
        try:
            self.process.stdin.write(f"{seconds}\n")
            self.process.stdin.flush()
        except OSError:
            return {"error": "the worker ended"}
        return self.read()

    def close(self):
        self.process.stdin.close()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()


class Bellwether:
    """The Rust binary, started anew for each turn: it warms up and picks its number of calls itself."""

    hello = {"version": "this source"}

    def __init__(self, binary, model, batch, folder):
        self.command = [binary, folder / f"{model}.onnx", folder / "X.npy", "--batch", batch, "--threads", 1, "--json"]

    def turn(self, _seconds):
        ended = subprocess.run([str(part) for part in self.command], capture_output=True, text=True, check=False)
        if ended.returncode != 0:
            return {"error": ended.stderr.strip()[-300:]}
        return json.loads(ended.stdout.strip().splitlines()[-1])

    def close(self):
        pass


def compare_one(model, batch, options):
    """Results of all engines for one model and batch size, and what to say about those left out."""
    peers, remarks = {}, []
    for engine in options.engines:
        if engine in ONLY_BOOSTED and model not in SIZES:
            continue
        if engine == "bellwether":
            peer = Bellwether(options.bellwether, model, batch, options.models_dir)
        else:
            peer = Peer(engine, model, batch, options.models_dir)
        if "error" in peer.hello:
            remarks.append(f"{engine}: {peer.hello['error']}")
            peer.close()
        else:
            peers[engine] = peer
            remarks += [f"{engine} {peer.hello['version']}: {note}" for note in peer.hello.get("notes", [])]
    trusted = peers["onnxruntime"].hello.get("answers") if "onnxruntime" in peers else None
    for engine, peer in peers.items():
        answers = peer.hello.get("answers")
        if trusted and answers and engine not in OWN_MODEL:
            worst = max(abs(a - b) for a, b in zip(trusted, answers, strict=True))
            if worst > 1e-4:
                remarks.append(f"{engine}: differs from onnxruntime by {worst:.2g}")

    turns = {engine: [] for engine in peers}
    begun = time.monotonic()
    for _ in range(options.rounds):
        for engine, peer in peers.items():
            result = peer.turn(options.seconds)
            if "error" in result:
                remarks.append(f"{engine}: {result['error']}")
            else:
                turns[engine].append(result)
        if time.monotonic() - begun > options.limit:
            break
    for peer in peers.values():
        peer.close()
    results = []
    for engine, measured in turns.items():
        if measured:
            medians = {k: statistics.median(m[k] for m in measured) for k in ("rows_per_s", "p50_us", "p99_us")}
            results.append({"engine": engine, "model": model, "batch": batch, **medians})
    return results, sorted(set(remarks))


def against(results, base="onnxruntime"):
    """(model, batch, engine) -> how many times the rows per second of the base engine."""
    rates = {(r["model"], r["batch"], r["engine"]): r["rows_per_s"] for r in results}
    ratios = {}
    for (model, batch, engine), rate in rates.items():
        if (model, batch, base) in rates:
            ratios[model, batch, engine] = rate / rates[model, batch, base]
    return ratios


def shown(engine):
    return engine + ("*" if engine in OWN_MODEL else "")


def table_of(results):
    ratios = against(results)
    lines = [f"{'model':8} {'batch':>8}  {'engine':12} {'rows/s':>12} {'p50 us':>12} {'p99 us':>12}  / onnxruntime"]
    for r in results:
        ratio = ratios.get((r["model"], r["batch"], r["engine"]))
        lines.append(
            f"{r['model']:8} {r['batch']:>8}  {shown(r['engine']):12} {r['rows_per_s']:>12,.0f} {r['p50_us']:>12,.1f} "
            f"{r['p99_us']:>12,.1f}  " + (f"{ratio:.2f}x" if ratio else "-")
        )
    if any(r["engine"] in OWN_MODEL for r in results):
        lines.append("* its own model with as many trees and leaves, trained on the same rows")
    return "\n".join(lines)


def bars(results, width=50):
    """A bar chart in text, on a logarithmic scale: rows per second."""
    import math

    low = math.log10(min(r["rows_per_s"] for r in results)) - 0.3
    high = math.log10(max(r["rows_per_s"] for r in results))
    lines = []
    for r in results:
        length = round(width * (math.log10(r["rows_per_s"]) - low) / max(high - low, 0.1))
        lines.append(
            f"{r['model']:8} {r['batch']:>8} {shown(r['engine']):12} {'#' * max(length, 1)} {r['rows_per_s']:,.0f}/s"
        )
    return "\n".join(lines)


def draw(results, path):
    """One panel a model: rows per second by batch size. False if matplotlib is not there."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        return False
    models = [m for m in MODELS if any(r["model"] == m for r in results)]
    engines = [e for e in ENGINES if any(r["engine"] == e for r in results)]
    figure, panels = pyplot.subplots(1, len(models), figsize=(4.2 * len(models), 4.4), squeeze=False)
    for panel, model in zip(panels[0], models, strict=True):
        batches = sorted({r["batch"] for r in results if r["model"] == model})
        for place, engine in enumerate(engines):
            found = {r["batch"]: r["rows_per_s"] for r in results if r["model"] == model and r["engine"] == engine}
            width = 0.8 / len(engines)
            positions = [batches.index(b) - 0.4 + width * (place + 0.5) for b in found]
            panel.bar(positions, list(found.values()), width, label=shown(engine), color=f"C{ENGINES.index(engine)}")
        panel.set_yscale("log")
        panel.set_xticks(range(len(batches)), [f"{b:,}" for b in batches])
        panel.set_xlabel("rows in a call")
        panel.set_title(model)
        panel.grid(axis="y", alpha=0.3)
    panels[0][0].set_ylabel("rows per second, one thread")
    handles = {}
    for panel in panels[0]:
        handles.update(zip(*reversed(panel.get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles.keys(), loc="upper center", ncols=len(handles), frameon=False)
    figure.tight_layout(rect=(0, 0, 1, 0.93))
    figure.savefig(path, dpi=110)
    return True


def main():
    def names(text):
        return [part for part in text.split(",") if part]

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models-dir", type=pathlib.Path, required=True)
    parser.add_argument("--bellwether", help="path of the example binary")
    parser.add_argument("--engines", type=names, default=ENGINES)
    parser.add_argument("--models", type=names, default=MODELS)
    parser.add_argument("--batches", type=lambda text: [int(b) for b in names(text)], default=BATCHES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="a turn's length; a turn is at least one call")
    parser.add_argument("--limit", type=float, default=60.0, help="no new round of a case after so many seconds")
    parser.add_argument("--quick", action="store_true", help="two short rounds, no batch beyond 20,000 rows")
    parser.add_argument("--json", type=pathlib.Path, help="write the results here")
    parser.add_argument("--picture", type=pathlib.Path, help="write a PNG here (needs matplotlib)")
    parser.add_argument("--worker", nargs=3, metavar=("ENGINE", "MODEL", "BATCH"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        engine, model, batch = options.worker
        worker(engine, model, int(batch), options.models_dir)
        return
    if options.quick:
        options.rounds, options.seconds = 2, 0.2
        options.batches = [b for b in options.batches if b <= 20_000]
    unknown = [n for n in options.engines if n not in ENGINES] + [n for n in options.models if n not in MODELS]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; engines are {', '.join(ENGINES)}; models are {', '.join(MODELS)}")
    if not options.bellwether and "bellwether" in options.engines:
        print("bellwether: left out, no --bellwether BINARY given", file=sys.stderr)
        options.engines = [e for e in options.engines if e != "bellwether"]

    results, told = [], set()
    for model in options.models:
        for batch in options.batches:
            found, remarks = compare_one(model, batch, options)
            results += found
            for remark in remarks:
                # A note with a figure comes again for each batch size: once a model is enough.
                key = (model, remark.split(":")[0]) if "benchmark" in remark else remark
                if key not in told:
                    told.add(key)
                    print(f"{model}, batch {batch}: {remark}", file=sys.stderr)
            print(f"{model}, batch {batch}: done", file=sys.stderr)
            if options.json:
                options.json.write_text(json.dumps(results, indent=1) + "\n")
    if not results:
        sys.exit("nothing was measured")
    print(table_of(results))
    if options.picture and draw(results, options.picture):
        print(f"picture: {options.picture}")
    else:
        print()
        print(bars(results))


if __name__ == "__main__":
    main()

"""Makes the models of the zoo with their inputs and ONNX Runtime's answers: make_zoo.py [NAME...]

Without names all of them are made and models that are no longer listed are removed. A name may end in *.
Prints what a second opinion says where it differs, and ends with status 1 if there is any such model.
"""

import fnmatch
import logging
import os
import shutil
import sys
import warnings

# One thread: sums are added in one order, so that the files come out the same every time.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"
# Exporters number some names in the order of a set of strings: the same order every time.
if os.environ.get("PYTHONHASHSEED") != "0":
    os.environ["PYTHONHASHSEED"] = "0"
    os.execv(sys.executable, [sys.executable, *sys.argv])
warnings.filterwarnings("ignore")

import zoo  # noqa: E402

MODULES = ("sklearn_models", "boosting_models", "torch_models", "edge_trees", "edge_operators", "edge_graphs")


def main(patterns):
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    for module in MODULES:
        __import__(module)
    names = [
        name for name in zoo.REGISTRY if not patterns or any(fnmatch.fnmatch(name, pattern) for pattern in patterns)
    ]
    failed = []
    for name in names:
        try:
            complaints = zoo.make(zoo.REGISTRY[name])
        except Exception as error:
            complaints = [f"not made: {type(error).__name__}: {str(error)[:600]}"]
            if os.environ.get("ZOO_TRACEBACK"):
                logging.exception(name)
        for complaint in complaints:
            print(f"{name}: {complaint}", flush=True)
        if any(not complaint.startswith("~") for complaint in complaints):
            failed.append(name)
    if not patterns:
        for folder in zoo.MODELS.iterdir():
            if folder.name not in zoo.REGISTRY:
                shutil.rmtree(folder)
    zoo.write_tables()
    size = sum(f.stat().st_size for f in zoo.MODELS.rglob("*") if f.is_file())
    print(f"{len(names)} models, {len(failed)} with complaints; the zoo has {size / 1e6:.2f} MB")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Python environments in the cache folder, one for the driver and one for each peer.

An environment is made once for its list of packages and its Python, and again when either changes. Uses
nothing but the standard library: it runs before anything is installed.
"""

import os
import pathlib
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
# The reference models are made by the scripts of this bench, which also pin ONNX Runtime and NumPy.
ONNX_RUNTIME_BENCH = HERE.parent / "onnx_runtime"


class CannotInstall(Exception):
    """Why an environment could not be made."""


def driver(cache):
    """The Python that measures; ends the program where it cannot be made."""
    try:
        return ensure(cache, "driver", ONNX_RUNTIME_BENCH / "requirements.txt", sys.executable)
    except CannotInstall as error:
        sys.exit(f"the packages of the driver cannot be installed: {error}")


def peer(cache, server, folder):
    """The Python of a peer."""
    python = sys.executable if server.python is None else find_python(server.python)
    return ensure(cache, server.folder, folder / "requirements.txt", python)


def ensure(cache, name, requirements, python):
    folder = cache / f"venv-{name}"
    stamp = folder / "installed-from"
    version = subprocess.run([python, "--version"], capture_output=True, text=True, check=True).stdout
    wanted = version + requirements.read_text()
    if not (stamp.exists() and stamp.read_text() == wanted):
        print(f"{name}: installing into {folder}", file=sys.stderr, flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        must([python, "-m", "venv", str(folder)])
        pip = [str(folder / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
        must([*pip, "-r", str(requirements)])
        stamp.write_text(wanted)
    return folder / "bin" / "python"


def must(command):
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        said = (ended.stderr or ended.stdout).strip().splitlines()
        raise CannotInstall(f"{' '.join(command[:4])} …: {said[-1] if said else ended.returncode}")


def find_python(version):
    """A Python of exactly this minor version: PYTHON312 for 3.12, on the path, or one of pyenv's."""
    variable = "PYTHON" + version.replace(".", "")
    pyenv = pathlib.Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser() / "versions"
    candidates = [os.environ.get(variable), shutil.which(f"python{version}")]
    candidates += [str(found) for found in sorted(pyenv.glob(f"{version}.*/bin/python"))]
    for candidate in filter(None, candidates):
        asked = [candidate, "-c", "import sys, venv; print('%d.%d' % sys.version_info[:2])"]
        try:
            ended = subprocess.run(asked, capture_output=True, text=True, check=False)
        except OSError:
            continue
        if ended.returncode == 0 and ended.stdout.strip() == version:
            return candidate
    raise CannotInstall(f"needs Python {version}, and there is none (set {variable} to its path)")

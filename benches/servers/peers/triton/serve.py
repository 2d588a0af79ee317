"""Triton: the tritonserver binary in the pytriton wheel with its own Python backend, whose model calls
onnxruntime (the wheel holds no ONNX Runtime backend)."""

import os
import pathlib
import shutil
import sys
import sysconfig

CONFIG = """
name: "m"
backend: "python"
max_batch_size: 1000
input [ { name: "X" data_type: TYPE_FP32 dims: [ 30 ] } ]
output [
  { name: "label" data_type: TYPE_INT64 dims: [ 1 ] },
  { name: "probabilities" data_type: TYPE_FP32 dims: [ 2 ] }
]
instance_group [ { kind: KIND_CPU count: WORKERS } ]
"""

if __name__ == "__main__":
    folder, port = pathlib.Path(os.environ["WORKDIR"]), int(os.environ["PORT"])
    packages = pathlib.Path(sysconfig.get_paths()["purelib"])
    triton = packages / "pytriton" / "tritonserver"

    # The backend starts a stub that must match this Python; the wheel holds one for each version.
    backends = folder / "backends"
    stubs = triton / "python_backend_stubs" / "{}.{}".format(*sys.version_info[:2])
    shutil.copytree(triton / "backends" / "python", backends / "python")
    shutil.copytree(stubs, backends / "python", dirs_exist_ok=True)

    model = folder / "repository" / "m"
    (model / "1").mkdir(parents=True)
    (model / "config.pbtxt").write_text(CONFIG.replace("WORKERS", os.environ["WORKERS"]))
    shutil.copy(pathlib.Path(__file__).resolve().parent / "model.py", model / "1")

    # By these the stub finds its interpreter, and model.py the packages of this environment.
    libraries = [sysconfig.get_config_var("LIBDIR"), str(packages / "nvidia_pytriton.libs")]
    os.environ["LD_LIBRARY_PATH"] = ":".join(libraries)
    os.environ["PACKAGES"] = str(packages)
    os.environ["PYTHONHOME"] = sys.base_prefix
    command = [
        "tritonserver",
        f"--model-repository={folder / 'repository'}",
        f"--backend-directory={backends}",
        "--http-address=127.0.0.1",
        f"--http-port={port}",
        "--grpc-address=127.0.0.1",
        f"--grpc-port={port + 1}",
        "--allow-metrics=false",
        "--log-info=false",
    ]
    os.execv(triton / "bin" / "tritonserver", command)

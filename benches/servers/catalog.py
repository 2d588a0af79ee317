"""The servers that are compared: one line each.

A peer is a folder under peers/ with its pinned packages (requirements.txt) and serve.py, which that peer's
Python runs with PORT, MODEL, WORKDIR and WORKERS in the environment and which serves on 127.0.0.1:PORT. To
add one, write the folder and a line below.
"""

import dataclasses
import pathlib

PEERS = pathlib.Path(__file__).resolve().parent / "peers"
# The reference model; Bellwether serves it under this name, the peers under theirs.
MODEL = "gbdt100"


@dataclasses.dataclass(frozen=True)
class Server:
    name: str
    # Folder under peers/; none for Bellwether itself.
    folder: str | None
    # What requests look like: "v2" is the Open Inference Protocol, "rows" is {"rows": [[…], …]}.
    dialect: str
    path: str
    workers: int = 1
    # The package whose pinned version is the peer's; the peer's own version where that is another; and what
    # neither says.
    package: str = ""
    release: str = ""
    remark: str = ""
    # A Python version the peer insists on.
    python: str | None = None


SERVERS = [
    Server("bellwether", None, "v2", f"/v2/models/{MODEL}/infer"),
    Server("fastapi", "fastapi", "rows", "/predict", package="fastapi", remark="orjson, uvloop, tuned by hand"),
    Server("fastapi-2", "fastapi", "rows", "/predict", 2, package="fastapi", remark="the same, 2 workers"),
    Server("bentoml", "bentoml", "rows", "/predict", package="bentoml"),
    Server("mlserver", "mlserver", "v2", "/v2/models/m/infer", 0, package="mlserver", remark="in process"),
    Server("kserve", "kserve", "v2", "/v2/models/m/infer", package="kserve"),
    Server("litserve", "litserve", "rows", "/predict", package="litserve"),
    Server(
        "triton",
        "triton",
        "v2",
        "/v2/models/m/infer",
        package="nvidia-pytriton",
        release="2.51.0",
        remark="its Python backend",
        python="3.12",
    ),
]


def find(name):
    return next((server for server in SERVERS if server.name == name), None)


def pinned(server):
    """Name and version of every package that the peer's requirements pin."""
    lines = (PEERS / server.folder / "requirements.txt").read_text().split()
    return dict(line.split("==") for line in lines if "==" in line)


def version_of(server):
    version = pinned(server)[server.package]
    return f"{server.release} ({server.package} {version})" if server.release else version

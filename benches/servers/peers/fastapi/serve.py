"""FastAPI as somebody who minds the speed writes it: the body read by orjson straight from the request, no
pydantic, the answer rendered by orjson from the arrays, uvicorn on uvloop and httptools, no access log."""

import os

import numpy as np
import onnxruntime
import orjson
import uvicorn
from fastapi import FastAPI, Request, Response

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
options.log_severity_level = 3
session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])
app = FastAPI()


@app.post("/predict")
async def predict(request: Request):
    rows = np.asarray(orjson.loads(await request.body())["rows"], dtype=np.float32)
    label, probabilities = session.run(["label", "probabilities"], {"X": rows})
    answer = orjson.dumps({"label": label, "probabilities": probabilities}, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(answer, media_type="application/json")


if __name__ == "__main__":
    uvicorn.run(
        "serve:app",
        host="127.0.0.1",
        port=int(os.environ["PORT"]),
        workers=int(os.environ["WORKERS"]),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
    )

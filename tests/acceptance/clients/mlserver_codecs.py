"""Makes requests of data frames and reads answers with MLServer's own codecs: each line of JSON read is
either {"columns": {...}} or {"answer": {...}}."""

import json
import logging
import sys

import pandas
from mlserver.codecs import PandasCodec, StringRequestCodec
from mlserver.types import InferenceResponse


def do(call):
    if "answer" in call:
        frame = PandasCodec.decode_response(InferenceResponse.model_validate(call["answer"]))
        return {name: frame[name].tolist() for name in frame}
    if "texts" in call:
        return request_of(StringRequestCodec.encode_request(call["texts"], use_bytes=False))
    return request_of(PandasCodec.encode_request(pandas.DataFrame(call["columns"]), use_bytes=False))


def request_of(request):
    return json.loads(request.model_dump_json(exclude_none=True))


logging.disable()
for line in sys.stdin:
    try:
        answer = {"result": do(json.loads(line))}
    except Exception as error:
        answer = {"error": type(error).__name__, "message": str(error)}
    print(json.dumps(answer), flush=True)

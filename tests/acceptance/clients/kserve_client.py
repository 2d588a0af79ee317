"""Calls the kserve client as its users do: each line of JSON read is a call, each line written what
came of it.

    python kserve_client.py http://HOST:PORT HOST:GRPC_PORT

The tensors of a call and of its result are JSON; what goes over the wire is the client's business.
"""

import asyncio
import json
import logging
import sys

import numpy
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig

DTYPES = {
    "BOOL": numpy.bool_,
    "INT32": numpy.int32,
    "INT64": numpy.int64,
    "FP32": numpy.float32,
    "FP64": numpy.float64,
    "BYTES": numpy.object_,
}


def infer_input(tensor, form):
    """`form` is "binary" for numpy data sent as bytes, "json" for numpy data in JSON, and "list" for
    a list given as it is."""
    made = InferInput(tensor["name"], tensor["shape"], tensor["datatype"])
    if form == "list":
        made.data = tensor["data"]
        return made
    array = numpy.array(tensor["data"], dtype=DTYPES[tensor["datatype"]]).reshape(tensor["shape"])
    made.set_data_from_numpy(array, binary_data=form == "binary")
    return made


def rendered(response):
    outputs = []
    for output in response.outputs:
        values = output.as_numpy()
        data = [v.decode() if isinstance(v, bytes) else v for v in values.reshape(-1).tolist()]
        shape = list(values.shape)
        outputs.append({"name": output.name, "datatype": output.datatype, "shape": shape, "data": data})
    return {"model_name": response.model_name, "id": response.id, "outputs": outputs}


class Rest:
    def __init__(self, url):
        self.url = url
        self.client = InferenceRESTClient(RESTConfig(protocol="v2"))

    async def is_server_live(self):
        return await self.client.is_server_live(self.url)

    async def is_server_ready(self):
        return await self.client.is_server_ready(self.url)

    async def is_model_ready(self, model):
        return await self.client.is_model_ready(self.url, model)

    async def infer(self, request):
        return await self.client.infer(self.url, request, model_name=request.model_name)


class Grpc:
    def __init__(self, address):
        self.client = InferenceGRPCClient(address)

    async def is_server_live(self):
        return await self.client.is_server_live()

    async def is_server_ready(self):
        return await self.client.is_server_ready()

    async def is_model_ready(self, model):
        return await self.client.is_model_ready(model)

    async def infer(self, request):
        return await self.client.infer(request)


async def do(clients, call):
    client = clients[call["transport"]]
    if call["call"] == "infer":
        request = InferRequest(
            model_name=call["model"],
            infer_inputs=[infer_input(tensor, call["form"]) for tensor in call["inputs"]],
            request_id=call.get("id"),
            parameters=call.get("parameters"),
        )
        return rendered(await client.infer(request))
    if call["call"] == "is_model_ready":
        return await client.is_model_ready(call["model"])
    return await getattr(client, call["call"])()


async def main(url, address):
    logging.disable()  # every error is reported; the client would log it on top
    clients = {"rest": Rest(url), "grpc": Grpc(address)}
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        try:
            answer = {"result": await do(clients, json.loads(line))}
        except Exception as error:  # whatever the client raises is the result
            answer = {"error": type(error).__name__, "message": str(error)}
        print(json.dumps(answer), flush=True)
    for client in clients.values():
        await client.client.close()


asyncio.run(main(*sys.argv[1:]))

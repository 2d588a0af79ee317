"""One server's turn at reading features: start it, fill it, check what it answers, load it, stop it.

The customers are the same for all: ten stored numbers, and ten more that are windows over events for
Bellwether and ten more stored numbers for Feast, which computes no windows. Every customer has 24 events,
one an hour.
"""

import contextlib
import datetime
import http.client
import json
import os
import random
import subprocess
import tempfile

import launch
import load
import processes

SERVERS = ("bellwether-embedded", "bellwether-redis", "feast-redis")

EVENTS_EACH = 24
BATCH = 1000

WINDOWS = [
    ("usage_count_1h", "int64", "count", "1h", False),
    ("usage_count_24h", "int64", "count", "24h", False),
    ("usage_count_7d", "int64", "count", "7d", False),
    ("usage_count_30d", "int64", "count", "30d", False),
    ("usage_sum_24h", "float64", "sum", "24h", True),
    ("usage_sum_7d", "float64", "sum", "7d", True),
    ("usage_sum_30d", "float64", "sum", "30d", True),
    ("usage_avg_30d", "float64", "avg", "30d", True),
    ("usage_max_30d", "float64", "max", "30d", True),
    ("usage_last_90d", "float64", "last", "90d", True),
]


class WrongAnswer(Exception):
    """A server gave other values than it was filled with."""


def view():
    lines = ['[view]\nname = "customer"\nentity = "customer_id"\n']
    for number in range(10):
        lines.append(f'[[feature]]\nname = "f{number}"\ntype = "float64"\n')
    for name, kind, function, window, has_value in WINDOWS:
        value = ', value = "mb"' if has_value else ""
        aggregate = f'{{ event = "usage", function = "{function}", window = "{window}"{value} }}'
        lines.append(f'[[feature]]\nname = "{name}"\ntype = "{kind}"\naggregate = {aggregate}\n')
    return "\n".join(lines)


class Reading:
    def __init__(self, chosen, folder, binary, feast):
        self.chosen, self.folder, self.binary, self.feast = chosen, folder, binary, feast
        generator = random.Random(7)
        self.stored = [[round(generator.gauss(0, 1), 4) for _ in range(20)] for _ in range(chosen.customers)]
        shuffled = list(range(chosen.customers))
        generator.shuffle(shuffled)
        self.paths, self.bodies = folder / "paths.txt", folder / "bodies.txt"
        asked = shuffled[:10_000]
        self.paths.write_text("".join(f"/v1/customers/c{customer}\n" for customer in asked))
        names = [f"fv:f{number}" for number in range(20)]
        self.bodies.write_text(
            "".join(json.dumps({"features": names, "entities": {"id": [customer]}}) + "\n" for customer in asked)
        )
        self.redis_process = self.redis_port = None
        self.feast_is_filled = False

    @contextlib.contextmanager
    def redis(self):
        self.redis_port = processes.free_port()
        command = ["redis-server", "--port", str(self.redis_port), "--bind", "127.0.0.1", "--save", ""]
        command += ["--appendonly", "no"]
        log = self.chosen.cache / "redis.log"
        self.redis_process = processes.Process(command, dict(os.environ), self.folder, log)
        try:
            yield
        finally:
            self.redis_process.stop()

    def turn(self, name):
        log = self.chosen.cache / f"{name}.log"
        with tempfile.TemporaryDirectory(prefix="turn-", dir=self.folder) as folder:
            port = processes.free_port()
            process = self.start(name, folder, port, log)
            try:
                if name == "feast-redis":
                    launch.wait_until(process, lambda: launch.ask(port, "GET", "/health")[0] == 200, 0.1)
                    self.check_feast(port)
                    url, bodies, paths = f"http://127.0.0.1:{port}/get-online-features", self.bodies, None
                else:
                    launch.wait_until(process, lambda: launch.ask(port, "GET", "/readyz")[0] == 200)
                    self.fill(port)
                    self.check(port)
                    url, bodies, paths = f"http://127.0.0.1:{port}/", None, self.paths
                redis_before = self.redis_process.cpu_seconds()
                chosen = self.chosen
                figures = load.measure(
                    process, url, bodies, chosen.connections, chosen.warmup, chosen.seconds, paths
                )
                spent = self.redis_process.cpu_seconds() - redis_before
                figures["redis_cpu"] = round(spent / (chosen.seconds + chosen.warmup), 2)
                figures["rss_mb"] = process.memory_mb()[0]
                return figures
            finally:
                process.stop()

    def start(self, name, folder, port, log):
        if name == "feast-redis":
            return self.start_feast(port, log)
        os.makedirs(f"{folder}/features")
        os.makedirs(f"{folder}/models")
        with open(f"{folder}/features/customer.toml", "w") as file:
            file.write(view())
        command = [self.binary, "serve", "--listen", f"127.0.0.1:{port}", "--data-dir", f"{folder}/data"]
        command += ["--models", f"{folder}/models", "--features", f"{folder}/features"]
        if name == "bellwether-redis":
            # Its own database, empty at every turn: the customers keep their events otherwise.
            flush = ["redis-cli", "-p", str(self.redis_port), "-n", "1", "flushdb"]
            subprocess.run(flush, check=True, stdout=subprocess.DEVNULL)
            command += ["--store-url", f"redis://127.0.0.1:{self.redis_port}/1"]
        # The settings of whoever runs this would make it another comparison.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("BELLWETHER_")}
        return processes.Process(command, environment, folder, log)

    def fill(self, port):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

        def send(path, rows):
            body = "".join(json.dumps(row) + "\n" for row in rows)
            connection.request("POST", path, body, {"Content-Type": "application/x-ndjson"})
            answer = connection.getresponse()
            said = answer.read()
            if answer.status != 200:
                raise WrongAnswer(f"{path}: {answer.status} {said[:300]!r}")

        customers = range(self.chosen.customers)
        for start in range(0, len(customers), BATCH):
            batch = customers[start : start + BATCH]
            rows = [
                {"customer_id": f"c{n}", **{f"f{i}": self.stored[n][i] for i in range(10)}} for n in batch
            ]
            send("/v1/features/customer", rows)
        now = datetime.datetime.now(datetime.UTC)
        for back in range(EVENTS_EACH):
            # Half an hour off the full one, so that no window's edge is near.
            occurred_at = (now - datetime.timedelta(hours=back, minutes=30)).isoformat()
            for start in range(0, len(customers), BATCH):
                rows = [
                    {
                        "event_id": f"e{n}-{back}-{now.timestamp()}",
                        "event": "usage",
                        "customer_id": f"c{n}",
                        "occurred_at": occurred_at,
                        "properties": {"mb": n % 100 + back},
                    }
                    for n in customers[start : start + BATCH]
                ]
                send("/v1/events", rows)
        connection.close()

    def check(self, port):
        for customer in range(0, self.chosen.customers, max(1, self.chosen.customers // 20)):
            status, answer = launch.ask(port, "GET", f"/v1/customers/c{customer}")
            if status != 200:
                raise WrongAnswer(f"{status} {answer[:300]!r}")
            features = json.loads(answer)["features"]
            found = [features[f"f{i}"]["value"] for i in range(10)] + [features[w[0]]["value"] for w in WINDOWS]
            usage = [customer % 100 + back for back in range(EVENTS_EACH)]
            week = EVENTS_EACH
            expected = self.stored[customer][:10] + [1, 24, week, week, sum(usage), sum(usage), sum(usage)]
            expected += [sum(usage) / len(usage), max(usage), usage[0]]
            if found != expected:
                raise WrongAnswer(f"customer c{customer}: expected {expected}, found {found}")

    def start_feast(self, port, log):
        repository = self.folder / "feast"
        environment = {**os.environ, "FEAST_USAGE": "False", "FEAST_TELEMETRY": "False"}
        if not self.feast_is_filled:
            repository.mkdir()
            values = repository / "values.json"
            values.write_text(json.dumps(self.stored))
            script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "feast", "repository.py")
            command = [self.feast, script, repository, str(self.redis_port), values]
            subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
            self.feast_is_filled = True
        program = self.feast.parent / "feast"
        command = [program, "serve", "--host", "127.0.0.1", "--port", str(port), "--no-access-log"]
        return processes.Process(command, environment, repository, log)

    def check_feast(self, port):
        for customer in range(0, self.chosen.customers, max(1, self.chosen.customers // 20)):
            body = json.dumps({"features": [f"fv:f{i}" for i in range(20)], "entities": {"id": [customer]}})
            status, answer = launch.ask(port, "POST", "/get-online-features", body)
            if status != 200:
                raise WrongAnswer(f"feast: {status} {answer[:300]!r}")
            parsed = json.loads(answer)
            values = {
                name: result["values"][0]
                for name, result in zip(parsed["metadata"]["feature_names"], parsed["results"])
            }
            found = [values[f"f{i}"] for i in range(20)]
            wrong = [abs(a - b) > 1e-6 for a, b in zip(found, self.stored[customer])]
            if any(wrong):
                raise WrongAnswer(f"feast, customer {customer}: expected {self.stored[customer]}, found {found}")

"""Makes a Feast repository with one view of twenty numbers and writes their values to Redis.

    python repository.py FOLDER REDIS_PORT VALUES.json
"""

import json
import os
import subprocess
import sys

import pandas

folder, redis_port, values = sys.argv[1:]
with open(values) as file:
    rows = json.load(file)
os.chdir(folder)

with open("feature_store.yaml", "w") as file:
    file.write(f"""project: bench
provider: local
registry: registry.db
entity_key_serialization_version: 3
online_store:
    type: redis
    connection_string: "127.0.0.1:{redis_port}"
""")
with open("definitions.py", "w") as file:
    file.write("""from datetime import timedelta

from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import Float64

customer = Entity(name="id", join_keys=["id"], value_type=ValueType.INT64)
features = FeatureView(
    name="fv",
    entities=[customer],
    ttl=timedelta(days=365),
    schema=[Field(name=f"f{number}", dtype=Float64) for number in range(20)],
    source=FileSource(path="values.parquet", timestamp_field="at"),
    online=True,
)
""")
table = pandas.DataFrame(rows, columns=[f"f{number}" for number in range(20)])
table.insert(0, "id", range(len(rows)))
table["at"] = pandas.Timestamp.now("UTC").floor("s") - pandas.Timedelta(hours=1)
table.to_parquet("values.parquet")
subprocess.run([os.path.join(sys.prefix, "bin", "feast"), "apply"], check=True)

from feast import FeatureStore  # noqa: E402

FeatureStore(".").write_to_online_store("fv", table)

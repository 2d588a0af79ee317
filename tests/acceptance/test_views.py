"""View files: every mistake is explained; request, related and window features and composite keys work
from the file to the answer."""

import json
from datetime import datetime, timezone

import pytest

from export import export
from server import FEATURES, REPOSITORY, Server, run, succeed

CUSTOMER = """
[view]
name = "customer"
entity = "customer_id"
owner = "retention"
purposes = ["service"]

[[relation]]
name = "site"
view = "site"
key = "site_id"

[[relation]]
name = "contract"
view = "contract"
key = ["customer_id", "line"]

[[feature]]
name = "site_id"
type = "string"
personal = true

[[feature]]
name = "line"
type = "int64"
default = 1

[[feature]]
name = "charges"
type = "float64"
default = 10.0
max = 1000

[[feature]]
name = "channel"
type = "string"
source = "request"
values = ["app", "phone"]
default = "app"

[[feature]]
name = "tickets"
type = "int64"
aggregate = { event = "ticket", function = "count", window = ["1h", "30d"] }

[[feature]]
name = "spent"
type = "float64"
aggregate = { event = "purchase", function = "sum", window = "7d", value = "amount", where = "amount > 0", group_by = "shop", groups = ["Web", "Main Street"] }

[[feature]]
name = "favourites"
type = "string"
aggregate = { event = "purchase", function = "top_k", window = "7d", value = "shop", k = 2 }

[[feature]]
name = "site_risk"
type = "float64"
from = "site.risk"
default = 0.25

[[feature]]
name = "site_doubled"
type = "float64"
from = "site.doubled"
default = 0.0

[[feature]]
name = "fee"
type = "float64"
from = "contract.fee"
default = 0.0

[[feature]]
name = "pressure"
type = "float64"
expression = "charges * site_risk + tickets_30d + fee + case when channel = 'phone' then 100 else 0 end"

[[feature]]
name = "hour_is_sane"
type = "bool"
expression = "request_hour between 0 and 23 and request_weekday between 1 and 7 and request_time > 1.7e9"
"""

SITE = """
[view]
name = "site"
entity = "site_id"

[[feature]]
name = "risk"
type = "float64"
default = 0.5

[[feature]]
name = "doubled"
type = "float64"
expression = "risk * 2"
"""

CONTRACT = """
[view]
name = "contract"
entity = ["customer_id", "line"]

[[feature]]
name = "fee"
type = "float64"
"""


def write_views(folder, **views):
    folder.mkdir()
    for name, text in {"customer": CUSTOMER, "site": SITE, "contract": CONTRACT, **views}.items():
        (folder / f"{name}.toml").write_text(text)
    return folder


@pytest.fixture
def views(tmp_path):
    return write_views(tmp_path / "features")


def model_over(folder):
    """A model whose score is the feature `pressure`: what goes in comes out."""
    from onnx import TensorProto, helper, save

    inputs = [
        helper.make_tensor_value_info(name, TensorProto.DOUBLE, [None, 1])
        for name in ("pressure", "site_doubled")
    ]
    output = helper.make_tensor_value_info("variable", TensorProto.DOUBLE, [None, 1])
    zero = helper.make_tensor("zero", TensorProto.DOUBLE, [1, 1], [0.0])
    nodes = [
        helper.make_node("Mul", ["site_doubled", "zero"], ["nothing"]),
        helper.make_node("Add", ["pressure", "nothing"], ["variable"]),
    ]
    graph = helper.make_graph(nodes, "pressure", inputs, [output], [zero])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    target = folder / "pressure" / "1"
    target.mkdir(parents=True)
    save(model, target / "model.onnx")
    return folder


def push(views, data_dir, view, file):
    return succeed("features", "push", "--view", view, file, "--data-dir", data_dir, "--features", views)


@pytest.fixture
def loaded(views, tmp_path):
    """A data directory with two customers, two sites and one contract."""
    data_dir = tmp_path / "data"
    tables = {
        "customer": "customer_id,site_id,charges\nnorth,s-1,20\nlost,s-9,20\n",
        "site": "site_id,risk\ns-1,0.75\ns-2,\n",
        "contract": "customer_id,line,fee\nnorth,1,3.5\nlost,2,99\n",
    }
    for view, text in tables.items():
        file = tmp_path / f"{view}.csv"
        file.write_text(text)
        push(views, data_dir, view, file)
    return data_dir


@pytest.fixture
def server(loaded, views, tmp_path):
    with Server(loaded, models=model_over(tmp_path / "models"), features=views) as server:
        yield server


def pressure(client, customer, **fields):
    (prediction,) = client.score(customer, **fields)["predictions"]
    return prediction["score"]


# The command line.


def test_check_explains_every_mistake_with_file_line_and_suggestion(tmp_path):
    views = write_views(
        tmp_path / "features",
        customer=CUSTOMER.replace('owner = "retention"', 'ower = "retention"')
        .replace("tickets_30d +", "ticket_30d +")
        .replace('function = "count"', 'function = "cuont"'),
        site=SITE.replace("risk * 2", "rusk * 2"),
    )
    done = run("features", "check", "--features", views)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    for file, line, parts in [
        ("customer.toml", 5, ["`ower`", "did you mean owner?"]),
        ("customer.toml", 44, ["cuont", "did you mean count?"]),
        ("site.toml", 14, ["no feature rusk", "did you mean risk?"]),
    ]:
        start = f"{views / file}:{line}: "
        assert any(found.startswith(start) and all(p in found for p in parts) for found in lines), done.stdout
    assert "mistakes" in done.stderr

    done = run("features", "check", "--features", views, "--json")
    assert done.returncode == 1
    said = json.loads(done.stdout)
    assert said["ok"] is False and len(said["mistakes"]) == len(lines)
    first = said["mistakes"][0]
    assert first["file"].endswith("customer.toml") and first["line"] == 5
    assert first["suggestion"] == "did you mean owner?"


def test_check_of_relations_looks_at_the_other_view(tmp_path):
    views = write_views(tmp_path / "features", site=SITE.replace('"risk"', '"rusk"').replace("risk *", "rusk *"))
    done = run("features", "check", "--features", views)
    assert done.returncode == 1
    assert "no feature risk in view site; did you mean rusk?" in done.stdout


def test_check_of_sound_views_says_so(views):
    assert succeed("features", "check", "--features", views).stdout.startswith("ok: 3 views")
    said = json.loads(succeed("features", "check", "--features", FEATURES, "--json").stdout)
    assert said == {"ok": True, "mistakes": []}


def test_show_lists_views_and_features(views):
    shown = succeed("features", "show", "--features", views).stdout
    for part in ["site_id (personal)", "count of ticket", "site.risk", "= risk * 2", "owner retention"]:
        assert part in shown, shown
    only = json.loads(succeed("features", "show", "--features", views, "--view", "contract", "--json").stdout)
    (view,) = only["views"]
    assert view["entity"] == ["customer_id", "line"]
    everything = json.loads(succeed("features", "show", "--features", views, "--json").stdout)
    (customer,) = [view for view in everything["views"] if view["name"] == "customer"]
    features = {feature["name"]: feature for feature in customer["features"]}
    assert features["tickets_1h"]["aggregate"]["window_seconds"] == 3600
    assert features["site_risk"]["from"] == "site.risk"
    assert features["site_id"]["personal"] is True and features["site_id"]["purposes"] == ["service"]
    assert [feature["role"] for feature in customer["features"]] == (
        ["stored"] * 3 + ["request"] * 4 + ["window"] * 6 + ["related"] * 3 + ["derived"] * 2
    )


def test_the_schema_for_editors_is_the_committed_one():
    printed = json.loads(succeed("features", "schema").stdout)
    assert printed == json.loads((REPOSITORY / "docs" / "view.schema.json").read_text())
    assert printed["properties"]["feature"]["items"]["properties"]["type"]["enum"] == [
        "string",
        "int64",
        "float64",
        "bool",
    ]


# The answer.


def test_related_features_come_from_the_entity_that_the_customer_points_to(server):
    client = server.client()
    shown = client.stored("north")
    assert shown["site_risk"]["value"] == 0.75
    assert shown["site_doubled"]["value"] == 1.5
    assert shown["fee"]["value"] == 3.5
    assert shown["site_risk"]["as_of"] is not None
    assert shown["hour_is_sane"]["value"] is True
    assert shown["pressure"]["value"] == 20 * 0.75 + 3.5
    assert pressure(client, "north") == 20 * 0.75 + 3.5
    # Nothing is known of the site of the other one, and its contract is another.
    assert pressure(client, "lost") == 20 * 0.25


def test_an_override_of_the_key_is_another_entity_and_of_the_feature_its_value(server):
    client = server.client()
    # A site that is known without a risk has the default of its own view.
    assert pressure(client, "north", features={"site_id": "s-2"}) == 20 * 0.5 + 3.5
    assert pressure(client, "north", features={"site_risk": 0.5, "fee": 1.0}) == 20 * 0.5 + 1.0
    assert pressure(client, "lost", features={"line": 2}) == 20 * 0.25 + 99


def test_windows_can_be_overridden(server):
    client = server.client()
    assert pressure(client, "north", features={"tickets_30d": 7}) == 20 * 0.75 + 3.5 + 7
    answer = client.post("/v1/score", {"customer_id": "north", "features": {"tickets_30d": "x"}})
    assert answer.status == 422 and "tickets_30d" in answer.error()


def purchase(number, customer, shop, amount):
    return {
        "event_id": f"p-{number}",
        "event": "purchase",
        "customer_id": customer,
        "occurred_at": datetime.now(timezone.utc).isoformat(),
        "properties": {"shop": shop, "amount": amount},
    }


def test_events_are_windows_maps_and_lists_of_a_customer_nothing_else_is_known_of(server):
    client = server.client()
    events = [
        purchase(1, "newcomer", "Web", 10.0),
        purchase(2, "newcomer", "Web", 2.5),
        purchase(3, "newcomer", "Market", 1.0),
        purchase(4, "newcomer", "Main Street", -5.0),
        {**purchase(5, "newcomer", "", 0.0), "event": "ticket"},
    ]
    answer = client.post("/v1/events", events)
    assert answer.status == 200, answer
    shown = client.stored("newcomer")
    assert shown["spent"]["value"] == {"Web": 12.5, "Market": 1.0}
    assert shown["spent_web"]["value"] == 12.5
    # Its only purchase does not count, and a sum of nothing is 0.
    assert shown["spent_main_street"]["value"] == 0.0
    assert shown["favourites"]["value"][0] == "Web"
    assert shown["tickets_1h"]["value"] == 1
    assert shown["tickets_1h"]["as_of"] is not None
    assert "charges" not in shown
    assert pressure(client, "newcomer") == 10.0 * 0.25 + 1


def test_entities_with_a_composite_key_are_written_and_read_by_all_its_parts(server):
    client = server.client()
    answer = client.put("/v1/features/contract/north/1", {"features": {"fee": 7.5}})
    assert answer.status == 200, answer
    shown = client.get("/v1/features/contract/north/1").json()
    assert shown["features"]["fee"]["value"] == 7.5
    assert shown["key"] == {"customer_id": "north", "line": "1"}
    assert client.get("/v1/features/contract/north/2").status == 404
    assert client.get("/v1/features/contract/north").status in (404, 422)
    assert pressure(client, "north") == 20 * 0.75 + 7.5


def test_the_context_of_a_request_is_read_and_checked(server):
    client = server.client()
    assert pressure(client, "north", context={"channel": "phone"}) == 20 * 0.75 + 3.5 + 100
    answer = client.score("north", context={"channel": "fax"})
    assert answer["features"]["unknown"] == ["channel"]
    for context, parts in [
        ({"chanel": "app"}, ["context.chanel", "did you mean channel?"]),
        ({"channel": 3}, ["context.channel", "expected string"]),
        ({"charges": 3.0}, ["context.charges", "`features`"]),
        ("app", ["context"]),
    ]:
        answer = client.post("/v1/score", {"customer_id": "north", "context": context})
        assert answer.status == 422, answer
        for part in parts:
            assert part in answer.error(), answer


def test_what_is_not_stored_cannot_be_stored(server):
    client = server.client()
    for name, value in [("channel", "app"), ("tickets_30d", 1), ("site_risk", 0.5), ("pressure", 1.0)]:
        answer = client.put("/v1/customers/north", {"features": {name: value}})
        assert answer.status == 422 and name in answer.error(), answer


def test_quality_is_counted_by_view_and_feature(server):
    client = server.client()
    client.score("north")
    client.score("north", features={"line": 2}, context={"channel": "fax"})
    text = client.get("/metrics").body.decode()
    samples = dict(
        line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("bellwether_feature_")
    )

    def of(metric, feature):
        return float(samples[f'bellwether_feature_{metric}{{view="customer",feature="{feature}"}}'])

    assert of("served_total", "charges") == 2
    assert of("missing_total", "line") == 1
    assert of("unknown_total", "channel") == 1
    assert of("missing_total", "fee") == 1
    assert of("age_seconds_count", "charges") == 1


def test_a_value_outside_a_range_that_was_declared_later_is_counted(loaded, tmp_path):
    narrow = write_views(tmp_path / "narrow", customer=CUSTOMER.replace("max = 1000", "max = 15"))
    with Server(loaded, models=model_over(tmp_path / "models"), features=narrow) as server:
        client = server.client()
        client.score("north")
        text = client.get("/metrics").body.decode()
    line = 'bellwether_feature_out_of_range_total{view="customer",feature="charges"} 1'
    assert line in text.splitlines()


def test_the_ledger_says_where_each_value_came_from(server, loaded, tmp_path):
    server.client().score("north", context={"channel": "phone"}, features={"tickets_30d": 2})
    server.stop()
    predictions, _, _ = export(loaded, tmp_path / "export")
    (row,) = predictions.to_dicts()
    assert json.loads(row["features_source"]) == {
        "site_id": "stored",
        "line": "default",
        "charges": "stored",
        "channel": "request",
        "tickets_30d": "override",
        "site_risk": "related",
        "site_doubled": "related",
        "fee": "related",
        "pressure": "derived",
    }

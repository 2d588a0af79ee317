"""A version is deployed while the server serves, and nobody notices but by the answer: not one request
fails, what is refused changes nothing, what is kept is kept whole, and memory goes back to what it was."""

import concurrent.futures
import json
import math
import os
import shutil
import socket
import threading
import time

import pytest
from onnx import TensorProto, helper

from certificates import replace
from deploys import (
    BOUNDARY,
    Champions,
    Load,
    break_golden,
    churn_score,
    churn_version,
    deploy,
    form,
    form_of,
    post,
    table_version,
)
from models import save, tensor_info
from server import FEATURES, MODELS, Server, prediction_of, refuse, run, succeed
from telco import VARIED
from waiting import eventually

CUSTOMER = VARIED[0]
SHIFTS = [0.0, 1.0]
DEPLOYS = 100

# Memory is back when it is within this of what it was.
MEMORY_SHARE = 1.15
MEMORY_SLACK = 16 * 1024 * 1024
SETTLE_SECONDS = 60


def serve(folder, settings="", **options):
    """A server on a repository of its own, with a configuration file."""
    shutil.copytree(MODELS, folder / "models", dirs_exist_ok=True)
    return Server(folder / "data", models=folder / "models", settings=settings, **options)


@pytest.fixture
def server(tmp_path):
    with serve(tmp_path) as server:
        yield server


@pytest.fixture
def churn(tmp_path):
    """The folder of a version of churn that is not the one that serves."""
    return churn_version(tmp_path / "new", shift=1.0)


def versions(client, model="churn"):
    """number -> what /v1/models says of it"""
    answer = client.get("/v1/models")
    assert answer.status == 200, answer
    return {m["version"]: m for m in answer.json()["models"] if m["name"] == model}


def folders(tmp_path, model="churn"):
    folder = tmp_path / "models" / model
    return sorted(os.listdir(folder)) if folder.is_dir() else []


def test_a_hundred_deploys_under_load_fail_no_request_and_leave_memory_as_it_was(tmp_path):
    build = tmp_path / "build"
    churns = [churn_version(build / f"churn-{shift}", shift) for shift in SHIFTS]
    scores = [churn_score(CUSTOMER, shift) for shift in SHIFTS]
    tables = [table_version(build / str(value), "table", value) for value in (1.0, 2.0)]
    refused_churn = break_golden(churn_version(build / "refused"))
    refused_table = table_version(build / "junk", "table", 3.0)
    graph = (refused_table / "model.onnx").read_bytes()
    (refused_table / "model.onnx").write_bytes(graph[: len(graph) // 2])
    shutil.copytree(tables[0], tmp_path / "models" / "table" / "1")

    with serve(tmp_path) as server:
        server.client().store("C-1", CUSTOMER)
        shift_of = {"1": 0}
        value_of = {"1": 1.0}

        def score(client):
            prediction = prediction_of(client.score("C-1", models=["churn"]), "churn")
            return prediction["version"], prediction["score"]

        def infer(client):
            inputs = [{"name": "x", "shape": [1], "datatype": "INT64", "data": [5]}]
            answer = client.post("/v2/models/table/infer", {"inputs": inputs})
            assert answer.status == 200, answer
            body = answer.json()
            return body["model_version"], body["outputs"][0]["data"][0]

        champions = {"churn": Champions("1"), "table": Champions("1")}

        def promote(model, folder):
            def act():
                reply = deploy(server, model, folder, "--promote")
                assert isinstance(reply, dict), reply
                assert (reply["model"], reply["state"]) == (model, "champion"), reply
                return reply["version"]

            champions[model].promote(act)
            return champions[model].spans[-1][2]

        def rounds(count):
            for number in range(count):
                # Alternating bytes, and every third time the same as before.
                which = number // 2 % 3 % 2
                if number % 2:
                    value_of[promote("table", tables[which])] = float(which + 1)
                else:
                    shift_of[promote("churn", churns[which])] = which
                if number % 10 == 4:
                    said = deploy(server, "churn", refused_churn, "--promote")
                    assert "422" in said and "golden.json row 2" in said, said
                    said = deploy(server, "table", refused_table)
                    assert "422" in said and "model.onnx" in said, said

        loads = [Load(server, score, 2), Load(server, infer, 2)]
        # As many versions as are kept loaded, and every path once.
        rounds(10)
        before = server.resident_bytes()
        begun = time.monotonic()
        rounds(DEPLOYS)
        took = time.monotonic() - begun
        for load in loads:
            load.stop()

        for load in loads:
            assert not load.failures, (len(load.failures), load.failures[:3])
            assert len(load.answers) > DEPLOYS, "the load was there all the time"
        for load, model, expected in [
            (loads[0], "churn", {version: scores[which] for version, which in shift_of.items()}),
            (loads[1], "table", value_of),
        ]:
            for begun_at, ended, (version, value) in load.answers:
                assert version in champions[model].at(begun_at, ended), (version, begun_at, ended)
                assert math.isclose(value, expected[version], abs_tol=1e-6), (version, value)
            accepted = (DEPLOYS + 10) // 2
            assert folders(tmp_path, model) == sorted(str(n) for n in range(1, accepted + 2))
        # And every one of them was asked: a champion that nobody met would prove nothing.
        met = {version for _, _, (version, _) in loads[0].answers}
        assert len(met) > DEPLOYS // 8, f"{len(met)} champions met in {took:.1f} s"

        bound = before * MEMORY_SHARE + MEMORY_SLACK
        eventually("memory back", lambda: server.resident_bytes() <= bound, SETTLE_SECONDS)
        print(f"{took:.1f} s, {sum(len(load.answers) for load in loads)} requests, "
              f"{before >> 20} MiB before, {server.resident_bytes() >> 20} MiB after")


def test_the_first_version_is_champion_and_later_ones_wait_to_be_promoted(server, tmp_path, churn):
    client = server.client()
    first = deploy(server, "loyalty", churn)
    assert (first["version"], first["state"]) == ("1", "champion")
    assert "previous_champion" not in first
    second = deploy(server, "loyalty", churn)
    assert (second["version"], second["state"]) == ("2", "candidate")
    client.store("C-1", CUSTOMER)
    assert prediction_of(client.score("C-1"), "loyalty")["version"] == "1"
    third = deploy(server, "loyalty", churn, "--promote", "--reason", "better")
    assert (third["state"], third["previous_champion"]) == ("champion", "1")
    assert prediction_of(client.score("C-1"), "loyalty")["version"] == "3"
    assert third["digest"] == second["digest"] == versions(client, "loyalty")["3"]["digest"]
    assert third["load_ms"] > 0
    # A model that was there before anything was said of it keeps its champion too.
    assert deploy(server, "churn", churn)["state"] == "candidate"
    assert prediction_of(client.score("C-1"), "churn")["version"] == "1"


def test_what_was_deployed_is_there_after_a_restart_in_the_same_roles(tmp_path, churn):
    with serve(tmp_path) as server:
        deploy(server, "churn", churn)
        assert deploy(server, "churn", churn, "--promote")["version"] == "3"
        deploy(server, "churn", churn)
        server.kill()
    with serve(tmp_path) as server:
        found = versions(server.client())
        assert {v: m["state"] for v, m in found.items()} == {
            "1": "candidate",
            "2": "candidate",
            "3": "champion",
            "4": "candidate",
        }


def test_a_model_whose_folders_are_gone_is_answered_for_by_the_next_that_comes(tmp_path, churn):
    with serve(tmp_path) as server:
        deploy(server, "loyalty", churn)
        assert deploy(server, "loyalty", churn, "--promote")["version"] == "2"
    shutil.rmtree(tmp_path / "models" / "loyalty")
    with serve(tmp_path) as server:
        # A number never means two versions.
        reply = deploy(server, "loyalty", churn)
        assert (reply["version"], reply["state"]) == ("3", "champion")
        assert server.client().get("/v2/models/loyalty/ready").status == 200


def test_a_golden_row_that_is_not_reproduced_is_named_with_what_was_expected_and_found(
    server, tmp_path, churn
):
    wrong = break_golden(churn_version(tmp_path / "wrong"))
    answer = post(server.client(), "churn", form(wrong))
    assert answer.status == 422
    said = answer.error()
    assert "golden.json row 2" in said and '"probabilities"' in said, said
    assert "expected 0.5" in said and "found 0." in said, said
    assert "nothing has changed" in said
    assert folders(tmp_path) == ["1"]
    said = refuse("model", "deploy", "churn", wrong, "--server", f"http://{server.address}")
    assert "golden.json row 2" in said


def test_an_input_without_a_feature_is_named(server, tmp_path, churn):
    manifest = churn / "model.toml"
    manifest.write_text(manifest.read_text() + '\n[inputs]\ntenure = "tenur"\n')
    said = post(server.client(), "churn", form(churn)).error()
    assert "tenur" in said and "is not in view customer" in said, said


@pytest.mark.parametrize(
    "body, content_type, status, words",
    [
        (b"", None, 400, "has no part"),
        (b"junk", None, 400, "has no part"),
        (form_of([("model.onnx", b"x")])[:-8], None, 400, "it ends in the middle of a part"),
        (form_of([("model.toml", b"")]), None, 422, "the part model.onnx is missing"),
        (form_of([("../../x", b"")]), None, 422, "has to be called model.onnx"),
        (form_of([("model.onnx", b"x"), ("promote", b"yes")]), None, 422, "expected true or false"),
        (form_of([("model.onnx", b"x")] * 2), None, 422, "there twice"),
        (form_of([("model.onnx", b"x")]), None, 422, "model.onnx"),
        (b"{}", "application/json", 415, "expected multipart/form-data"),
        (b"{}", "multipart/form-data", 415, "a boundary"),
    ],
)
def test_junk_is_refused_in_words(server, tmp_path, body, content_type, status, words):
    client = server.client()
    headers = {"Content-Type": content_type or f"multipart/form-data; boundary={BOUNDARY}"}
    for model in ("churn", "new"):
        answer = client.request("POST", f"/v1/models/{model}/versions", body, headers)
        assert (answer.status, words in answer.error()) == (status, True), answer
    assert folders(tmp_path) == ["1"]
    assert "new" not in os.listdir(tmp_path / "models")


def test_names_and_parameters_that_cannot_be_are_refused(server, tmp_path, churn):
    client = server.client()
    body = form(churn)
    for name in ("%2e%2e", "..%2Fchurn", ".hidden", "a%0Ab", "x" * 201):
        answer = post(client, name, body)
        assert answer.status == 422 and "model name" in answer.error(), answer
    for query in ("?promote=perhaps", "?promoted=true", f"?reason={'x' * 1001}"):
        assert "query" in post(client, "churn", body, query).error(), query
    compressed = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}", "Content-Encoding": "gzip"}
    assert client.request("POST", "/v1/models/churn/versions", body, compressed).status == 415
    assert sorted(os.listdir(tmp_path / "models")) == ["churn", "upsell"]
    assert folders(tmp_path) == ["1"]


def test_an_upload_over_the_bound_is_refused(tmp_path, churn):
    with serve(tmp_path, "[repository]\nmax_upload_bytes = 4000\n") as server:
        client = server.client()
        body = form_of([("model.onnx", b"\0" * 5000)])
        answer = post(client, "churn", body)
        assert answer.status == 413
        assert "4000 bytes (repository.max_upload_bytes)" in answer.error()
        # And by the command
        said = refuse("model", "deploy", "churn", churn, "--server", f"http://{server.address}")
        assert "413" in said and "4000 bytes" in said
        assert folders(tmp_path) == ["1"]
        only_graph = form_of([("model.onnx", (churn / "model.onnx").read_bytes())])
        assert post(client, "churn", only_graph).status == 201


def test_the_refusal_of_a_large_upload_is_heard(tmp_path):
    # More than a client and a server have in their buffers, from a client that sends all before it listens.
    body = form_of([("model.onnx", b"\0" * 64_000_000)])
    with serve(tmp_path, "[repository]\nmax_upload_bytes = 4000\n") as server:
        answer = post(server.client(), "churn", body)
        assert (answer.status, "4000 bytes" in answer.error()) == (413, True), answer
        # One that asks first is not told to go on.
        host, port = server.address.rsplit(":", 1)
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            head = (
                "POST /v1/models/churn/versions HTTP/1.1\r\nHost: x\r\nContent-Length: 64000000\r\n"
                f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\nExpect: 100-continue\r\n\r\n"
            )
            connection.sendall(head.encode())
            assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")


def test_a_form_that_names_its_parts_otherwise_is_understood_by_its_file_names(server, tmp_path, churn):
    # Given what HTTP libraries send for a list of files, with the fields that others put into the query
    def part(header, content):
        return f"--{BOUNDARY}\r\nContent-Disposition: form-data; {header}\r\n\r\n".encode() + content + b"\r\n"

    body = b"".join(
        [
            part('name="promote"', b"true"),
            part('name="files"; filename="model.onnx"', (churn / "model.onnx").read_bytes()),
            part('name="files"; filename="model.toml"', (churn / "model.toml").read_bytes()),
            part('name="reason"', "für März".encode()),
            f"--{BOUNDARY}--\r\n".encode(),
        ]
    )
    client = server.client()
    answer = post(client, "churn", body)
    assert (answer.status, answer.json()["state"]) == (201, "champion"), answer
    assert sorted(os.listdir(tmp_path / "models" / "churn" / "2")) == ["model.onnx", "model.toml"]
    acts = client.get("/v1/audit").json()["acts"]
    (row,) = [act for act in acts if act["action"] == "model.deploy"]
    assert row["reason"] == "für März"


def test_many_deploys_at_once_wait_for_one_another(server, tmp_path, churn):
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        replies = list(pool.map(lambda _: deploy(server, "churn", churn), range(20)))
    assert sorted(int(reply["version"]) for reply in replies) == list(range(2, 22)), replies


def test_deploys_at_once_all_succeed_under_different_numbers(server, tmp_path, churn):
    replies = []

    def one():
        replies.append(deploy(server, "churn", churn))

    threads = [threading.Thread(target=one) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(reply["version"] for reply in replies) == ["2", "3", "4", "5", "6", "7"]
    assert folders(tmp_path) == ["1", "2", "3", "4", "5", "6", "7"]


def test_a_server_that_is_killed_in_the_middle_of_an_upload_leaves_nothing_behind(tmp_path, churn):
    body = form_of([("model.onnx", b"\0" * 1_000_000)])
    head = (
        f"POST /v1/models/churn/versions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n\r\n"
    )
    with serve(tmp_path) as server:
        host, port = server.address.rsplit(":", 1)
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(head.encode() + body[: len(body) // 2])

            def receiving():
                hidden = [name for name in folders(tmp_path) if name.startswith(".incoming-")]
                file = tmp_path / "models" / "churn" / hidden[0] / "model.onnx" if hidden else None
                return file is not None and file.is_file() and file.stat().st_size > 100_000

            eventually("the upload received", receiving)
            assert list(versions(server.client())) == ["1"]
            server.kill()
    assert [name for name in folders(tmp_path) if not name.startswith(".")] == ["1"]
    with serve(tmp_path) as server:
        assert folders(tmp_path) == ["1"]
        assert deploy(server, "churn", churn)["version"] == "2"


def test_an_upload_that_breaks_off_leaves_nothing_behind(server, tmp_path):
    head = (
        "POST /v1/models/new/versions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n"
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n\r\n"
    )
    host, port = server.address.rsplit(":", 1)
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head.encode() + form_of([("model.onnx", b"\0" * 100_000)])[:50_000])
        eventually("the first file", lambda: folders(tmp_path, "new"))
    eventually("the folder gone", lambda: not (tmp_path / "models" / "new").exists())


# The folder, watched.


def test_a_folder_that_is_copied_in_slowly_is_not_loaded_half(tmp_path, churn):
    graph = (churn / "model.onnx").read_bytes()
    for number, seconds in enumerate([1, 5, 20]):
        folder = tmp_path / str(number)
        with serve(folder, f'[repository]\nwatch = "{seconds}s"\n') as server:
            client = server.client()
            target = folder / "models" / "churn" / "2"
            target.mkdir()
            # Several times as long as between two looks of the server, and never still for as long as that.
            look = lambda: "2" in versions(client)  # noqa: B023, E731
            longest_pause, is_seen = copy_slowly(graph, target / "model.onnx", seconds, look)
            if longest_pause >= seconds:
                continue  # the machine stood still for as long: once more, with more time between two looks
            assert not is_seen
            found = eventually("version 2", lambda: versions(client).get("2"), SETTLE_SECONDS)
            assert found["state"] == "champion" and "reason" not in found, found
            assert not [e for e in server.entries() if e["level"] == "ERROR"]
            return
    pytest.fail(f"this machine stands still for {longest_pause:.1f} s")


def copy_slowly(content, target, seconds, look):
    """Writes a file in sixty pieces, in three times `seconds`; the longest that it was as it was, and whether
    `look` saw something meanwhile."""
    step = len(content) // 60 + 1
    longest_pause, is_seen = 0.0, False
    with open(target, "wb") as file:
        begun = time.monotonic()
        for piece in range(0, len(content), step):
            is_seen = is_seen or look()
            file.write(content[piece : piece + step])
            file.flush()
            longest_pause, begun = max(longest_pause, time.monotonic() - begun), time.monotonic()
            time.sleep(seconds / 20)  # a slow copy
    return longest_pause, is_seen


def test_a_changed_file_is_loaded_and_a_broken_one_leaves_what_was_served(tmp_path, churn):
    with serve(tmp_path, '[repository]\nwatch = "200ms"\n') as server:
        client = server.client()
        client.store("C-1", CUSTOMER)

        def score():
            return prediction_of(client.score("C-1", models=["churn"]), "churn")["score"]

        file = tmp_path / "models" / "churn" / "1" / "model.onnx"
        (tmp_path / "models" / "churn" / "1" / "golden.json").unlink()
        replace(file, (churn / "model.onnx").read_bytes())
        eventually("the new score", lambda: math.isclose(score(), churn_score(CUSTOMER, 1.0), abs_tol=1e-6))
        replace(file, b"broken")
        found = eventually("what is wrong with it", lambda: versions(client)["1"].get("reason"))
        assert "served as it was before" in found and "model.onnx" in found
        assert math.isclose(score(), churn_score(CUSTOMER, 1.0), abs_tol=1e-6)
        # It is tried once, and not at every look.
        shutil.rmtree(tmp_path / "models" / "upsell")
        eventually("upsell gone", lambda: not versions(client, "upsell") or "gone" in str(versions(client, "upsell")))

        def errors():
            return [e for e in server.entries() if e.get("model") == "churn" and e["level"] == "ERROR"]

        eventually("the mistake in the log", errors)
        assert len(errors()) == 1, errors()


def test_a_version_that_appears_is_a_candidate_once_something_was_said(tmp_path, churn):
    with serve(tmp_path, '[repository]\nwatch = "200ms"\n') as server:
        client = server.client()
        deploy(server, "churn", churn, "--promote")
        shutil.copytree(churn, tmp_path / "models" / "churn" / "7")
        assert eventually("version 7", lambda: versions(client).get("7"))["state"] == "candidate"
        assert versions(client)["2"]["state"] == "champion"
        assert deploy(server, "churn", churn)["version"] == "8"


def test_a_graph_in_a_folder_that_is_no_version_is_told_of_and_not_served(tmp_path, churn):
    with serve(tmp_path, '[repository]\nwatch = "200ms"\n') as server:

        def told(folder):
            return [e for e in server.entries() if f"churn/{folder}/model.onnx: not served" in e.get("reason", "")]

        for folder, would_be in [("v2", "churn/2/"), ("better", "churn/1/")]:
            shutil.copytree(churn, tmp_path / "models" / "churn" / folder)
            entry = eventually(f"a word about {folder}", lambda: told(folder))[0]
            assert entry["level"] == "WARN" and entry["reason"].endswith(f"such as {would_be}model.onnx"), entry
        # It is said once, and not at every look.
        assert len(told("v2")) == 1
        assert list(versions(server.client())) == ["1"]
    said = refuse("check", "--models", tmp_path / "models", "--features", FEATURES)
    assert "churn/v2/model.onnx: not served" in said and "churn/better/model.onnx: not served" in said


def test_the_policy_says_which_versions_are_loaded(tmp_path, churn):
    for number in range(2, 7):
        shutil.copytree(churn, tmp_path / "models" / "churn" / str(number))
    with serve(tmp_path) as server:
        found = versions(server.client())
        loaded = {version for version, model in found.items() if model["state"] != "unavailable"}
        assert loaded == {"4", "5", "6"}
        assert "repository.latest = 3" in found["1"]["reason"]
        assert server.client().get("/v2/models/churn/versions/1/ready").status != 200
        # The way back stays loaded, whatever the policy.
        deploy(server, "churn", churn, "--promote")
        deploy(server, "churn", churn)
        deploy(server, "churn", churn)
        eventually("version 5 unavailable", lambda: versions(server.client())["5"]["state"] == "unavailable")
        found = versions(server.client())
        loaded = {version for version, model in found.items() if model["state"] != "unavailable"}
        assert loaded == {"6", "7", "8", "9"}
    for settings, expected in [
        ('versions = "all"', {"1", "2", "3", "4", "5", "6", "7", "8", "9"}),
        ("listed = {churn = [1, 2]}", {"1", "2", "6", "7"}),
    ]:
        with serve(tmp_path, f"[repository]\n{settings}\n") as server:
            found = versions(server.client())
            loaded = {version for version, model in found.items() if model["state"] != "unavailable"}
            assert loaded == expected, settings


# Without a server.


def test_validate_tells_everything_at_once_and_says_no_with_its_exit_code(tmp_path, churn):
    report = json.loads(
        succeed("model", "validate", MODELS / "churn" / "1", "--features", FEATURES, "--json").stdout
    )
    assert report["accepted"] and not report["problems"]
    assert report["golden"]["rows"] == 16 and report["binding"]["view"] == "customer"
    assert [timing["rows"] for timing in report["timings"]] == [1, 1000]
    wrong = break_golden(churn_version(tmp_path / "wrong"))
    manifest = wrong / "model.toml"
    manifest.write_text(manifest.read_text() + '\n[inputs]\ntenure = "tenur"\n')
    done = run("model", "validate", wrong, "--features", FEATURES, "--json")
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert not report["accepted"]
    (failure,) = report["golden"]["failures"]
    assert (failure["row"], failure["expected"]) == (2, 0.5)
    problems = " ".join(report["problems"])
    assert "tenur" in problems and "golden.json row 2" in problems
    assert "refused" in run("model", "validate", wrong, "--features", FEATURES).stdout


def test_validate_needs_no_views_and_says_how_many_rows_it_has_timed(tmp_path):
    # Given a graph that takes three rows and no others, where there is no folder of views
    folder = save(
        [helper.make_node("Neg", ["x"], ["y"])],
        [tensor_info("x", TensorProto.FLOAT, [3, 2])],
        [tensor_info("y", TensorProto.FLOAT, [3, 2])],
        [],
        tmp_path,
        "three",
    )
    report = json.loads(succeed("model", "validate", folder, "--json", cwd=tmp_path).stdout)
    assert report["accepted"], report
    assert [timing["rows"] for timing in report["timings"]] == [3]
    assert any("no folder features" in remark for remark in report["remarks"])
    # And one that is named has to be there
    said = refuse("model", "validate", folder, "--features", tmp_path / "nowhere", cwd=tmp_path)
    assert "nowhere" in said


def test_a_deploy_that_binds_to_no_features_says_so(server, tmp_path):
    folder = save(
        [helper.make_node("Neg", ["tenur"], ["y"])],
        [tensor_info("tenur", TensorProto.FLOAT, ["N", 1])],
        [tensor_info("y", TensorProto.FLOAT, ["N", 1])],
        [],
        tmp_path,
        "unbound",
    )
    (problem,) = deploy(server, "unbound", folder)["unbound"]
    assert "tenur is not in view customer; did you mean tenure?" in problem
    done = succeed("model", "deploy", "unbound", folder, "--server", f"http://{server.address}")
    assert "served under /v2 only" in done.stderr and "did you mean tenure?" in done.stderr
    assert "unbound" not in deploy(server, "churn", MODELS / "churn" / "1")


def test_a_folder_that_is_no_version_is_named_with_what_was_expected(server, tmp_path):
    for folder, words in [
        (tmp_path / "nowhere", "there is no such folder"),
        (MODELS / "churn", "it is in the folder 1 inside"),
        (MODELS / "churn" / "1" / "model.onnx", "it is a file"),
    ]:
        assert words in refuse("model", "validate", folder, "--features", FEATURES)
        said = refuse("model", "deploy", "churn", folder, "--server", f"http://{server.address}")
        assert words in said and "model.onnx" in said

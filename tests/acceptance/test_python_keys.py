"""The Python client with API keys, and over TLS with an authority of its own."""

import bellwether
import pandas
import pytest

from certificates import Authority
from keys import create, rotate
from server import Server
from waiting import eventually


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"), "python")


def test_a_key_may_do_what_its_scopes_say(tmp_path):
    score = create(tmp_path / "data", ["score", "feedback"], "engine")
    data = create(tmp_path / "data", "data", "loader")
    with Server(tmp_path / "data") as server:
        url = f"http://{server.address}"
        with bellwether.Client(url, api_key=data.text) as client:
            client.features.push(pandas.DataFrame({"customer_id": ["c1"], "tenure": [3]}))
            with pytest.raises(bellwether.Forbidden, match="score") as refused:
                client.score("c1")
            assert refused.value.status == 403
        with bellwether.Client(url, api_key=score.text) as client:
            prediction_id = client.score("c1").prediction_id
            assert not client.outcome("churn", prediction_id=prediction_id).duplicate
            with pytest.raises(bellwether.Forbidden, match="deploy"):
                client.models.deploy_bundle("churn", {"model.onnx": b"o" * 2_000_000})
        for key in (None, score.text[:-1] + ("a" if score.text[-1] != "a" else "b")):
            with (
                bellwether.Client(url, api_key=key) as client,
                pytest.raises(bellwether.Unauthorized) as unknown,
            ):
                client.score("c1")
            assert unknown.value.status == 401

        # Rotated with a grace, both secrets are taken.
        fresh = rotate(tmp_path / "data", score)
        for key in (fresh, score):
            with bellwether.Client(url, api_key=key.text) as client:
                eventually("the new secret is known", lambda client=client: scored(client))


def scored(client):
    try:
        return client.score("c1").prediction_id
    except bellwether.Unauthorized:
        return None


def test_a_server_is_believed_by_who_trusts_its_authority(tmp_path, authority, monkeypatch):
    chain, key, _ = authority.server()
    flags = ["--tls-cert-file", chain, "--tls-key-file", key]
    with Server(tmp_path / "data", arguments=flags, wait_until_ready=False) as server:
        url = f"https://{server.address}"
        with bellwether.Client(url, verify=str(authority.root_file)) as client:
            eventually("ready", lambda: client.models.list())
        monkeypatch.setenv("BELLWETHER_CA_FILE", str(authority.root_file))
        with bellwether.Client(url) as client:
            assert client.models.list()
        monkeypatch.delenv("BELLWETHER_CA_FILE")
        with bellwether.Client(url, retries=0) as client:
            with pytest.raises(bellwether.ServerUnavailable, match="(?i)certificate"):
                client.models.list()

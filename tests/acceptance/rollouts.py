"""Transitions of the rollout over HTTP."""


def roll_out(client, action, version=None, model="churn", **fields):
    """Asks for a transition; returns the answer."""
    body = {"action": action, **fields}
    if version is not None:
        body["version"] = str(version)
    return client.post(f"/v1/models/{model}/rollout", body)


def rolled_out(client, action, version=None, **fields):
    """A transition that must be possible; returns the roles after it."""
    answer = roll_out(client, action, version, **fields)
    assert answer.status == 200, answer
    return answer.json()

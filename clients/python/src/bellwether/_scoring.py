"""The calls that score a customer and report what came of it."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import httpx

from ._answers import Outcome, Scores
from ._http import Call
from ._json import customer, plain

Priority = Literal["online", "batch"]


def score_call(
    customer_id: str | int,
    models: str | Sequence[str] | None,
    features: Mapping[str, Any] | None,
    context: Mapping[str, Any] | None,
    explain: int | None,
    deadline: float | None,
    priority: Priority | None,
) -> Call[Scores]:
    """See :meth:`Client.score`."""
    body: dict[str, Any] = {"customer_id": customer(customer_id)}
    if models is not None:
        body["models"] = [models] if isinstance(models, str) else list(models)
    if features is not None:
        body["features"] = plain(features)
    if context is not None:
        body["context"] = plain(context)
    if explain is not None:
        body["explain"] = explain
    headers: dict[str, str] = {}
    if deadline is not None:
        headers["Bellwether-Timeout-Ms"] = str(max(1, round(deadline * 1000)))
    if priority is not None:
        headers["Bellwether-Priority"] = priority
    # Not repeatable: each answered score is a row of the ledger.
    return Call("POST", "/v1/score", lambda r: Scores.of(r.json()), {"json": body, "headers": headers})


def outcome_call(
    outcome: str,
    prediction_id: str | None,
    customer_id: str | int | None,
    value: float | None,
    occurred_at: datetime.datetime | str | None,
    outcome_id: str | None,
) -> Call[Outcome]:
    """See :meth:`Client.outcome`."""
    fields = {
        # With an id of ours the server knows a second try for what it is.
        "outcome_id": outcome_id or str(uuid.uuid4()),
        "prediction_id": prediction_id,
        "customer_id": None if customer_id is None else customer(customer_id),
        "outcome": outcome,
        "value": value,
        "occurred_at": occurred_at,
    }
    body = {name: plain(given) for name, given in fields.items() if given is not None}

    def read(response: httpx.Response) -> Outcome:
        answer = response.json()
        return Outcome(answer["outcome_id"], answer["duplicate"])

    return Call("POST", "/v1/outcomes", read, {"json": body}, repeatable=True)

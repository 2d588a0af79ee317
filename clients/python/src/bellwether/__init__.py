"""The client of the Bellwether prediction engine.

with bellwether.Client("http://127.0.0.1:8080") as client:
    client.features.push(customers)
    client.deploy("churn", estimator, sample)
    answer = client.score("C-000001")
    client.outcome("churn", prediction_id=answer.prediction_id)
"""

from typing import TYPE_CHECKING, Any

from ._answers import (
    Canary,
    Contribution,
    Deployed,
    Model,
    ModelVersion,
    Outcome,
    Prediction,
    Reasons,
    RefusedEvent,
    Roles,
    Scores,
    Sent,
)
from ._client import AsyncClient, Client
from ._errors import (
    BellwetherError,
    Conflict,
    ConversionError,
    Forbidden,
    InvalidRequest,
    ModelRefused,
    NotFound,
    ServerUnavailable,
    Unauthorized,
)
from ._features import AsyncFeatures, Features, Pushed, Refused
from ._progress import Progress

if TYPE_CHECKING:
    from .export import Bundle, convert

__all__ = [
    "AsyncClient",
    "AsyncFeatures",
    "BellwetherError",
    "Bundle",
    "Canary",
    "Client",
    "Conflict",
    "Contribution",
    "ConversionError",
    "Deployed",
    "Features",
    "Forbidden",
    "InvalidRequest",
    "Model",
    "ModelRefused",
    "ModelVersion",
    "NotFound",
    "Outcome",
    "Prediction",
    "Progress",
    "Pushed",
    "Reasons",
    "Refused",
    "RefusedEvent",
    "Roles",
    "Scores",
    "Sent",
    "ServerUnavailable",
    "Unauthorized",
    "convert",
]


def __getattr__(name: str) -> Any:
    # What converts estimators needs packages that a program which only scores need not have.
    if name in ("Bundle", "convert"):
        from . import export

        return getattr(export, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

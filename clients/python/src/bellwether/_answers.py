"""What the server answers, as objects. ``raw`` is the answer as it came."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Contribution:
    """What one feature adds to the raw score, measured from the model's reference customer."""

    feature: str
    value: Any
    contribution: float


@dataclass(frozen=True)
class Reasons:
    """``base`` + contributions + ``other`` is the raw score: log-odds for a classifier."""

    base: float
    contributions: list[Contribution]
    other: float

    @staticmethod
    def of(raw: dict[str, Any]) -> Reasons:
        listed = [Contribution(c["feature"], c["value"], c["contribution"]) for c in raw["contributions"]]
        return Reasons(raw["base"], listed, raw["other"])


@dataclass(frozen=True)
class Prediction:
    """What one model version says."""

    model: str
    version: int
    #: A probability for a classifier, the value for a regression.
    score: float
    #: Of a model with several choices: the best one that is left.
    label: str | None
    reasons: Reasons | None


@dataclass(frozen=True)
class Scores:
    """The answer to :meth:`Client.score`: ``answer["churn"].score`` is one model's score."""

    #: Name it when you report an outcome.
    prediction_id: str
    customer_id: str
    predictions: list[Prediction]
    #: Features that are older than the view allows, without a value, with an undeclared value.
    stale: list[str]
    missing: list[str]
    unknown: list[str]
    raw: dict[str, Any] = field(repr=False)

    @staticmethod
    def of(raw: dict[str, Any]) -> Scores:
        predictions = [
            Prediction(
                model=p["model"],
                version=int(p["version"]),
                score=p["score"],
                label=p.get("label"),
                reasons=Reasons.of(p["reasons"]) if p.get("reasons") else None,
            )
            for p in raw["predictions"]
        ]
        known = raw.get("features", {})
        return Scores(
            prediction_id=raw["prediction_id"],
            customer_id=raw["customer_id"],
            predictions=predictions,
            stale=known.get("stale", []),
            missing=known.get("missing", []),
            unknown=known.get("unknown", []),
            raw=raw,
        )

    def __getitem__(self, model: str) -> Prediction:
        for prediction in self.predictions:
            if prediction.model == model:
                return prediction
        found = ", ".join(p.model for p in self.predictions) or "none"
        raise KeyError(f"no prediction of {model!r}; those there are: {found}")

    def __iter__(self) -> Iterator[Prediction]:
        return iter(self.predictions)


@dataclass(frozen=True)
class Outcome:
    """An outcome that is on disk."""

    outcome_id: str
    #: It had been reported before, with the same content.
    duplicate: bool


@dataclass(frozen=True)
class RefusedEvent:
    """An event that was not taken: its index among those given, its id, and why."""

    index: int
    event_id: str | None
    error: str


@dataclass
class Sent:
    """What became of the events of ``events.send``."""

    accepted: int = 0
    #: Taken within the last 24 hours already, and not counted twice.
    duplicates: int = 0
    refused_total: int = 0
    #: The first refused events of each request, at most a hundred each.
    refused: list[RefusedEvent] = field(default_factory=list)


@dataclass(frozen=True)
class ModelVersion:
    """One version of a model."""

    model: str
    version: int
    #: ``champion``, ``canary``, ``shadow``, ``candidate``, ``retired`` or ``unavailable``.
    state: str
    #: Why it is unavailable, or what to know about it.
    reason: str | None
    digest: str | None
    #: As the server tells it: what it reads, how often it was asked, since when it has its role.
    raw: dict[str, Any] = field(repr=False)

    @property
    def comparison(self) -> dict[str, Any] | None:
        """How a shadow or a canary does beside the champion; ``None`` for other versions."""
        return self.raw.get("shadow") or self.raw.get("canary")

    @staticmethod
    def of(raw: dict[str, Any]) -> ModelVersion:
        return ModelVersion(
            model=raw["name"],
            version=int(raw["version"]),
            state=raw["state"],
            reason=raw.get("reason"),
            digest=raw.get("digest"),
            raw=raw,
        )


@dataclass(frozen=True)
class Canary:
    """The version that answers some of the customers."""

    version: int
    percent: float
    #: The limits that were set for it; the server's own hold for the others.
    guardrails: dict[str, float]

    @staticmethod
    def of(raw: dict[str, Any]) -> Canary:
        return Canary(int(raw["version"]), raw["percent"], raw.get("guardrails") or {})


@dataclass(frozen=True)
class Roles:
    """What the versions of a model are for; those that are not in it are candidates."""

    model: str
    #: Answers whoever names no version.
    champion: int
    #: The champions before it, newest first: a rollback returns to the first.
    before: list[int]
    canary: Canary | None
    #: Scored beside the champion, unseen.
    shadows: list[int]
    retired: list[int]
    #: Counts the transitions of the model.
    revision: int
    raw: dict[str, Any] = field(repr=False)

    @staticmethod
    def of(raw: dict[str, Any]) -> Roles:
        return Roles(
            model=raw["model"],
            champion=int(raw["champion"]),
            before=[int(version) for version in raw["before"]],
            canary=Canary.of(raw["canary"]) if raw.get("canary") else None,
            shadows=[int(shadow["version"]) for shadow in raw["shadows"]],
            retired=[int(version) for version in raw["retired"]],
            revision=raw["revision"],
            raw=raw,
        )


@dataclass(frozen=True)
class Model:
    """A model with its versions."""

    name: str
    champion: int | None
    #: ``None`` when the model has no version that could have a role.
    roles: Roles | None
    versions: list[ModelVersion]
    raw: dict[str, Any] = field(repr=False)

    @staticmethod
    def of(raw: dict[str, Any]) -> Model:
        champion = raw.get("champion")
        return Model(
            name=raw["name"],
            champion=None if champion is None else int(champion),
            roles=Roles.of(raw["roles"]) if raw.get("roles") else None,
            versions=[ModelVersion.of(version) for version in raw["versions"]],
            raw=raw,
        )

    def __getitem__(self, version: int) -> ModelVersion:
        for one in self.versions:
            if one.version == int(version):
                return one
        raise KeyError(f"model {self.name} has no version {version}")


@dataclass(frozen=True)
class Deployed:
    """A version that the server has checked, loaded and serves."""

    model: str
    version: int
    #: ``champion`` answers from now on, ``candidate`` only when it is named.
    state: str
    digest: str | None
    load_ms: float | None
    #: The version that was champion before, if this one took its place.
    previous_champion: int | None
    raw: dict[str, Any] = field(repr=False)

    @staticmethod
    def of(raw: dict[str, Any]) -> Deployed:
        before = raw.get("previous_champion")
        return Deployed(
            model=raw["model"],
            version=int(raw["version"]),
            state=raw["state"],
            digest=raw.get("digest"),
            load_ms=raw.get("load_ms"),
            previous_champion=None if before is None else int(before),
            raw=raw,
        )

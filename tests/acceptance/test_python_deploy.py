"""From a fitted estimator to served scores that are the estimator's own."""

import asyncio
import functools
import math

import bellwether
import lightgbm
import numpy
import pandas
import pytest
import skl2onnx
import xgboost
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.svm import LinearSVC

from server import Server

NUMBERS = ["senior_citizen", "tenure", "monthly_charges", "total_charges"]
TEXTS = ["contract", "internet_service", "payment_method"]
#: Customers who are scored; none of them is in the rows that estimators are fitted on.
ASKED = 40


def customers(count, seed):
    """Made-up customers with columns of the sample view, some without charges."""
    random = numpy.random.default_rng(seed)
    tenure = random.integers(0, 73, count)
    charges = random.uniform(18, 120, count)
    return pandas.DataFrame(
        {
            "senior_citizen": random.integers(0, 2, count),
            "tenure": tenure,
            "monthly_charges": charges,
            "total_charges": numpy.where(tenure < 3, numpy.nan, charges * tenure),
            "contract": random.choice(["Month-to-month", "One year", "Two year"], count),
            "internet_service": random.choice(["DSL", "Fiber optic", "No"], count),
            "payment_method": random.choice(["Electronic check", "Mailed check"], count),
        }
    )


@functools.cache
def training():
    rows = customers(1_500, 1)
    log_odds = 2 * (rows.contract == "Month-to-month") - rows.tenure / 20 + rows.monthly_charges / 50 - 1
    random = numpy.random.default_rng(2)
    churned = random.uniform(size=len(rows)) < 1 / (1 + numpy.exp(-log_odds))
    return rows, churned.astype(int).to_numpy(), (log_odds * 40 + random.normal(size=len(rows))).to_numpy()


def asked():
    """The customers to be scored. Some pay in a way that no estimator ever saw."""
    rows = customers(ASKED, 3)
    rows.loc[::7, "payment_method"] = "Bank transfer (automatic)"
    return rows


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("deploy")
    (folder / "models").mkdir()
    with Server(folder / "data", models=folder / "models") as server:
        with bellwether.Client(f"http://{server.address}") as client:
            rows = asked()
            rows.insert(0, "customer_id", [f"asked-{number}" for number in range(ASKED)])
            assert client.features.push(rows).written == ASKED
        yield server


@pytest.fixture
def client(server):
    with bellwether.Client(f"http://{server.address}") as client:
        yield client


def columns(*steps):
    return ColumnTransformer([(f"step{number}", step, names) for number, (step, names) in enumerate(steps)])


def encoded(model, texts=None, numbers="passthrough"):
    texts = texts or OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    return make_pipeline(columns((texts, TEXTS), (numbers, NUMBERS)), model)


def ordinal():
    return OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)


def scaled():
    return make_pipeline(SimpleImputer(strategy="median"), StandardScaler())


#: Estimators of probabilities, and the columns they take.
CLASSIFIERS = {
    "logistic": (lambda: encoded(LogisticRegression(max_iter=500), numbers=scaled()), TEXTS + NUMBERS),
    "logistic_passthrough": (
        lambda: make_pipeline(
            columns(
                (OneHotEncoder(handle_unknown="ignore"), TEXTS),
                (StandardScaler(), ["monthly_charges"]),
                ("passthrough", ["senior_citizen", "tenure"]),
            ),
            LogisticRegression(max_iter=500),
        ),
        TEXTS + ["monthly_charges", "senior_citizen", "tenure"],
    ),
    "histogram": (lambda: encoded(HistGradientBoostingClassifier(max_iter=40), ordinal()), TEXTS + NUMBERS),
    "histogram_numbers": (lambda: HistGradientBoostingClassifier(max_iter=40), NUMBERS),
    "lightgbm": (lambda: encoded(lightgbm.LGBMClassifier(n_estimators=40, verbose=-1)), TEXTS + NUMBERS),
    "lightgbm_numbers": (lambda: lightgbm.LGBMClassifier(n_estimators=40, verbose=-1), NUMBERS),
    "xgboost": (lambda: encoded(xgboost.XGBClassifier(n_estimators=40)), TEXTS + NUMBERS),
    "xgboost_numbers": (lambda: xgboost.XGBClassifier(n_estimators=40), NUMBERS),
    "forest": (
        lambda: encoded(RandomForestClassifier(25, min_samples_leaf=5), numbers=SimpleImputer()),
        TEXTS + NUMBERS,
    ),
    "calibrated": (
        lambda: encoded(CalibratedClassifierCV(LogisticRegression(max_iter=500), cv=2), numbers=scaled()),
        TEXTS + NUMBERS,
    ),
    "searched": (
        lambda: GridSearchCV(
            encoded(LogisticRegression(max_iter=500), numbers=scaled()),
            {"logisticregression__C": [0.1, 1]},
            cv=2,
        ),
        TEXTS + NUMBERS,
    ),
}

REGRESSIONS = {
    "ridge": (lambda: encoded(Ridge(), numbers=scaled()), TEXTS + NUMBERS),
    "histogram_value": (lambda: HistGradientBoostingRegressor(max_iter=40), NUMBERS),
    "lightgbm_value": (lambda: lightgbm.LGBMRegressor(n_estimators=40, verbose=-1), NUMBERS),
    "xgboost_value": (lambda: xgboost.XGBRegressor(n_estimators=40), NUMBERS),
}


def served(client, model):
    answers = client.score_many([f"asked-{number}" for number in range(ASKED)], models=model)
    return numpy.array([answer[model].score for answer in answers])


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_served_probabilities_are_those_of_the_estimator(client, name):
    build, takes = CLASSIFIERS[name]
    rows, churned, _ = training()
    estimator = build().fit(rows[takes], churned)
    deployed = client.deploy(name, estimator, rows[takes].head(300), view="customer")
    assert (deployed.model, deployed.version, deployed.state) == (name, 1, "champion")
    own = estimator.predict_proba(asked()[takes])[:, 1]
    assert numpy.abs(served(client, name) - own).max() <= 1e-6


@pytest.mark.parametrize("name", REGRESSIONS)
def test_served_values_are_those_of_the_estimator(client, name):
    build, takes = REGRESSIONS[name]
    rows, _, value = training()
    estimator = build().fit(rows[takes], value)
    client.deploy(name, estimator, rows[takes].head(300))
    own = estimator.predict(asked()[takes])
    assert (numpy.abs(served(client, name) - own) / numpy.maximum(1, numpy.abs(own))).max() <= 1e-5


def test_categories_of_pandas_are_converted_with_the_estimator(client):
    rows, churned, _ = training()
    known = {text: pandas.CategoricalDtype(sorted(rows[text].unique())) for text in TEXTS}
    estimator = lightgbm.LGBMClassifier(n_estimators=30, verbose=-1).fit(rows.astype(known), churned)
    client.deploy("categories", estimator, rows.astype(known).head(300))
    unseen = ~asked().payment_method.isin(known["payment_method"].categories)
    rows = asked()
    rows.loc[unseen, "payment_method"] = numpy.nan
    own = estimator.predict_proba(rows.astype(known))[:, 1]
    assert numpy.abs(served(client, "categories") - own).max() <= 1e-6


@pytest.mark.parametrize("library", ["lightgbm", "sklearn"])
def test_a_value_just_beside_a_threshold_takes_the_branch_of_the_estimator(client, library):
    rows, churned, _ = training()
    rows = rows[["monthly_charges"]]
    if library == "lightgbm":
        estimator = lightgbm.LGBMClassifier(n_estimators=5, verbose=-1).fit(rows, churned)
        tree = estimator.booster_.dump_model()["tree_info"][0]["tree_structure"]
        threshold = tree["threshold"]
    else:
        estimator = HistGradientBoostingClassifier(max_iter=5).fit(rows, churned)
        threshold = float(estimator._predictors[0][0].nodes[0]["num_threshold"])
    name = f"threshold_{library}"
    client.deploy(name, estimator, rows.head(100))
    beside = [threshold, math.nextafter(threshold, math.inf), math.nextafter(threshold, -math.inf)]
    own = estimator.predict_proba(pandas.DataFrame({"monthly_charges": beside}))[:, 1]
    # Given values that are one float32, and of which one gets another score
    assert numpy.float32(beside[0]) == numpy.float32(beside[1]) and own[0] != own[1]
    for value, expected in zip(beside, own):
        answer = client.score("asked-0", models=name, features={"monthly_charges": value})
        assert abs(answer[name].score - expected) <= 1e-6, value


def test_the_score_is_the_probability_of_the_class_that_is_named(client):
    rows, churned, _ = training()
    words = numpy.where(churned == 1, "leaves", "stays")
    estimator = encoded(LogisticRegression(max_iter=500), numbers=scaled()).fit(rows, words)
    client.deploy("named", estimator, rows.head(200), positive="leaves")
    assert numpy.abs(served(client, "named") - estimator.predict_proba(asked())[:, 0]).max() <= 1e-6
    with pytest.raises(bellwether.ConversionError, match="'gone' is not a class.*'leaves', 'stays'"):
        client.deploy("named", estimator, rows.head(200), positive="gone")


def test_of_several_classes_the_best_that_is_left_is_the_label(client):
    rows, _, value = training()
    offer = numpy.array(["fibre", "mobile", "tv"])[numpy.digitize(value, numpy.quantile(value, [0.3, 0.6]))]
    estimator = encoded(LogisticRegression(max_iter=500), numbers=scaled()).fit(rows, offer)
    with pytest.raises(bellwether.ConversionError, match="3 classes.*positive.*affinity"):
        client.deploy("offer", estimator, rows.head(200))
    unless = {"fibre": "internet_service = 'Fiber optic'"}
    client.deploy("offer", estimator, rows.head(200), task="affinity", unless=unless)
    own = estimator.predict_proba(asked())
    own[asked().internet_service == "Fiber optic", 0] = -1
    for number in range(ASKED):
        answer = client.score(f"asked-{number}", models="offer")["offer"]
        assert answer.label == estimator.classes_[own[number].argmax()]
        assert abs(answer.score - own[number].max()) <= 1e-6


def test_columns_may_have_other_names_than_features(client):
    rows, churned, _ = training()
    names = {"tenure": "Months", "monthly_charges": "Monthly Charges ($)"}
    own_rows = rows[list(names)].rename(columns=names)
    estimator = HistGradientBoostingClassifier(max_iter=10).fit(own_rows, churned)
    features = {column: feature for feature, column in names.items()}
    client.deploy("renamed", estimator, own_rows.head(200), features=features)
    own = estimator.predict_proba(asked()[list(names)].rename(columns=names))[:, 1]
    assert numpy.abs(served(client, "renamed") - own).max() <= 1e-6

    # An array has no names at all.
    estimator = make_pipeline(StandardScaler(), LogisticRegression()).fit(own_rows.to_numpy(), churned)
    client.deploy("array", estimator, own_rows.head(200).to_numpy(), features=list(names))
    own = estimator.predict_proba(asked()[list(names)].to_numpy())[:, 1]
    assert numpy.abs(served(client, "array") - own).max() <= 1e-6


def test_columns_that_the_estimator_does_not_read_are_left_out(client):
    rows, churned, _ = training()
    rows = rows.assign(name=[f"somebody {number}" for number in range(len(rows))])
    texts = OneHotEncoder(handle_unknown="ignore")
    estimator = make_pipeline(
        columns((texts, ["contract"]), ("passthrough", ["tenure"])), LogisticRegression()
    )
    estimator.fit(rows, churned)
    client.deploy("some_columns", estimator, rows.head(200))
    (version,) = client.models.list("some_columns")
    assert sorted(version.raw["features"]) == ["contract", "tenure"]
    own = estimator.predict_proba(asked().assign(name="?"))[:, 1]
    assert numpy.abs(served(client, "some_columns") - own).max() <= 1e-6


def test_a_later_version_is_a_candidate_until_it_is_promoted(client):
    rows, churned, _ = training()
    rows = rows[["tenure"]]
    first = LogisticRegression().fit(rows, churned)
    second = LogisticRegression().fit(rows, 1 - churned)
    told = []
    assert client.deploy("later", first, rows.head(50), progress=told.append).state == "champion"
    assert list(dict.fromkeys(progress.stage for progress in told)) == ["convert", "check", "upload", "load"]
    assert client.deploy("later", second, rows.head(50)).state == "candidate"
    own = first.predict_proba(asked()[["tenure"]])[:, 1]
    assert numpy.abs(served(client, "later") - own).max() <= 1e-6

    promoted = client.deploy("later", second, rows.head(50), promote=True, reason="turned round")
    assert (promoted.version, promoted.state, promoted.previous_champion) == (3, "champion", 1)
    assert numpy.abs(served(client, "later") - (1 - own)).max() <= 1e-6
    states = {version.version: version.state for version in client.models.list("later")}
    assert states[3] == "champion" and states[2] == "candidate"


def wrong():
    """An estimator whose ONNX form says something else: of a sparse matrix XGBoost takes what is not in it
    for missing, of the graph's dense one for zero."""
    rows, churned, _ = training()
    texts = OneHotEncoder(handle_unknown="ignore")
    steps = ColumnTransformer([("texts", texts, TEXTS)], sparse_threshold=1.0)
    return make_pipeline(steps, xgboost.XGBClassifier(n_estimators=30)).fit(rows, churned), rows.head(200)


def test_an_estimator_that_is_converted_wrongly_does_not_leave_this_machine(client):
    estimator, sample = wrong()
    with pytest.raises(
        bellwether.ConversionError, match="says something else.*rows differ by more than 1e-06"
    ):
        client.deploy("wrong_here", estimator, sample)
    assert client.models.list("wrong_here") == []


def test_an_estimator_that_is_converted_wrongly_is_refused_by_the_golden_rows(client):
    rows, churned, _ = training()
    right = encoded(LogisticRegression(max_iter=500), numbers=scaled()).fit(rows, churned)
    client.deploy("wrong_there", right, rows.head(200))
    before = served(client, "wrong_there")
    # Given one that nobody held against itself before it was sent
    estimator, sample = wrong()
    with pytest.raises(bellwether.ModelRefused) as refused:
        client.deploy("wrong_there", estimator, sample, check=False, promote=True)
    # When it is refused, then the row is named, and what is served is what was served
    assert refused.value.status == 422
    for words in ("golden.json row", "expected", "found"):
        assert words in str(refused.value)
    assert [version.version for version in client.models.list("wrong_there")] == [1]
    assert (served(client, "wrong_there") == before).all()


def test_a_column_that_is_no_feature_is_named(client):
    rows, churned, _ = training()
    rows = rows.rename(columns={"tenure": "tenur"})[["tenur", "monthly_charges"]]
    estimator = LogisticRegression().fit(rows, churned)
    with pytest.raises(bellwether.ModelRefused, match="tenur.*tenure"):
        client.deploy("misspelt", estimator, rows.head(50), view="customer")
    assert client.models.list("misspelt") == []


@pytest.mark.parametrize(
    "estimator, sample, words",
    [
        (lambda x, y: LinearSVC().fit(x, y), lambda x: x, "no probabilities.*CalibratedClassifierCV"),
        (lambda x, y: LogisticRegression().fit(x, y), lambda x: x.head(0), "no rows"),
        (lambda x, y: LogisticRegression().fit(x.to_numpy(), y), lambda x: x.to_numpy(), "no column names"),
        (lambda x, y: "a model", lambda x: x, "expected a fitted estimator.*str"),
        (
            lambda x, y: CalibratedClassifierCV(
                make_pipeline(columns(("passthrough", ["tenure"])), LogisticRegression()), cv=2
            ).fit(x, y),
            lambda x: x,
            "CalibratedClassifierCV around a ColumnTransformer.*the other way round",
        ),
        (lambda x, y: LogisticRegression().fit(x, y), lambda x: x.to_dict(), "expected a pandas or Polars"),
        (lambda x, y: LogisticRegression().fit(x, y), lambda x: x.tenure, "expected a pandas.*found Series"),
        (lambda x, y: LogisticRegression, lambda x: x, "found the class LogisticRegression itself"),
        (
            lambda x, y: lightgbm.LGBMClassifier(n_estimators=5, verbose=-1).fit(x, y).booster_,
            lambda x: x,
            "found a Booster of lightgbm.*fit an LGBMClassifier or LGBMRegressor",
        ),
        (
            lambda x, y: xgboost.XGBClassifier(n_estimators=5).fit(x, y).get_booster(),
            lambda x: x,
            "found a Booster of xgboost.*fit an XGBClassifier or XGBRegressor",
        ),
        (
            lambda x, y: HistGradientBoostingClassifier(max_iter=5, categorical_features=["paid"]).fit(paying(x), y),
            lambda x: paying(x),
            "no ONNX form that takes text, as in the column paid: encode it",
        ),
    ],
)
def test_what_cannot_be_converted_is_said_before_anything_is_sent(client, estimator, sample, words):
    rows, churned, _ = training()
    rows = rows[["tenure", "monthly_charges"]]
    with pytest.raises(bellwether.ConversionError, match=words):
        client.deploy("never", estimator(rows, churned), sample(rows))
    assert client.models.list("never") == []


def paying(rows):
    """The rows with a column of categories."""
    return rows.assign(paid=pandas.Categorical(numpy.where(rows.tenure < 30, "by card", "by cheque")))


@pytest.mark.parametrize(
    "options, words",
    [
        ({"task": "binery"}, 'task: expected one of "binary", "affinity", "regression", found \'binery\''),
        ({"label": "churn"}, "label: expected a mapping, found 'churn'"),
        ({"baseline": ["tenure"]}, "baseline: expected a mapping"),
        ({"tolerance": 0}, "tolerance: expected a number above 0, found 0"),
    ],
)
def test_an_option_that_cannot_be_right_is_named(options, words):
    rows, churned, _ = training()
    estimator = LogisticRegression().fit(rows[["tenure"]], churned)
    with pytest.raises(bellwether.ConversionError, match=words):
        bellwether.convert(estimator, rows[["tenure"]].head(50), **options)


def test_an_exporter_that_says_every_node_of_every_tree_is_cut_short_and_the_cause_kept(monkeypatch):
    def fail(*_, **__):
        raise ValueError("cannot make the node with\n" + "0,\n" * 100_000) from TypeError("found a truth value")

    monkeypatch.setattr(skl2onnx, "to_onnx", fail)
    rows, churned, _ = training()
    estimator = HistGradientBoostingClassifier(max_iter=5).fit(rows[["tenure"]], churned)
    with pytest.raises(bellwether.ConversionError) as refused:
        bellwether.convert(estimator, rows[["tenure"]].head(50))
    assert str(refused.value) == (
        "HistGradientBoostingClassifier: no ONNX form (float64 and float32: ValueError: cannot make the node "
        "with …, because of TypeError: found a truth value)"
    )


def test_a_bundle_can_be_written_and_looked_at(tmp_path):
    rows, churned, _ = training()
    estimator = encoded(LogisticRegression(max_iter=500), numbers=scaled()).fit(rows, churned)
    label = {"outcome": "churn", "negative": ["stayed"], "window": "30d", "maturity": "45d"}
    bundle = bellwether.convert(estimator, rows.head(200), description='says "no"\n', label=label)
    assert bundle.checked_rows > 200 and bundle.largest_difference <= 1e-6
    folder = bundle.save(tmp_path / "1")
    assert sorted(path.name for path in folder.iterdir()) == ["golden.json", "model.onnx", "model.toml"]
    import tomllib

    manifest = tomllib.loads((folder / "model.toml").read_text())
    assert manifest["model"] == {"task": "binary", "description": 'says "no"\n'}
    assert manifest["label"] == label
    assert manifest["reasons"]["baseline"]["tenure"] == int(rows.head(200).tenure.sort_values().iloc[99])


def test_the_asynchronous_client_deploys_too(server):
    rows, churned, _ = training()
    estimator = LogisticRegression().fit(rows[["tenure"]], churned)

    async def deploy():
        async with bellwether.AsyncClient(f"http://{server.address}") as client:
            await client.deploy("awaited", estimator, rows[["tenure"]].head(50))
            return await client.score_many([f"asked-{number}" for number in range(ASKED)], models="awaited")

    scores = [answer["awaited"].score for answer in asyncio.run(deploy())]
    own = estimator.predict_proba(asked()[["tenure"]])[:, 1]
    assert numpy.abs(numpy.array(scores) - own).max() <= 1e-6

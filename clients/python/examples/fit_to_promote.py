"""From `fit` to `promote`: a churn model, the one that is to follow it, and the way back.

Open it as a notebook (VS Code, Spyder and Jupytext read the cells) or run it:

    pip install './clients/python[deploy]'
    bellwether serve &
    python clients/python/examples/fit_to_promote.py

It asserts what it says: every served score is the estimator's own.
"""

# %% [markdown]
# ## Customers
#
# IBM's public Telco table where it is there, made-up customers with the same columns where it is not.

# %%
import os
import time
from pathlib import Path

import bellwether
import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

SHARED = Path(os.environ.get("BELLWETHER_SHARED_DIR", "../shared"))
TELCO = SHARED / "data" / "ibm-telco-churn" / "Telco-Customer-Churn.csv"
MODEL = os.environ.get("EXAMPLE_MODEL", "retention")

NUMBERS = ["senior_citizen", "tenure", "monthly_charges", "total_charges"]
TEXTS = ["contract", "internet_service", "online_security", "tech_support", "payment_method"]
FEATURES = NUMBERS + TEXTS


def telco(path: Path) -> pd.DataFrame:
    """The public table, with the names of the sample view."""
    table = pd.read_csv(path)
    names = {
        "customerID": "customer_id",
        "SeniorCitizen": "senior_citizen",
        "tenure": "tenure",
        "MonthlyCharges": "monthly_charges",
        "TotalCharges": "total_charges",
        "Contract": "contract",
        "InternetService": "internet_service",
        "OnlineSecurity": "online_security",
        "TechSupport": "tech_support",
        "PaymentMethod": "payment_method",
    }
    customers = table[list(names)].rename(columns=names)
    customers["total_charges"] = pd.to_numeric(customers["total_charges"], errors="coerce")
    customers["churned"] = (table["Churn"] == "Yes").astype(int)
    return customers


def simulated(count: int = 4_000) -> pd.DataFrame:
    """Customers who describe nobody: those on monthly contracts and early in their tenure leave more."""
    random = np.random.default_rng(20260131)
    tenure = random.integers(0, 73, count)
    contract = random.choice(["Month-to-month", "One year", "Two year"], count, p=[0.55, 0.21, 0.24])
    internet = random.choice(["DSL", "Fiber optic", "No"], count, p=[0.34, 0.44, 0.22])
    charges = np.round(
        20 + 30 * (internet == "DSL") + 55 * (internet == "Fiber optic") + random.uniform(0, 30, count), 2
    )
    log_odds = 1.4 * (contract == "Month-to-month") - 0.04 * tenure + 0.02 * charges - 2.0
    add_ons = np.where(internet == "No", "No internet service", random.choice(["Yes", "No"], (2, count)))
    return pd.DataFrame(
        {
            "customer_id": [f"S-{number:06}" for number in range(count)],
            "senior_citizen": random.integers(0, 2, count),
            "tenure": tenure,
            "monthly_charges": charges,
            # Nobody has been charged anything yet in the first month.
            "total_charges": np.where(tenure == 0, np.nan, np.round(charges * tenure, 2)),
            "contract": contract,
            "internet_service": internet,
            "online_security": add_ons[0],
            "tech_support": add_ons[1],
            "payment_method": random.choice(
                ["Electronic check", "Mailed check", "Credit card (automatic)"], count
            ),
            "churned": (random.uniform(size=count) < 1 / (1 + np.exp(-log_odds))).astype(int),
        }
    )


customers = telco(TELCO) if TELCO.is_file() else simulated()
held_out = customers.index % 5 == 4
train, test = customers[~held_out], customers[held_out]
print(f"{len(customers)} customers, {customers['churned'].mean():.1%} of them left")

# %% [markdown]
# ## Fit
#
# What every notebook has: a pipeline over the columns of a data frame.

# %%
first = make_pipeline(
    ColumnTransformer(
        [
            ("texts", OneHotEncoder(handle_unknown="ignore"), TEXTS),
            ("numbers", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), NUMBERS),
        ]
    ),
    LogisticRegression(max_iter=1_000),
).fit(train[FEATURES], train["churned"])


def says(estimator, rows: pd.DataFrame) -> np.ndarray:
    return estimator.predict_proba(rows[FEATURES])[:, 1]


print(f"logistic regression: AUC {roc_auc_score(test['churned'], says(first, test)):.3f}")

# %% [markdown]
# ## Deploy
#
# The estimator becomes an ONNX graph, is held against its own predictions here and again on the server,
# and is served. With `promote` it answers at once; the first version of a model does so anyway.

# %%
client = bellwether.Client()  # BELLWETHER_SERVER, BELLWETHER_API_KEY
LABEL = {"outcome": "churn", "window": "30d", "maturity": "30d"}

one = client.deploy(
    MODEL, first, train[FEATURES], view="customer", label=LABEL, promote=True, reason="a first model"
)
print(f"{MODEL}/{one.version} is {one.state}")
assert one.state == "champion"

# %% [markdown]
# ## Score
#
# The customers' features are pushed once; the score of a customer is then one call. What is served is what
# the estimator says.

# %%
asked = test.head(300)
pushed = client.features.push(asked[["customer_id", *FEATURES]])
assert pushed.refused_total == 0, pushed.refused[:3]


def served(rows: pd.DataFrame) -> list[bellwether.Prediction]:
    answers = client.score_many(rows["customer_id"], models=MODEL)
    return [answer[MODEL] for answer in answers]


def assert_equal(predictions: list[bellwether.Prediction], estimators: dict, rows: pd.DataFrame) -> None:
    """Each score is that of the estimator behind the version that answered."""
    expected = {version: says(estimator, rows) for version, estimator in estimators.items()}
    largest = max(
        abs(prediction.score - expected[prediction.version][index])
        for index, prediction in enumerate(predictions)
    )
    print(f"{len(predictions)} scores, at most {largest:.1e} from the estimator's own")
    assert largest <= 1e-6


assert_equal(served(asked), {one.version: first}, asked)

answer = client.score(asked["customer_id"].iloc[0], models=MODEL, explain=3)
for reason in answer[MODEL].reasons.contributions:
    print(f"  {reason.feature} = {reason.value}: {reason.contribution:+.3f}")
client.outcome("churn", prediction_id=answer.prediction_id, value=1)

# %% [markdown]
# ## A second model, in shadow
#
# A new version is a candidate: it answers only those who name it. In shadow it scores what the champion
# scores, and nobody sees it but us.

# %%
second = make_pipeline(
    ColumnTransformer(
        [
            ("texts", OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), TEXTS),
            ("numbers", "passthrough", NUMBERS),
        ]
    ),
    HistGradientBoostingClassifier(max_iter=60, learning_rate=0.05, random_state=0),
).fit(train[FEATURES], train["churned"])
print(f"boosted trees: AUC {roc_auc_score(test['churned'], says(second, test)):.3f}")

two = client.deploy(MODEL, second, train[FEATURES], view="customer", label=LABEL, reason="trees see more")
assert two.state == "candidate"
client.models.shadow(MODEL, two.version, reason="how far is it from the champion?")
assert_equal(served(asked), {one.version: first}, asked)


def until(what: str, holds, seconds: float = 600.0):
    """What `holds` returns, as soon as it is not None."""
    deadline = time.monotonic() + seconds
    while (found := holds()) is None:
        assert time.monotonic() < deadline, f"{what}: not after {seconds:.0f} s"
        time.sleep(0.1)
    return found


def compared():
    comparison = client.models.get(MODEL)[two.version].comparison or {}
    return comparison if comparison.get("pairs", 0) >= len(asked) else None


comparison = until("the comparison of all scores", compared)
print(
    f"shadow: {comparison['pairs']} pairs, {comparison['errors']} errors, "
    f"mean difference {comparison['difference']['mean_absolute']:.4f}, "
    f"rank correlation {comparison['rank_correlation']:.3f}"
)
own = np.abs(says(second, asked) - says(first, asked)).mean()
assert comparison["errors"] == 0
assert abs(comparison["difference"]["mean_absolute"] - own) < 1e-4

# %% [markdown]
# ## Canary
#
# A fifth of the customers is answered by it, always the same ones. Were it to fail, to be slow or to drift, the
# server would take it back by itself. Trees take longer than a sum and score differently, which we know by
# now: for this canary these two limits are wider than usual.

# %%
roles = client.models.canary(
    MODEL,
    two.version,
    percent=20,
    guardrails={"max_score_drift": 5.0, "max_latency_ratio": 50.0},
    reason="ranks as the champion does",
)
print(f"{roles.canary.percent:g} % of the customers are answered by {MODEL}/{roles.canary.version}")
estimators = {one.version: first, two.version: second}
predictions = served(asked)
assert_equal(predictions, estimators, asked)
share = np.mean([prediction.version == two.version for prediction in predictions])
print(f"{share:.0%} of those asked")
assert 0.08 < share < 0.35
assert [p.version for p in served(asked)] == [p.version for p in predictions]

# %% [markdown]
# ## Promote, and take it back

# %%
assert client.models.promote(MODEL, two.version, reason="nothing went wrong").champion == two.version
assert_equal(served(asked), {two.version: second}, asked)

started = time.monotonic()
assert client.models.rollback(MODEL, two.version, reason="to see that it works").champion == one.version
print(f"rolled back in {time.monotonic() - started:.3f} s")
assert_equal(served(asked), {one.version: first}, asked)

for version in client.models.list(MODEL):
    print(f"{version.model}/{version.version}: {version.state}")
client.close()

"""The scikit-learn figures that training/tests compares with.

Run:  python training/tests/reference_bank.py BANK_CSV_GZ TELCO_CSV
Needs: scikit-learn (measured with 1.9.1), pandas, numpy.

Prints the AUC of scikit-learn's logistic regression with its default settings (C=1) after
standardising the numbers and one-hot encoding the texts, on the same split as the trainer:
bank = last 20 % of the rows held out, without `duration`; churn = rows with index mod 5 = 4.
The second figure is from the same pipeline run to convergence (tol=1e-9): with nearly collinear
columns the default tolerance stops visibly short of the minimum.
"""

import sys

import numpy as np
import pandas as pd
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler


def holdout_auc(features, target, held_out, **settings):
    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    encode = make_column_transformer(
        (numbers, make_column_selector(dtype_include=np.number)),
        (OneHotEncoder(handle_unknown="ignore"), make_column_selector(dtype_exclude=np.number)),
    )
    model = make_pipeline(encode, LogisticRegression(max_iter=50_000, **settings))
    model.fit(features[~held_out], target[~held_out])
    return roc_auc_score(target[held_out], model.predict_proba(features[held_out])[:, 1])


def report(name, features, target, held_out):
    default = holdout_auc(features, target, held_out)
    converged = holdout_auc(features, target, held_out, tol=1e-9)
    print(f"{name:6}default {default:.6f}  converged {converged:.6f}")


bank = pd.read_csv(sys.argv[1], sep=";")
position = np.arange(len(bank))
held_out = position >= len(bank) * 8 // 10
report("bank", bank.drop(columns=["duration", "y"]), bank["y"] == "yes", held_out)

telco = pd.read_csv(sys.argv[2])
telco["TotalCharges"] = pd.to_numeric(telco["TotalCharges"], errors="coerce")
held_out = np.arange(len(telco)) % 5 == 4
report("churn", telco.drop(columns=["customerID", "Churn"]), telco["Churn"] == "Yes", held_out)

"""Telecom customers: a made-up one for most tests, and the public IBM data set where it is there."""

import csv
import os
from pathlib import Path

import pytest

from server import REPOSITORY

SHARED = Path(os.environ.get("BELLWETHER_SHARED_DIR", REPOSITORY.parent / "shared"))
IBM_CSV = SHARED / "data" / "ibm-telco-churn" / "Telco-Customer-Churn.csv"

INTEGERS = ["senior_citizen", "tenure"]
NUMBERS = ["monthly_charges", "total_charges"]
ADD_ONS = [
    "online_security",
    "online_backup",
    "device_protection",
    "tech_support",
    "streaming_tv",
    "streaming_movies",
]
STRINGS = [
    "gender",
    "partner",
    "dependents",
    "phone_service",
    "multiple_lines",
    "internet_service",
    *ADD_ONS,
    "contract",
    "paperless_billing",
    "payment_method",
]
FEATURES = INTEGERS + NUMBERS + STRINGS

# The headers of the IBM file, in its order, with the feature each one holds.
IBM_COLUMNS = {
    "gender": "gender",
    "SeniorCitizen": "senior_citizen",
    "Partner": "partner",
    "Dependents": "dependents",
    "tenure": "tenure",
    "PhoneService": "phone_service",
    "MultipleLines": "multiple_lines",
    "InternetService": "internet_service",
    "OnlineSecurity": "online_security",
    "OnlineBackup": "online_backup",
    "DeviceProtection": "device_protection",
    "TechSupport": "tech_support",
    "StreamingTV": "streaming_tv",
    "StreamingMovies": "streaming_movies",
    "Contract": "contract",
    "PaperlessBilling": "paperless_billing",
    "PaymentMethod": "payment_method",
    "MonthlyCharges": "monthly_charges",
    "TotalCharges": "total_charges",
}


def customer(**changes):
    """A made-up customer of a fibre line on a monthly contract."""
    return {
        "gender": "Female",
        "senior_citizen": 0,
        "partner": "Yes",
        "dependents": "No",
        "tenure": 7,
        "phone_service": "Yes",
        "multiple_lines": "No",
        "internet_service": "Fiber optic",
        "online_security": "No",
        "online_backup": "Yes",
        "device_protection": "No",
        "tech_support": "No",
        "streaming_tv": "Yes",
        "streaming_movies": "No",
        "contract": "Month-to-month",
        "paperless_billing": "Yes",
        "payment_method": "Electronic check",
        "monthly_charges": 84.35,
        "total_charges": 590.5,
        **changes,
    }


# Customers who differ in every feature, for tests that compare two ways of scoring.
VARIED = [
    customer(),
    customer(tenure=0, total_charges=None),
    customer(
        contract="Two year", tenure=72, monthly_charges=20.05, total_charges=1443.6, internet_service="No"
    ),
    customer(gender="Male", senior_citizen=1, partner="No", dependents="Yes", payment_method="Mailed check"),
    customer(
        phone_service="No", multiple_lines="No phone service", internet_service="DSL", paperless_billing="No"
    ),
    customer(online_security="Yes", device_protection="Yes", tech_support="Yes", contract="One year"),
    customer(streaming_movies="Yes", multiple_lines="Yes", payment_method="Credit card (automatic)"),
    customer(
        monthly_charges=118.75, total_charges=8672.45, tenure=73, payment_method="Bank transfer (automatic)"
    ),
]


def numbered(rows, key="customer_id"):
    """Rows of a table, with the keys row-0, row-1, ..."""
    return [{key: f"row-{number}", **row} for number, row in enumerate(rows)]


def features_of(row):
    """The features of one row of the IBM file, as they go into a request: blank is null."""
    features = {}
    for column, name in IBM_COLUMNS.items():
        text = row[column]
        if name in INTEGERS:
            features[name] = int(text)
        elif name in NUMBERS:
            features[name] = float(text) if text.strip() else None
        else:
            features[name] = text
    return features


def ibm_customers():
    """[(customer id, features, churned)] in the order of the file; skips the test without the data."""
    if not IBM_CSV.is_file():
        pytest.skip(f"skipped: data not found ({IBM_CSV})")
    with IBM_CSV.open(newline="", encoding="utf-8") as file:
        return [(row["customerID"], features_of(row), row["Churn"] == "Yes") for row in csv.DictReader(file)]

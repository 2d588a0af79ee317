"""Values as JSON has them."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping
from typing import Any


def plain(value: Any) -> Any:
    """A value as JSON has it: numbers of NumPy are numbers, missing ones null, times RFC 3339."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime.datetime):
        # Missing times of pandas are datetimes that equal nothing, not even themselves.
        if value != value:
            return None
        zoned = value if value.tzinfo else value.replace(tzinfo=datetime.timezone.utc)
        return zoned.isoformat()
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if type(value).__module__ == "numpy" and hasattr(value, "item"):
        return plain(value.item())
    # A missing value of pandas.
    return None if type(value).__name__ == "NAType" else value


def customer(customer_id: str | int) -> str:
    """The id of a customer. One that is a number in a table is the same one here."""
    found = plain(customer_id)
    if isinstance(found, bool) or not isinstance(found, (str, int)):
        raise TypeError(f"customer_id: expected text or a whole number, found {customer_id!r}")
    return str(found)

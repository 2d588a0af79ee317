//! What loading a view promises, and what it says of every mistake.
//!
//! * `loaded` – what is in a view that is right.
//! * `values` – values from outside, checked against it.
//! * `mistakes` – files that are wrong.

mod loaded;
mod mistakes;
mod values;

use super::*;

/// Stored and derived features of one key column.
pub const VIEW: &str = r#"
[view]
name = "customer"
entity = "customer_id"
max_age = "30d"

[[feature]]
name = "per_month_twice"
type = "float64"
expression = "per_month * 2"

[[feature]]
name = "tenure"
type = "int64"
default = 0
min = 0

[[feature]]
name = "total"
type = "float64"

[[feature]]
name = "per_month"
type = "float64"
expression = "total / greatest(tenure, 1)"

[[feature]]
name = "contract"
type = "string"
values = ["Month-to-month", "One year"]
unknown = "refuse"
"#;

/// Every role of a feature, over two key columns.
pub const SITE_VISIT: &str = r#"
[view]
name = "site_visit"
entity = ["customer_id", "site_id"]
owner = "field service"
purposes = ["service"]

[[relation]]
name = "site"
view = "site"
key = "site_id"

[[relation]]
name = "cell"
view = "cell"
key = ["region", "cell_number"]

[[feature]]
name = "late_visits_share"
type = "float64"
expression = "visits_late_90d * 1.0 / visits_90d + request_hour * 0"

[[feature]]
name = "risk"
type = "float64"
from = "site.risk"
default = 0.5
max_age = "1d"

[[feature]]
name = "visits"
type = "int64"
aggregate = { event = "visit", function = "count", window = ["1h", "90d"] }

[[feature]]
name = "visits_late_90d"
type = "int64"
aggregate = { event = "visit", function = "count", window = "90d", where = "late" }

[[feature]]
name = "minutes"
type = "float64"
aggregate = { event = "visit", function = "avg", window = "7d", value = "minutes", group_by = "kind", groups = ["Repair", "New line"] }

[[feature]]
name = "reasons"
type = "string"
aggregate = { event = "visit", function = "top_k", window = "90d", value = "reason", k = 3 }

[[feature]]
name = "channel"
type = "string"
source = "request"
values = ["app", "phone"]
default = "app"

[[feature]]
name = "cell_number"
type = "int64"
personal = true
purposes = []
owner = "network"

[[feature]]
name = "region"
type = "string"
tags = ["geo"]
"#;

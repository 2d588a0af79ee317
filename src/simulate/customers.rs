//! Made-up telecom customers.
//!
//! Values are drawn with plausible dependencies: charges follow from services, long contracts go with
//! long tenure.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;

use super::{cents, customer_key, percent};

/// The add-on services with their monthly price in US dollars and how many in 100 hold them.
const ADD_ONS: [(&str, f64, u32); 6] = [
    ("online_security", 5.0, 37),
    ("online_backup", 5.0, 44),
    ("device_protection", 5.0, 44),
    ("tech_support", 5.0, 37),
    ("streaming_tv", 10.0, 49),
    ("streaming_movies", 10.0, 50),
];

/// One simulated customer.
struct Customer {
    texts: Vec<String>,
    senior_citizen: i64,
    tenure: i64,
    monthly_charges: f64,
    total_charges: Option<f64>,
}

const TEXT_COLUMNS: [&str; 15] = [
    "gender",
    "partner",
    "dependents",
    "phone_service",
    "multiple_lines",
    "internet_service",
    "online_security",
    "online_backup",
    "device_protection",
    "tech_support",
    "streaming_tv",
    "streaming_movies",
    "contract",
    "paperless_billing",
    "payment_method",
];

/// The schema of [`customers`]: the key, the text columns, then the numbers.
pub fn schema() -> SchemaRef {
    let mut fields = vec![Field::new("customer_id", DataType::Utf8, false)];
    fields.extend(
        TEXT_COLUMNS
            .iter()
            .map(|name| Field::new(*name, DataType::Utf8, false)),
    );
    fields.push(Field::new("senior_citizen", DataType::Int64, false));
    fields.push(Field::new("tenure", DataType::Int64, false));
    fields.push(Field::new("monthly_charges", DataType::Float64, false));
    fields.push(Field::new("total_charges", DataType::Float64, true));
    Arc::new(Schema::new(fields))
}

/// `rows` customers in batches of at most `batch_rows`; keys are `C-000001`, `C-000002`, …
pub fn customers(
    rows: u64,
    seed: u64,
    batch_rows: usize,
) -> impl Iterator<Item = Result<RecordBatch, String>> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut next: u64 = 1;
    std::iter::from_fn(move || {
        let count = (rows + 1).saturating_sub(next).min(batch_rows as u64);
        if count == 0 {
            return None;
        }
        let first = next;
        next += count;
        Some(batch(&mut random, first, count))
    })
}

fn batch(random: &mut fastrand::Rng, first: u64, count: u64) -> Result<RecordBatch, String> {
    let keys: Vec<String> = (first..first + count).map(customer_key).collect();
    let drawn: Vec<Customer> = (0..count).map(|_| draw(random)).collect();
    let mut columns: Vec<ArrayRef> = vec![Arc::new(StringArray::from(keys))];
    for column in 0..TEXT_COLUMNS.len() {
        let texts = drawn
            .iter()
            .map(|customer| Some(customer.texts[column].as_str()));
        columns.push(Arc::new(texts.collect::<StringArray>()));
    }
    let integers = |pick: fn(&Customer) -> i64| -> ArrayRef {
        Arc::new(drawn.iter().map(pick).collect::<Int64Array>())
    };
    columns.push(integers(|customer| customer.senior_citizen));
    columns.push(integers(|customer| customer.tenure));
    columns.push(Arc::new(
        drawn
            .iter()
            .map(|c| Some(c.monthly_charges))
            .collect::<Float64Array>(),
    ));
    columns.push(Arc::new(
        drawn
            .iter()
            .map(|c| c.total_charges)
            .collect::<Float64Array>(),
    ));
    RecordBatch::try_new(schema(), columns).map_err(|error| error.to_string())
}

fn draw(random: &mut fastrand::Rng) -> Customer {
    let yes_no = |flag: bool| if flag { "Yes" } else { "No" }.to_owned();
    let tenure = match random.u32(0..100) {
        // Many are new, many have been here since the beginning.
        0..30 => random.i64(0..12),
        30..80 => random.i64(12..66),
        _ => random.i64(66..=72),
    };
    let contract = match (tenure, random.u32(0..100)) {
        (..24, 0..85) | (24..48, 0..55) | (_, 0..20) => "Month-to-month",
        (..48, _) => "One year",
        (_, 20..50) => "One year",
        _ => "Two year",
    };
    let internet = match random.u32(0..100) {
        0..34 => "DSL",
        34..78 => "Fiber optic",
        _ => "No",
    };
    let phone = internet == "No" || percent(random, 87);
    let lines = match (phone, percent(random, 47)) {
        (false, _) => "No phone service".to_owned(),
        (true, held) => yes_no(held),
    };
    let mut monthly = match internet {
        "DSL" => 25.0,
        "Fiber optic" => 50.0,
        _ => 0.0,
    };
    monthly += if phone { 20.0 } else { 0.0 };
    monthly += if lines == "Yes" { 5.0 } else { 0.0 };
    let mut add_ons = Vec::with_capacity(ADD_ONS.len());
    for (_, price, share) in ADD_ONS {
        // Add-ons are collected over time.
        let share = share / 2 + share * u32::try_from(tenure).unwrap_or_default() / 72;
        let held = percent(random, share);
        if internet == "No" {
            add_ons.push("No internet service".to_owned());
        } else {
            monthly += if held { price } else { 0.0 };
            add_ons.push(yes_no(held));
        }
    }
    let monthly_charges = cents(monthly + random.f64() * 2.0 - 1.0);
    let total_charges =
        (tenure > 0).then(|| cents(monthly_charges * tenure as f64 * (0.94 + random.f64() * 0.12)));
    let partner = percent(random, 48);
    let payment = [
        "Electronic check",
        "Mailed check",
        "Bank transfer (automatic)",
        "Credit card (automatic)",
    ];
    let mut texts = vec![
        if percent(random, 50) {
            "Male"
        } else {
            "Female"
        }
        .to_owned(),
        yes_no(partner),
        yes_no(percent(random, if partner { 52 } else { 10 })),
        yes_no(phone),
        lines,
        internet.to_owned(),
    ];
    texts.extend(add_ons);
    texts.push(contract.to_owned());
    texts.push(yes_no(percent(random, 59)));
    texts.push(payment[random.usize(0..payment.len())].to_owned());
    Customer {
        texts,
        senior_citizen: i64::from(percent(random, 16)),
        tenure,
        monthly_charges,
        total_charges,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_customers_whatever_the_batch_size() {
        let all = |batch_rows| {
            let batches: Vec<RecordBatch> = customers(100, 7, batch_rows)
                .collect::<Result<_, _>>()
                .unwrap();
            arrow::compute::concat_batches(&schema(), &batches).unwrap()
        };
        assert_eq!(all(100), all(33));
        assert_ne!(
            all(100),
            arrow::compute::concat_batches(
                &schema(),
                &customers(100, 8, 100)
                    .collect::<Result<Vec<_>, _>>()
                    .unwrap()
            )
            .unwrap()
        );
    }
}

//! Made-up data for demos and load tests: telecom customers and what happens to them.
//!
//! The columns and events are those of the sample view `features/customer.toml`. The same seed gives
//! the same data. It describes nobody, and no model is trained on it.

pub mod customers;
pub mod events;

/// The key of customer number `number`, from 1.
pub fn customer_key(number: u64) -> String {
    format!("C-{number:06}")
}

fn percent(random: &mut fastrand::Rng, share: u32) -> bool {
    random.u32(0..100) < share
}

fn cents(amount: f64) -> f64 {
    (amount * 100.0).round() / 100.0
}

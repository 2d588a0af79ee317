//! Features: what is known about an entity, declared in view files and checked here.
//!
//! * [`value`] – the value and type used everywhere, and their conversions from JSON and text.
//! * [`column`] – values of one feature as an Arrow array, and back.
//! * [`expression`] – SQL expressions compiled once over a view's schema.
//! * [`change`] – what can happen to an entity.
//! * [`view`] – one view file: features, types, defaults, allowed values, derived features.
//! * [`views`] – the folder of view files.
//! * [`windows`] – aggregates over the events of the last hours and days.

pub mod change;
pub mod column;
pub mod expression;
pub mod value;
pub mod view;
pub mod views;
pub mod windows;

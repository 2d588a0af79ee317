//! Promises of the trainers and of the committed sample models.
//!
//! Tests of training read the shared data and are skipped without it; see `common::shared_file`.

// A helper of a test fails the test by panicking, as the test itself does.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod bad_data;
mod bank;
mod common;
mod golden;
mod telco_models;

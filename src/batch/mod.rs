//! Work on whole tables of customers.
//!
//! * [`read`] – CSV and Parquet files as Arrow record batches.
//! * [`push`] – writing their rows into the online store.
//!
//! Scoring whole tables is not here yet.

pub mod push;
pub mod read;

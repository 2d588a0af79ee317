//! Work on whole tables of customers.
//!
//! * [`read`] – CSV and Parquet files as Arrow record batches.
//! * [`push`] – writing their rows into the online store.
//! * [`event_file`] – files of events; [`event_table`] says which column is what, [`resume`] remembers how
//!   far a file was loaded.
//! * [`destination`] – where events of files go.
//! * [`times`] – columns of times.
//! * [`score`] – scoring whole tables.

pub mod destination;
pub mod event_file;
pub mod event_table;
pub mod push;
pub mod read;
pub mod resume;
pub mod score;
pub mod times;

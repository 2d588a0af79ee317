//! Work on whole tables of customers.
//!
//! * [`read`] – CSV and Parquet files as Arrow record batches.
//! * [`push`] – writing their rows into the online store; [`push_remote`] – into that of a running server.
//! * [`event_file`] – files of events; [`event_table`] says which column is what, [`resume`] remembers how
//!   far a file was loaded.
//! * [`destination`] – where events of files go.
//! * [`patience`] – asking a running server again.
//! * [`times`] – columns of times.
//! * [`score`] – scoring whole tables.
//! * [`cluster`] – the same on several machines.

pub mod cluster;
pub mod destination;
pub mod event_file;
pub mod event_table;
pub mod patience;
pub mod push;
pub mod push_remote;
pub mod read;
pub mod resume;
pub mod score;
pub mod times;

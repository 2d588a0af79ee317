//! What commands print: results to standard output, everything else to standard error.
//!
//! A closed pipe (`bellwether … | head`) is not an error.

use std::io::Write;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Prints one line of a result.
pub fn line(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Prints a value as one line of JSON.
///
/// # Errors
/// When it cannot be written as JSON.
pub fn json(value: &impl serde::Serialize) -> Result<(), String> {
    line(serde_json::to_string(value).map_err(|error| error.to_string())?);
    Ok(())
}

/// Prints a remark to standard error.
pub fn note(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Prints the error that ends the command.
pub fn error(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "error: {text}");
}

/// A progress bar on standard error; invisible when that is not a terminal.
pub fn progress(rows: Option<u64>) -> ProgressBar {
    let bar = match rows {
        Some(rows) => ProgressBar::new(rows),
        None => ProgressBar::no_length(),
    };
    bar.set_draw_target(ProgressDrawTarget::stderr());
    let template = if rows.is_some() {
        "{bar:32} {human_pos}/{human_len} rows, {per_sec}, {eta} left"
    } else {
        "{spinner} {human_pos} rows, {per_sec}"
    };
    bar.with_style(
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
    )
}

/// A progress bar over the bytes of a file, for formats that do not say how many rows they have.
pub fn progress_of_bytes(bytes: u64) -> ProgressBar {
    let bar = ProgressBar::new(bytes);
    bar.set_draw_target(ProgressDrawTarget::stderr());
    let template = "{bar:32} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left";
    bar.with_style(
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
    )
}

/// A sign of life on standard error for something that is sent and then worked on: how much has been
/// sent, and for how long it has been going on.
pub fn progress_of_upload(bytes: u64, what: String) -> ProgressBar {
    let bar = ProgressBar::new(bytes);
    bar.set_draw_target(ProgressDrawTarget::stderr());
    let template = "{spinner} {msg}: {bytes} of {total_bytes} sent, {elapsed}";
    let bar = bar.with_style(
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner()),
    );
    bar.set_message(what);
    bar.enable_steady_tick(std::time::Duration::from_millis(120));
    bar
}

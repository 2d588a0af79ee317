//! The names of the columns of text files.

use serde_json::{Map, Value as Json};

use super::split::Piece;

/// The names in the header of a CSV file.
///
/// # Errors
/// When it is not CSV.
pub fn read_header(bytes: &[u8]) -> Result<Vec<String>, String> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .from_reader(bytes);
    let mut record = csv::StringRecord::new();
    reader
        .read_record(&mut record)
        .map_err(|error| format!("the header is not to be read: {error}"))?;
    Ok(record.iter().map(|name| name.trim().to_owned()).collect())
}

/// The names of the members of some lines, in the order in which they come first.
pub fn member_names(lines: Option<Piece>) -> Vec<String> {
    let bytes = lines.map(|piece| piece.bytes).unwrap_or_default();
    let mut names: Vec<String> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        // What is no object is told as a bad row when it is read.
        let members: Map<String, Json> = serde_json::from_slice(line).unwrap_or_default();
        for (name, _) in members {
            if seen.insert(name.clone()) {
                names.push(name);
            }
        }
    }
    names
}

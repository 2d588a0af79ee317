//! The files of a version as they come over the network, on their way to the disk.
//!
//! A piece that has come is written before the next but a few are read: what is held of an upload is a
//! handful of pieces, whatever its size.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};

use axum::body::Bytes;
use axum::http::StatusCode;
use tokio::sync::mpsc::Receiver;

use crate::features::value::shorten;
use crate::models::bundles::Incoming;
use crate::models::version::{FILE_NAMES, Files};
use crate::serve::http::error::ApiError;
use crate::serve::http::multipart::{Event, Parser};

/// The longest value of a field that is no file, in bytes: a reason of a thousand characters fits.
const MAX_FIELD_BYTES: usize = 4096;

/// The fields that are no files.
const FIELDS: [&str; 2] = ["promote", "reason"];

/// What came.
pub struct Received {
    pub incoming: Incoming,
    /// The fields `promote` and `reason`, as text, where they came in the body.
    pub promote: Option<String>,
    pub reason: Option<String>,
}

/// Writes what comes until the body is over. Blocks.
///
/// # Errors
/// What is wrong with the body; nothing is left on the disk then.
pub fn write(
    parser: Parser,
    incoming: Incoming,
    mut pieces: Receiver<Bytes>,
) -> Result<Received, ApiError> {
    let mut receiving = Receiving {
        parser,
        incoming,
        part: None,
        fields: BTreeMap::new(),
        is_over: false,
    };
    while let Some(piece) = pieces.blocking_recv() {
        receiving.take(&piece)?;
    }
    receiving.finish()
}

struct Receiving {
    parser: Parser,
    incoming: Incoming,
    part: Option<Part>,
    /// The fields that are no files, by their names.
    fields: BTreeMap<&'static str, Vec<u8>>,
    is_over: bool,
}

/// What the bytes that come belong to.
enum Part {
    /// The file that is being written.
    File {
        name: &'static str,
        file: BufWriter<File>,
        bytes: u64,
    },
    Field(&'static str),
}

impl Receiving {
    fn take(&mut self, piece: &[u8]) -> Result<(), ApiError> {
        self.parser.push(piece);
        while !self.is_over {
            match self.parser.read().map_err(ApiError::bad_request)? {
                None => return Ok(()),
                Some(Event::Part { name, file_name }) => {
                    self.close()?;
                    self.part = Some(self.begin(&name, file_name.as_deref())?);
                }
                Some(Event::Data(data)) => self.append(&data)?,
                Some(Event::End) => {
                    self.close()?;
                    self.is_over = true;
                }
            }
        }
        Ok(())
    }

    fn begin(&mut self, name: &str, file_name: Option<&str>) -> Result<Part, ApiError> {
        if let Some(field) = FIELDS.into_iter().find(|field| *field == name) {
            return match self.fields.insert(field, Vec::new()) {
                None => Ok(Part::Field(field)),
                Some(_) => Err(twice(field)),
            };
        }
        let Some(name) = file_of(name, file_name) else {
            let found = match file_name {
                Some(file) => format!(
                    "{:?} of the file {:?}",
                    shorten(name, 64),
                    shorten(file, 64)
                ),
                None => format!("{:?}", shorten(name, 64)),
            };
            return Err(ApiError::unprocessable(format!(
                "body: part {found}: a part, or the file it is read from, has to be called {}; beside \
                 these there may be {}",
                FILE_NAMES.join(", "),
                FIELDS.join(", ")
            )));
        };
        let created = self.incoming.create_file(name);
        let file = created.map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => twice(name),
            _ => not_written(&error),
        })?;
        Ok(Part::File {
            name,
            file: BufWriter::new(file),
            bytes: 0,
        })
    }

    fn append(&mut self, data: &[u8]) -> Result<(), ApiError> {
        match &mut self.part {
            None => Ok(()),
            Some(Part::File { name, file, bytes }) => {
                *bytes += data.len() as u64;
                let limit = Files::limit_of(name);
                if *bytes > limit {
                    return Err(too_long(name, limit));
                }
                file.write_all(data).map_err(|error| not_written(&error))
            }
            Some(Part::Field(field)) => {
                let value = self.fields.entry(field).or_default();
                value.extend_from_slice(data);
                match value.len() > MAX_FIELD_BYTES {
                    true => Err(too_long(field, MAX_FIELD_BYTES as u64)),
                    false => Ok(()),
                }
            }
        }
    }

    fn close(&mut self) -> Result<(), ApiError> {
        match self.part.take() {
            Some(Part::File { mut file, .. }) => file.flush().map_err(|error| not_written(&error)),
            Some(Part::Field(_)) | None => Ok(()),
        }
    }

    fn finish(mut self) -> Result<Received, ApiError> {
        if !self.is_over {
            return Err(ApiError::bad_request(self.parser.cut_off()));
        }
        if !self.incoming.folder().join(FILE_NAMES[0]).exists() {
            return Err(ApiError::unprocessable(format!(
                "body: the part {} is missing; the parts are {}, of which the others may be left out",
                FILE_NAMES[0],
                FILE_NAMES.join(", ")
            )));
        }
        Ok(Received {
            promote: self.field(FIELDS[0])?,
            reason: self.field(FIELDS[1])?,
            incoming: self.incoming,
        })
    }

    /// The text of a field, if it came.
    fn field(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        let value = self.fields.remove(name);
        let text = value.map(String::from_utf8).transpose();
        text.map_err(|_| ApiError::unprocessable(format!("body: part {name}: it is not UTF-8")))
    }
}

/// The file of a version that a part is: the one that it is named by, or else the one that it was read
/// from, which HTTP libraries tell by themselves.
fn file_of(name: &str, file_name: Option<&str>) -> Option<&'static str> {
    let read_from = file_name.and_then(|path| path.rsplit(['/', '\\']).next());
    let called = |wanted: Option<&str>| {
        let mut names = FILE_NAMES.into_iter();
        names.find(|file| Some(*file) == wanted)
    };
    called(Some(name)).or_else(|| called(read_from))
}

fn twice(name: &str) -> ApiError {
    ApiError::unprocessable(format!("body: the part {name} is there twice"))
}

fn too_long(name: &str, limit: u64) -> ApiError {
    ApiError::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        format!("body: part {name}: it is over {limit} bytes"),
    )
}

fn not_written(error: &std::io::Error) -> ApiError {
    ApiError::unavailable(
        format!("the files cannot be written to the model folder: {error}"),
        30,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_the_file_it_is_named_by_or_was_read_from() {
        for (name, file_name, expected) in [
            ("model.onnx", None, Some("model.onnx")),
            ("model.onnx", Some("churn-v2.onnx"), Some("model.onnx")),
            ("golden.json", Some("model.onnx"), Some("golden.json")),
            ("file", Some("model.toml"), Some("model.toml")),
            (
                "files[]",
                Some("C:\\build\\golden.json"),
                Some("golden.json"),
            ),
            ("file", Some("build/model.onnx"), Some("model.onnx")),
            ("file", Some("model.onnx/"), None),
            ("model", Some("churn.onnx"), None),
            ("file", None, None),
        ] {
            assert_eq!(file_of(name, file_name), expected, "{name} {file_name:?}");
        }
    }
}

//! The files of a version as they come over the network, on their way to the disk.
//!
//! A piece that has come is written before the next but a few are read: what is held of an upload is a
//! handful of pieces, whatever its size.

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

/// Writes what comes until the body is over. Blocks.
///
/// # Errors
/// What is wrong with the body; nothing is left on the disk then.
pub fn write(
    parser: Parser,
    incoming: Incoming,
    mut pieces: Receiver<Bytes>,
) -> Result<Incoming, ApiError> {
    let mut receiving = Receiving {
        parser,
        incoming,
        part: None,
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
    is_over: bool,
}

/// The file that is being written.
struct Part {
    name: String,
    file: BufWriter<File>,
    bytes: u64,
}

impl Receiving {
    fn take(&mut self, piece: &[u8]) -> Result<(), ApiError> {
        self.parser.push(piece);
        while !self.is_over {
            match self.parser.read().map_err(ApiError::bad_request)? {
                None => return Ok(()),
                Some(Event::Part(name)) => {
                    self.close()?;
                    self.part = Some(self.begin(name)?);
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

    fn begin(&self, name: String) -> Result<Part, ApiError> {
        if !FILE_NAMES.contains(&name.as_str()) {
            return Err(ApiError::unprocessable(format!(
                "body: part {:?}: the parts of a version are {}",
                shorten(&name, 64),
                FILE_NAMES.join(", ")
            )));
        }
        let created = self.incoming.create_file(&name);
        let file = created.map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => {
                ApiError::unprocessable(format!("body: the part {name} is there twice"))
            }
            _ => not_written(&error),
        })?;
        Ok(Part {
            name,
            file: BufWriter::new(file),
            bytes: 0,
        })
    }

    fn append(&mut self, data: &[u8]) -> Result<(), ApiError> {
        let Some(part) = &mut self.part else {
            return Ok(());
        };
        part.bytes += data.len() as u64;
        let limit = Files::limit_of(&part.name);
        if part.bytes > limit {
            return Err(ApiError::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("body: part {}: it is over {limit} bytes", part.name),
            ));
        }
        part.file
            .write_all(data)
            .map_err(|error| not_written(&error))
    }

    fn close(&mut self) -> Result<(), ApiError> {
        let Some(mut part) = self.part.take() else {
            return Ok(());
        };
        part.file.flush().map_err(|error| not_written(&error))
    }

    fn finish(self) -> Result<Incoming, ApiError> {
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
        Ok(self.incoming)
    }
}

fn not_written(error: &std::io::Error) -> ApiError {
    ApiError::unavailable(
        format!("the files cannot be written to the model folder: {error}"),
        30,
    )
}

//! The messages of an Arrow stream that comes in pieces.
//!
//! What a message says of itself is checked before the decoder sees it, as for events: the decoder trusts it,
//! and stops the thread where it lies.

use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow::buffer::Buffer;
use arrow::ipc::reader::StreamDecoder;
use arrow::record_batch::RecordBatch;
use axum::http::StatusCode;

use super::super::error::ApiError;
use crate::ingest::documents::BodyError;
use crate::ingest::event::stream::{MessageCheck, body_length, damaged};

/// The most rows of an Arrow batch: columns of nulls have them for nothing.
const MAX_BATCH_ROWS: usize = 10_000_000;

/// The messages of an Arrow stream.
pub struct Messages {
    max_message: usize,
    most_rows: usize,
    /// What has come and was not taken.
    pub buffer: Vec<u8>,
    /// The length of the message that `buffer` begins with, when that is known.
    length: Option<usize>,
    check: MessageCheck,
    decoder: StreamDecoder,
    /// A batch of which rows are left.
    table: Option<RecordBatch>,
    has_ended: bool,
}

impl Messages {
    /// None yet; each is to have at most `max_message` bytes, and `most_rows` are given at a time.
    pub fn new(max_message: usize, most_rows: usize) -> Messages {
        Messages {
            max_message,
            most_rows,
            buffer: Vec::new(),
            length: None,
            check: MessageCheck::new(MAX_BATCH_ROWS, "row"),
            decoder: StreamDecoder::new(),
            table: None,
            has_ended: false,
        }
    }

    /// The next rows; none when more bytes have to come first.
    ///
    /// # Errors
    /// When this is no Arrow stream, breaks off, or has a message that is too large.
    pub fn next(&mut self, is_over: bool) -> Result<Option<RecordBatch>, ApiError> {
        loop {
            if let Some(table) = self.table.take().filter(|table| table.num_rows() > 0) {
                let rows = table.num_rows().min(self.most_rows);
                let rest = table.slice(rows, table.num_rows() - rows);
                self.table = Some(rest);
                return Ok(Some(table.slice(0, rows)));
            }
            let Some(message) = self.message(is_over)? else {
                return Ok(None);
            };
            // Should the decoder find something to stop at all the same, then it is this body that
            // fails, and nothing else: the decoder is not asked again.
            let decoded = catch_unwind(AssertUnwindSafe(|| self.decode(message)));
            self.table = decoded.unwrap_or_else(|_| {
                Err(ApiError::from(damaged(
                    "its messages contradict each other",
                )))
            })?;
        }
    }

    fn decode(&mut self, message: Vec<u8>) -> Result<Option<RecordBatch>, ApiError> {
        let mut bytes = Buffer::from_vec(message);
        while !bytes.is_empty() {
            let rows = self.decoder.decode(&mut bytes);
            let rows = rows.map_err(|error| ApiError::from(damaged(&error.to_string())))?;
            if rows.is_some() {
                return Ok(rows);
            }
        }
        Ok(None)
    }

    /// The next whole message, which has been looked at.
    fn message(&mut self, is_over: bool) -> Result<Option<Vec<u8>>, ApiError> {
        let ends_within = || ApiError::from(damaged("it ends within a message"));
        if self.has_ended && !self.buffer.is_empty() {
            return Err(ApiError::from(damaged("there is more behind its end")));
        }
        if self.buffer.is_empty() {
            let is_nothing = is_over && !self.has_ended && self.decoder.schema().is_none();
            return match is_nothing {
                true => Err(ApiError::from(damaged("it has no messages"))),
                false => Ok(None),
            };
        }
        // Since version 0.15 of the format every message begins with four bytes of ones.
        let Some((prefix, size)) = self.metadata() else {
            return if is_over {
                Err(ends_within())
            } else {
                Ok(None)
            };
        };
        if size == 0 {
            self.has_ended = true;
            self.buffer.drain(..prefix);
            return self.message(is_over);
        }
        let metadata_end = prefix.saturating_add(size);
        if metadata_end > self.max_message && self.decoder.schema().is_none() {
            let problem = damaged("it begins with something else");
            return Err(ApiError::from(problem));
        }
        self.refuse_large(metadata_end)?;
        if self.length.is_none()
            && let Some(metadata) = self.buffer.get(prefix..metadata_end)
        {
            let length = metadata_end.saturating_add(body_length(metadata)?);
            self.refuse_large(length)?;
            self.length = Some(length);
        }
        let length = self.length.filter(|length| self.buffer.len() >= *length);
        let Some(length) = length else {
            return if is_over {
                Err(ends_within())
            } else {
                Ok(None)
            };
        };
        let looked_at = self.check.message(&self.buffer[prefix..metadata_end]);
        looked_at.map_err(|error| match error {
            BodyError::TooMany { limit, .. } => ApiError::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("body: an Arrow batch has more than {limit} rows; send smaller ones"),
            ),
            other => other.into(),
        })?;
        self.refuse_large(self.check.dictionary_bytes())?;
        self.length = None;
        let rest = self.buffer.split_off(length);
        Ok(Some(std::mem::replace(&mut self.buffer, rest)))
    }

    /// Where the metadata of the message begins, and how long it is.
    fn metadata(&self) -> Option<(usize, usize)> {
        let number = |at: usize| {
            let bytes = self.buffer.get(at..at + 4)?;
            Some(u32::from_le_bytes(bytes.try_into().ok()?))
        };
        match number(0)? {
            u32::MAX => Some((8, number(4)? as usize)),
            size => Some((4, size as usize)),
        }
    }

    fn refuse_large(&self, bytes: usize) -> Result<(), ApiError> {
        if bytes <= self.max_message {
            return Ok(());
        }
        Err(ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!(
                "body: a batch or the dictionaries of the Arrow stream are over the limit of {} bytes \
                 (score_batch.max_arrow_bytes); send batches of fewer rows",
                self.max_message
            ),
        ))
    }
}

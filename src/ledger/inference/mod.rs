//! Inference requests as rows: their bytes are written straight from the tensors.
//!
//! One request is one [`record::Inference`](super::record::Inference), but building that struct
//! would cost more than some models: a dozen allocations and every name copied as a `String`. So the
//! bytes are written here, field by field in the order of the struct, into one buffer that already
//! has room for the frame's header; the writer fills the header in and copies the frame once. That
//! the bytes are those of the struct is what the tests below prove.
//!
//! What does not change between requests of a model version is encoded once, when it is loaded: that
//! is the [`InferenceTemplate`].
//!
//! A row holds the data of its tensors up to a bound. Beyond it only names, types and shapes are
//! kept: a request for one customer is the record of a decision and is logged whole; a bulk request
//! is a batch job, which has its data, and a second copy of it would fill the disk that the first
//! kind needs. It is all or nothing, so that a row with data can always be replayed.

use std::sync::atomic::{AtomicUsize, Ordering};

use onnx_ml::{Data, Tensor};
use prost::Message;
use prost::encoding::{encode_varint, encoded_len_varint};
use uuid::Uuid;

use super::error::AppendError;
use super::frame::{FRAME_HEADER_BYTES, FrameKind, MAX_PAYLOAD_BYTES, begin_frame, set_length};
use super::record::{Inference, MAX_REQUEST_ID_BYTES};
use crate::models::binary;

/// First bytes of fields, number and wire type: `number << 3 | type`, 0 for integers, 2 for
/// everything behind a length.
const PREDICTION_ID: u8 = 1 << 3 | 2;
const AT: u8 = 2 << 3;
const REQUEST_ID: u8 = 6 << 3 | 2;
const ROWS: u8 = 7 << 3;
const INPUTS: u8 = 8 << 3 | 2;
const OUTPUTS: u8 = 9 << 3 | 2;
const TENSOR_NAME: u8 = 1 << 3 | 2;
const TENSOR_TYPE: u8 = 2 << 3;
const TENSOR_SHAPE: u8 = 3 << 3 | 2;
const TENSOR_DATA: u8 = 4 << 3 | 2;

/// Room for a row of which nothing is known yet; enough for thirty features.
const FIRST_GUESS_BYTES: usize = 384;
/// Rows that are larger do not change what is taken for usual.
const USUAL_AT_MOST_BYTES: usize = 4096;
/// No bound on logged tensors is higher: with names and shapes the row must stay below
/// [`MAX_PAYLOAD_BYTES`].
const MOST_LOGGED_BYTES: usize = MAX_PAYLOAD_BYTES / 2;

/// What all inferences of one model version have in common, encoded. Made when the version is
/// loaded.
#[derive(Debug)]
pub struct InferenceTemplate {
    /// The fields `model`, `version` and `digest`.
    model_fields: Vec<u8>,
    /// How long rows of this version have been, so that the next one is allocated once. Threads
    /// share it without harm: it soon stops changing.
    usual_bytes: AtomicUsize,
}

impl InferenceTemplate {
    /// The template of the model version with this name, version and file digest.
    pub fn new(model: &str, version: &str, digest: &[u8; 32]) -> InferenceTemplate {
        let constant = Inference {
            model: model.to_owned(),
            version: version.to_owned(),
            digest: digest.to_vec().into(),
            ..Inference::default()
        };
        InferenceTemplate {
            model_fields: constant.encode_to_vec(),
            usual_bytes: AtomicUsize::new(FIRST_GUESS_BYTES),
        }
    }
}

/// A row that is ready for [`Ledger::append_inference`](super::Ledger::append_inference).
#[derive(Debug)]
pub struct InferenceRow {
    /// A frame whose header holds kind and length.
    pub(super) frame: Vec<u8>,
}

/// A row that is being written; see [`InferenceRow::begin`].
#[derive(Debug)]
pub struct InferenceBuilder<'a> {
    template: &'a InferenceTemplate,
    frame: Vec<u8>,
    /// Bytes of tensor data that may still be logged; `None` once the bound was exceeded.
    data_left: Option<usize>,
    /// Data of some tensor is in the frame.
    has_data: bool,
    /// It was written before the bound was exceeded and has to go again.
    strip_data: bool,
}

impl InferenceRow {
    /// Begins the row of one request. Inputs follow, then outputs, then
    /// [`finish`](InferenceBuilder::finish).
    ///
    /// `request_id` is the caller's own and is cut at [`MAX_REQUEST_ID_BYTES`];
    /// `max_tensor_bytes` is the bound over which the data of all tensors is left out.
    pub fn begin<'a>(
        template: &'a InferenceTemplate,
        prediction_id: Uuid,
        at_us: i64,
        request_id: Option<&str>,
        rows: u64,
        max_tensor_bytes: usize,
    ) -> InferenceBuilder<'a> {
        let usual_bytes = template.usual_bytes.load(Ordering::Relaxed);
        let mut frame = begin_frame(FrameKind::Inference, usual_bytes);
        put_bytes(&mut frame, PREDICTION_ID, prediction_id.as_bytes());
        // Fields that hold zero are left out, as the format has it.
        if at_us != 0 {
            put_number(&mut frame, AT, at_us as u64);
        }
        frame.extend_from_slice(&template.model_fields);
        if let Some(request_id) = request_id {
            let kept = request_id.floor_char_boundary(MAX_REQUEST_ID_BYTES);
            put_bytes(&mut frame, REQUEST_ID, &request_id.as_bytes()[..kept]);
        }
        if rows != 0 {
            put_number(&mut frame, ROWS, rows);
        }
        InferenceBuilder {
            template,
            frame,
            data_left: Some(max_tensor_bytes.min(MOST_LOGGED_BYTES)),
            has_data: false,
            strip_data: false,
        }
    }
}

impl InferenceBuilder<'_> {
    /// Adds a tensor that went into the graph. Inputs come before outputs.
    pub fn input(&mut self, name: &str, tensor: &Tensor) {
        self.put_tensor(INPUTS, name, tensor);
    }

    /// Adds a tensor that came out of it.
    pub fn output(&mut self, name: &str, tensor: &Tensor) {
        self.put_tensor(OUTPUTS, name, tensor);
    }

    /// The finished row.
    ///
    /// # Errors
    /// [`AppendError::TooLarge`] when it does not fit into one record, which takes hundreds of
    /// thousands of tensors.
    pub fn finish(mut self) -> Result<InferenceRow, AppendError> {
        if self.strip_data {
            self.frame = without_data(&self.frame)?;
        }
        set_length(&mut self.frame).map_err(|bytes| AppendError::TooLarge {
            bytes,
            limit: MAX_PAYLOAD_BYTES,
        })?;
        let payload_bytes = self.frame.len() - FRAME_HEADER_BYTES;
        let usual = &self.template.usual_bytes;
        if payload_bytes > usual.load(Ordering::Relaxed) && payload_bytes <= USUAL_AT_MOST_BYTES {
            usual.store(payload_bytes, Ordering::Relaxed);
        }
        Ok(InferenceRow { frame: self.frame })
    }

    fn put_tensor(&mut self, field: u8, name: &str, tensor: &Tensor) {
        let data_bytes = self.admit_data(tensor.data());
        let shape_bytes: usize = tensor
            .shape()
            .iter()
            .map(|&dimension| encoded_len_varint(dimension as u64))
            .sum();
        // Every number of a type fits into one byte.
        let mut tensor_bytes = 2;
        for part in [
            Some(name.len()).filter(|length| *length > 0),
            Some(shape_bytes).filter(|length| *length > 0),
            data_bytes,
        ] {
            tensor_bytes += part.map_or(0, |length| 1 + encoded_len_varint(length as u64) + length);
        }

        let frame = &mut self.frame;
        put_number(frame, field, tensor_bytes as u64);
        if !name.is_empty() {
            put_bytes(frame, TENSOR_NAME, name.as_bytes());
        }
        put_number(frame, TENSOR_TYPE, tensor.data_type() as u64);
        if shape_bytes > 0 {
            put_number(frame, TENSOR_SHAPE, shape_bytes as u64);
            for &dimension in tensor.shape() {
                encode_varint(dimension as u64, frame);
            }
        }
        if let Some(data_bytes) = data_bytes {
            put_number(frame, TENSOR_DATA, data_bytes as u64);
            let written = binary::write(tensor.data(), frame);
            debug_assert_eq!(written, Ok(data_bytes));
        }
    }

    /// Takes the bytes of `data` off what may be logged and returns them; `None` when this row keeps
    /// no data.
    fn admit_data(&mut self, data: &Data) -> Option<usize> {
        let left = self.data_left?;
        let bytes = bytes_up_to(data, left);
        self.data_left = bytes.map(|bytes| left - bytes);
        match bytes {
            Some(_) => self.has_data = true,
            None => self.strip_data = self.has_data,
        }
        bytes
    }
}

/// How many bytes [`binary::write`] makes of `data`; `None` when more than `limit`. Of long lists of
/// texts it looks at no more than decides.
fn bytes_up_to(data: &Data, limit: usize) -> Option<usize> {
    let bytes = match data {
        Data::String(texts) => {
            let lengths = texts.len().checked_mul(size_of::<u32>())?;
            let fits = |bytes: &usize| *bytes <= limit;
            texts
                .iter()
                .try_fold(Some(lengths).filter(fits)?, |bytes, text| {
                    Some(bytes + text.len()).filter(fits)
                })?
        }
        numbers => numbers.len().checked_mul(numbers.data_type().size())?,
    };
    (bytes <= limit).then_some(bytes)
}

/// The same frame without the data of its tensors. Only for requests that turn out to be over the
/// bound after some of their tensors fitted; bounded by it.
fn without_data(frame: &[u8]) -> Result<Vec<u8>, AppendError> {
    let payload = frame.get(FRAME_HEADER_BYTES..).unwrap_or_default();
    let mut record = Inference::decode(payload).map_err(|error| AppendError::Invalid {
        field: "inference",
        detail: error.to_string(),
    })?;
    for tensor in record.inputs.iter_mut().chain(&mut record.outputs) {
        tensor.data = None;
    }
    let mut stripped = begin_frame(FrameKind::Inference, record.encoded_len());
    // A Vec grows, so there is always room.
    let encoded = record.encode(&mut stripped);
    debug_assert!(encoded.is_ok());
    Ok(stripped)
}

fn put_number(bytes: &mut Vec<u8>, field: u8, number: u64) {
    bytes.push(field);
    encode_varint(number, bytes);
}

fn put_bytes(bytes: &mut Vec<u8>, field: u8, value: &[u8]) {
    put_number(bytes, field, value.len() as u64);
    bytes.extend_from_slice(value);
}

#[cfg(test)]
mod tests;

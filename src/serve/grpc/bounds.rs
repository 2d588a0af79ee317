//! What a message may make the server keep in memory, checked before it is decoded.
//!
//! Protocol buffers pack small things tightly: two bytes on the wire are an empty tensor of some
//! hundred bytes once decoded. So a request of the allowed size could fill the memory many times
//! over. Raw tensors do not grow: they stay the bytes they are.

use prost::DecodeError;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use tonic::Status;

/// How many tensors, outputs and parameters one request may have in all.
const MAX_PARTS: usize = 16_384;

// Of `ModelInferRequest`, and of the two messages in it that hold parameters.
const PARAMETERS: u32 = 4;
const INPUTS: u32 = 5;
const OUTPUTS: u32 = 6;
const RAW_INPUT_CONTENTS: u32 = 7;
const INPUT_PARAMETERS: u32 = 4;
const OUTPUT_PARAMETERS: u32 = 2;

/// Checks a `ModelInferRequest`: its parts are counted, and all of it but the raw tensors may have
/// `max_bytes`.
///
/// # Errors
/// RESOURCE_EXHAUSTED over a bound, INVALID_ARGUMENT for bytes that are no message.
pub fn check_infer_request(message: &[u8], max_bytes: usize) -> Result<(), Status> {
    let mut parts = 0;
    let mut raw_bytes = 0;
    each_field(message, |field, content| {
        parts += 1;
        match field {
            RAW_INPUT_CONTENTS => raw_bytes += content.len(),
            INPUTS => parts += count_fields(content, INPUT_PARAMETERS)?,
            OUTPUTS => parts += count_fields(content, OUTPUT_PARAMETERS)?,
            PARAMETERS => {}
            // Names and what is unknown: one of each is kept at most.
            _ => parts -= 1,
        }
        Ok(())
    })
    .map_err(|error| Status::invalid_argument(format!("message: cannot be decoded: {error}")))?;
    if parts > MAX_PARTS {
        return Err(Status::resource_exhausted(format!(
            "message: {parts} tensors, outputs and parameters, at most {MAX_PARTS} are allowed"
        )));
    }
    let other_bytes = message.len() - raw_bytes;
    if other_bytes > max_bytes {
        return Err(Status::resource_exhausted(format!(
            "message: {other_bytes} bytes besides raw_input_contents, at most {max_bytes} are \
             allowed (max_body_bytes); tensors sent raw do not count"
        )));
    }
    Ok(())
}

fn count_fields(message: &[u8], wanted: u32) -> Result<usize, DecodeError> {
    let mut count = 0;
    each_field(message, |field, _| {
        count += usize::from(field == wanted);
        Ok(())
    })?;
    Ok(count)
}

/// Calls `visit` with number and content of every field that has a length; skips the others.
fn each_field(
    mut rest: &[u8],
    mut visit: impl FnMut(u32, &[u8]) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    while !rest.is_empty() {
        let (field, wire_type) = decode_key(&mut rest)?;
        if wire_type != WireType::LengthDelimited {
            skip_field(wire_type, field, &mut rest, DecodeContext::default())?;
            continue;
        }
        let length = decode_varint(&mut rest)?;
        // A length that does not fit cannot be in `rest` either.
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let Some((content, behind)) = rest.split_at_checked(length) else {
            // The error that prost gives where a field is longer than what is left.
            return skip_field(
                wire_type,
                field,
                &mut &b"\x01"[..],
                DecodeContext::default(),
            );
        };
        visit(field, content)?;
        rest = behind;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use prost::Message;
    use prost::bytes::Bytes;
    use tonic::Code;

    use super::super::messages::{
        Contents, InputTensor, ModelInferRequest, Parameter, RequestedOutput,
    };
    use super::*;

    fn code(request: &ModelInferRequest, max_bytes: usize) -> Option<Code> {
        let checked = check_infer_request(&request.encode_to_vec(), max_bytes);
        checked.err().map(|status| status.code())
    }

    #[test]
    fn raw_tensors_do_not_count_and_everything_else_does() {
        let mut request = ModelInferRequest {
            model_name: "churn".to_owned(),
            raw_input_contents: vec![Bytes::from(vec![0; 100_000])],
            ..Default::default()
        };
        assert_eq!(code(&request, 100), None);
        request.inputs.push(InputTensor {
            contents: Some(Contents {
                fp64_contents: vec![0.5; 100],
                ..Default::default()
            }),
            ..Default::default()
        });
        assert_eq!(code(&request, 100), Some(Code::ResourceExhausted));
        assert_eq!(code(&request, 1000), None);
    }

    #[test]
    fn small_parts_are_counted_wherever_they_are() {
        let parameters: BTreeMap<String, Parameter> = (0..5_000)
            .map(|number| (number.to_string(), Parameter::default()))
            .collect();
        let input = InputTensor {
            parameters: parameters.clone(),
            ..Default::default()
        };
        let output = RequestedOutput {
            parameters: parameters.clone(),
            ..Default::default()
        };
        let mut request = ModelInferRequest {
            parameters,
            inputs: vec![input],
            outputs: vec![output],
            ..Default::default()
        };
        assert_eq!(code(&request, usize::MAX), None);
        request.raw_input_contents = vec![Bytes::new(); 2_000];
        assert_eq!(code(&request, usize::MAX), Some(Code::ResourceExhausted));
    }

    #[test]
    fn what_is_cut_short_anywhere_is_refused_or_a_message_itself() {
        let request = ModelInferRequest {
            model_name: "churn".to_owned(),
            inputs: vec![InputTensor::default(); 3],
            raw_input_contents: vec![Bytes::from_static(b"12345678"); 3],
            ..Default::default()
        };
        let whole = request.encode_to_vec();
        for length in 0..whole.len() {
            let part = Bytes::copy_from_slice(&whole[..length]);
            let checked = check_infer_request(&part, usize::MAX).is_ok();
            assert_eq!(checked, ModelInferRequest::decode(part).is_ok());
        }
        let endless = [
            0x3a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1,
        ];
        assert!(check_infer_request(&endless, usize::MAX).is_err());
    }
}

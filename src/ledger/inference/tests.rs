//! That the bytes written by hand are those of the record, and what is left out of large requests.

use onnx_ml::{CompactString, DataType, f16};
use proptest::prelude::*;

use super::super::record::InferenceTensor;
use super::*;

const DIGEST: [u8; 32] = [9; 32];

fn template() -> InferenceTemplate {
    InferenceTemplate::new("gbdt", "3", &DIGEST)
}

/// The record of a tensor, made the obvious way.
fn tensor_record(name: &str, tensor: &Tensor) -> InferenceTensor {
    let mut data = Vec::new();
    binary::write(tensor.data(), &mut data).unwrap();
    InferenceTensor {
        name: name.to_owned(),
        data_type: tensor.data_type() as i32,
        shape: tensor.shape().iter().map(|dim| *dim as u64).collect(),
        data: Some(data.into()),
    }
}

/// Writes a row and returns its payload as written and as decoded.
fn written(
    template: &InferenceTemplate,
    request_id: Option<&str>,
    rows: u64,
    inputs: &[(&str, &Tensor)],
    outputs: &[(&str, &Tensor)],
    max_tensor_bytes: usize,
) -> (Vec<u8>, Inference) {
    let id = Uuid::from_bytes([7; 16]);
    let at_us = 1_700_000_000_000_000;
    let mut row = InferenceRow::begin(template, id, at_us, request_id, rows, max_tensor_bytes);
    for (name, tensor) in inputs {
        row.input(name, tensor);
    }
    for (name, tensor) in outputs {
        row.output(name, tensor);
    }
    let frame = row.finish().unwrap().frame;
    let payload = frame[FRAME_HEADER_BYTES..].to_vec();
    let length = u32::from_le_bytes(frame[4..8].try_into().unwrap());
    assert_eq!(length as usize, payload.len());
    let record = Inference::decode(payload.as_slice()).unwrap();
    (payload, record)
}

#[test]
fn the_row_of_a_usual_request_is_the_record_byte_for_byte_and_short() {
    // Given one row of thirty floats in, a label and two probabilities out
    let input = Tensor::new(&[1, 30], vec![0.25_f32; 30]).unwrap();
    let label = Tensor::vector(vec![1_i64]);
    let probabilities = Tensor::new(&[1, 2], vec![0.25_f32, 0.75]).unwrap();
    let outputs = [("label", &label), ("probabilities", &probabilities)];
    // When it is written
    let template = template();
    let inputs = [("input", &input)];
    let (payload, record) = written(&template, Some("r-17"), 1, &inputs, &outputs, 16 * 1024);
    // Then it is what the record would be, and a row takes less than 300 bytes on disk
    let expected = Inference {
        prediction_id: vec![7; 16].into(),
        at_us: 1_700_000_000_000_000,
        model: "gbdt".to_owned(),
        version: "3".to_owned(),
        digest: DIGEST.to_vec().into(),
        request_id: Some("r-17".to_owned()),
        rows: 1,
        inputs: vec![tensor_record("input", &input)],
        outputs: outputs
            .map(|(name, tensor)| tensor_record(name, tensor))
            .to_vec(),
    };
    assert_eq!(record, expected);
    assert_eq!(payload, expected.encode_to_vec());
    let bytes = FRAME_HEADER_BYTES + payload.len();
    assert!(bytes < 300, "{bytes} bytes");
}

#[test]
fn over_the_bound_all_data_is_left_out_and_the_shapes_stay() {
    let template = template();
    let small = Tensor::vector(vec![1.0_f32; 10]);
    let texts = Tensor::vector(vec![CompactString::from("twelve bytes"); 100]);
    for (inputs, outputs) in [
        (vec![("a", &texts)], vec![("b", &small)]),
        (vec![("a", &small)], vec![("b", &texts)]),
        (vec![("a", &small), ("a2", &small)], vec![("b", &small)]),
    ] {
        // Given a request whose tensors exceed the bound, at once or only with the last of them
        let exact: usize = inputs
            .iter()
            .chain(&outputs)
            .map(|(_, tensor)| bytes_up_to(tensor.data(), usize::MAX).unwrap())
            .sum();
        let (_, whole) = written(&template, None, 10, &inputs, &outputs, exact);
        let (payload, cut) = written(&template, None, 10, &inputs, &outputs, exact - 1);
        // Then at the bound everything is there, and one byte over it no data but all the rest
        let mut expected = whole.clone();
        for tensor in expected.inputs.iter_mut().chain(&mut expected.outputs) {
            assert!(tensor.data.take().is_some());
        }
        assert_eq!(cut, expected);
        assert_eq!(payload, expected.encode_to_vec());
    }
}

#[test]
fn a_long_request_id_is_cut_between_characters() {
    let long = format!("{}äöü", "x".repeat(MAX_REQUEST_ID_BYTES - 1));
    let (_, record) = written(&template(), Some(&long), 0, &[], &[], 100);
    assert_eq!(
        record.request_id,
        Some("x".repeat(MAX_REQUEST_ID_BYTES - 1))
    );
    let (_, record) = written(&template(), Some(""), 0, &[], &[], 100);
    assert_eq!(record.request_id, Some(String::new()));
}

/// Any tensor of up to five elements; the bytes decide its values.
fn any_tensor() -> impl Strategy<Value = Tensor> {
    let parts = (
        0..DataType::ALL.len(),
        prop::collection::vec(0_usize..3, 0..4),
        prop::collection::vec(any::<u64>(), 8),
        prop::collection::vec(".{0,9}", 8),
    );
    parts.prop_map(|(data_type, shape, bits, texts)| {
        let count: usize = shape.iter().product();
        let pick = |position: usize| bits[position % bits.len()];
        let data = match DataType::ALL[data_type] {
            DataType::Bool => Data::Bool((0..count).map(|i| pick(i) % 2 == 1).collect()),
            DataType::U8 => Data::U8((0..count).map(|i| pick(i) as u8).collect()),
            DataType::U16 => Data::U16((0..count).map(|i| pick(i) as u16).collect()),
            DataType::U32 => Data::U32((0..count).map(|i| pick(i) as u32).collect()),
            DataType::U64 => Data::U64((0..count).map(pick).collect()),
            DataType::I8 => Data::I8((0..count).map(|i| pick(i) as i8).collect()),
            DataType::I16 => Data::I16((0..count).map(|i| pick(i) as i16).collect()),
            DataType::I32 => Data::I32((0..count).map(|i| pick(i) as i32).collect()),
            DataType::I64 => Data::I64((0..count).map(|i| pick(i) as i64).collect()),
            DataType::F16 => {
                Data::F16((0..count).map(|i| f16::from_bits(pick(i) as u16)).collect())
            }
            DataType::F32 => {
                Data::F32((0..count).map(|i| f32::from_bits(pick(i) as u32)).collect())
            }
            DataType::F64 => Data::F64((0..count).map(|i| f64::from_bits(pick(i))).collect()),
            DataType::String => Data::String(
                (0..count)
                    .map(|i| CompactString::from(texts[i % texts.len()].as_str()))
                    .collect(),
            ),
        };
        Tensor::from_data(&shape, data).unwrap()
    })
}

fn any_tensors() -> impl Strategy<Value = Vec<(String, Tensor)>> {
    prop::collection::vec(("[a-zé]{0,12}", any_tensor()), 0..4)
}

fn borrowed(tensors: &[(String, Tensor)]) -> Vec<(&str, &Tensor)> {
    tensors
        .iter()
        .map(|(name, tensor)| (name.as_str(), tensor))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_request_the_bytes_are_those_of_the_record(
        model in "\\PC{0,20}",
        request_id in prop::option::of(".{0,100}"),
        rows in any::<u64>(),
        inputs in any_tensors(),
        outputs in any_tensors(),
        max_tensor_bytes in 0_usize..400,
    ) {
        // Given any tensors under any bound
        let template = InferenceTemplate::new(&model, "1", &DIGEST);
        let (inputs, outputs) = (borrowed(&inputs), borrowed(&outputs));
        // When the row is written
        let (payload, record) = written(
            &template, request_id.as_deref(), rows, &inputs, &outputs, max_tensor_bytes,
        );
        // Then it is the record, whose data is there exactly when it is within the bound
        let all = |tensors: &[(&str, &Tensor)]| -> Vec<InferenceTensor> {
            tensors.iter().map(|(name, tensor)| tensor_record(name, tensor)).collect()
        };
        let mut expected = Inference {
            prediction_id: vec![7; 16].into(),
            at_us: 1_700_000_000_000_000,
            model,
            version: "1".to_owned(),
            digest: DIGEST.to_vec().into(),
            request_id: request_id.map(|id| id[..id.floor_char_boundary(MAX_REQUEST_ID_BYTES)].to_owned()),
            rows,
            inputs: all(&inputs),
            outputs: all(&outputs),
        };
        let data_bytes: usize = expected.inputs.iter().chain(&expected.outputs)
            .filter_map(|tensor| tensor.data.as_ref().map(|data| data.len()))
            .sum();
        if data_bytes > max_tensor_bytes {
            for tensor in expected.inputs.iter_mut().chain(&mut expected.outputs) {
                tensor.data = None;
            }
        }
        prop_assert_eq!(&record, &expected);
        prop_assert_eq!(payload, expected.encode_to_vec());
    }
}

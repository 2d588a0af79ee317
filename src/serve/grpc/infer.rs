//! ModelInfer: tensors in, tensors out, of a loaded model as it is.
//!
//! The elements of an input are raw bytes in `raw_input_contents`, as
//! [`crate::models::binary`] describes them, or typed in its `contents`. A request may have both
//! kinds of inputs: the raw ones are then those without `contents`, in their order.
//!
//! Outputs are always raw. When the request has typed contents its answer has them as well, besides
//! the raw ones. The protocol's text wants one or the other and leaves the choice to the server, but
//! clients have come to expect different things: Triton's read only the raw ones, whatever the
//! request had; those made for MLServer and KServe read what they sent. None of them minds the
//! other, so that every one of them finds its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use onnx_ml::Tensor;
use prost::bytes::Bytes;

use super::call::Asked;
use super::contents;
use super::messages::{
    Contents, InputTensor, ModelInferRequest, ModelInferResponse, OutputTensor, Parameter,
    ParameterValue, RequestedOutput,
};
use crate::admission::deadline;
use crate::features::value::shorten;
use crate::infer::error::{InferError, Kind};
use crate::infer::inputs::{Declared, Inputs};
use crate::infer::{Call, Inference, Ran, Turn};
use crate::models::version::ModelVersion;
use crate::models::{binary, tensors};
use crate::serve::App;

/// Runs a model on the tensors of a request, which may bring an earlier deadline than its call.
///
/// # Errors
/// What is wrong with the request, by field, or why it cannot be answered now.
pub async fn infer(
    app: &Arc<App>,
    request: ModelInferRequest,
    message_bytes: usize,
    asked: Asked,
) -> Result<ModelInferResponse, InferError> {
    let model = super::describe::find(app, &request.model_name, &request.model_version)?;
    let arrived = Instant::now();
    let timeout = timeout_of(&request)?;
    let longest = deadline::deadline_of(arrived, app.config.request_deadline, [timeout]);
    let call = Call {
        arrived,
        deadline: asked.deadline.into_iter().chain([longest]).min(),
        priority: asked.priority,
    };
    let work = move |inference: &Inference, model: &ModelVersion, turn: &mut Turn| {
        run(inference, model, request, turn)
    };
    let answered = app.inference.schedule(&model, message_bytes, &call, work);
    match call.deadline {
        // The caller is gone by then, whatever is still under way.
        Some(deadline) => tokio::time::timeout_at(deadline.into(), answered)
            .await
            .map_err(|_| expired())?,
        None => answered.await,
    }
}

fn expired() -> InferError {
    InferError::new(
        Kind::Expired,
        "the deadline of the request passed before it was answered",
    )
}

/// The `timeout` parameter, in microseconds; 0 is none.
fn timeout_of(request: &ModelInferRequest) -> Result<Option<Duration>, InferError> {
    let value = request.parameters.get("timeout");
    let microseconds = match value.and_then(|parameter| parameter.value.as_ref()) {
        None => return Ok(None),
        Some(ParameterValue::Uint64(value)) => Some(*value),
        Some(ParameterValue::Int64(value)) => u64::try_from(*value).ok(),
        // Clients that know nothing of the type send digits.
        Some(ParameterValue::String(text)) => text.parse().ok(),
        Some(_) => None,
    };
    let microseconds = microseconds.ok_or_else(|| {
        InferError::invalid("parameters.timeout: expected a number of microseconds, 0 or more")
    })?;
    Ok((microseconds > 0).then_some(Duration::from_micros(microseconds)))
}

fn run(
    inference: &Inference,
    model: &ModelVersion,
    request: ModelInferRequest,
    turn: &mut Turn,
) -> Result<ModelInferResponse, InferError> {
    let positions = requested_outputs(model, &request.outputs)?;
    let typed = request.inputs.iter().any(|input| input.contents.is_some());
    let inputs = read_inputs(inference, model, request.inputs, request.raw_input_contents)?;
    let id = request.id;
    let request_id = Some(id.as_str()).filter(|id| !id.is_empty());
    let ran = inference.run(model, inputs, request_id, turn)?;
    let mut response = answer(model, ran, &positions, typed)?;
    response.id = id;
    Ok(response)
}

/// Where the elements of an input are.
enum Source {
    Raw(Bytes),
    Typed(Contents),
}

fn read_inputs(
    inference: &Inference,
    model: &ModelVersion,
    given: Vec<InputTensor>,
    raw: Vec<Bytes>,
) -> Result<Vec<Tensor>, InferError> {
    check_raw_count(&given, raw.len())?;
    let sends_raw = !raw.is_empty();
    let mut raw = raw.into_iter();
    let mut inputs = Inputs::new(model, inference.max_rows);
    for (index, input) in given.into_iter().enumerate() {
        refuse_parameters(&input.parameters, "inputs", index)?;
        let sizes = sizes_of(&input)?;
        let declared = inputs.declare(&input.name, &input.datatype, sizes.iter().copied())?;
        let source = match input.contents {
            // Counted above: there is one for every input without contents.
            None if sends_raw => Source::Raw(raw.next().unwrap_or_default()),
            // Of an input without elements nothing arrives at all.
            contents => Source::Typed(contents.unwrap_or_default()),
        };
        let tensor = read_tensor(&declared, source).map_err(|problem| {
            InferError::invalid(format!("input {:?}: {problem}", declared.info.name))
        })?;
        inputs.put(&declared, tensor)?;
    }
    inputs.finish()
}

/// Every raw tensor must have its input: one too few or too many would shift all that follow.
fn check_raw_count(given: &[InputTensor], raw: usize) -> Result<(), InferError> {
    if raw == 0 {
        return Ok(());
    }
    let without = given.iter().filter(|input| input.contents.is_none());
    let expected = without.count();
    if raw == expected {
        return Ok(());
    }
    let typed = given.iter().position(|input| input.contents.is_some());
    Err(InferError::invalid(match typed {
        Some(index) if raw == given.len() => format!(
            "inputs[{index}].contents: expected it or an entry in raw_input_contents, found both"
        ),
        _ => format!(
            "raw_input_contents: expected {expected} entries (one for each input without \
             contents), found {raw}"
        ),
    }))
}

fn sizes_of(input: &InputTensor) -> Result<Vec<u64>, InferError> {
    let sizes: Result<Vec<u64>, _> = input.shape.iter().map(|dim| u64::try_from(*dim)).collect();
    sizes.map_err(|_| {
        InferError::invalid(format!(
            "input {:?}: shape: expected sizes of 0 or more, found {}",
            shorten(&input.name, 64),
            shorten(&format!("{:?}", input.shape), 100)
        ))
    })
}

fn read_tensor(declared: &Declared<'_>, source: Source) -> Result<Tensor, String> {
    let data_type = declared.info.data_type;
    match source {
        Source::Raw(bytes) => binary::from_bytes(data_type, &declared.shape, &bytes)
            .map_err(|problem| format!("raw_input_contents: {problem}")),
        Source::Typed(contents) => {
            let data = contents::read(data_type, declared.elements, contents)
                .map_err(|problem| format!("contents: {problem}"))?;
            Tensor::from_data(&declared.shape, data).map_err(|error| error.to_string())
        }
    }
}

/// The positions of the outputs that are asked for: all, when none is named.
fn requested_outputs(
    model: &ModelVersion,
    named: &[RequestedOutput],
) -> Result<Vec<usize>, InferError> {
    let outputs = model.graph.outputs();
    if named.is_empty() {
        return Ok((0..outputs.len()).collect());
    }
    let mut positions = Vec::with_capacity(named.len().min(outputs.len()));
    for (index, output) in named.iter().enumerate() {
        let position = outputs
            .iter()
            .position(|info| info.name == output.name)
            .ok_or_else(|| {
                let names: Vec<&str> = outputs.iter().map(|info| info.name.as_str()).collect();
                InferError::invalid(format!(
                    "outputs[{index}].name: {:?} is no output of {}; the outputs are {}",
                    shorten(&output.name, 64),
                    model.name,
                    shorten(&names.join(", "), 1000)
                ))
            })?;
        if positions.contains(&position) {
            return Err(InferError::invalid(format!(
                "outputs[{index}].name: {:?} is asked for twice",
                output.name
            )));
        }
        refuse_parameters(&output.parameters, "outputs", index)?;
        positions.push(position);
    }
    Ok(positions)
}

/// Refuses what would change the meaning of a tensor; everything else is no matter.
fn refuse_parameters(
    parameters: &std::collections::BTreeMap<String, Parameter>,
    list: &str,
    index: usize,
) -> Result<(), InferError> {
    for name in ["classification", "shared_memory_region"] {
        if parameters.contains_key(name) {
            return Err(InferError::new(
                Kind::Unsupported,
                format!("{list}[{index}].parameters.{name}: is not supported"),
            ));
        }
    }
    Ok(())
}

fn answer(
    model: &ModelVersion,
    ran: Ran,
    positions: &[usize],
    typed: bool,
) -> Result<ModelInferResponse, InferError> {
    let prediction_id = ParameterValue::String(ran.prediction_id.to_string());
    let parameter = Parameter {
        value: Some(prediction_id),
    };
    let mut response = ModelInferResponse {
        model_name: model.name.clone(),
        model_version: model.version.clone(),
        parameters: [("prediction_id".to_owned(), parameter)].into(),
        outputs: Vec::with_capacity(positions.len()),
        raw_output_contents: Vec::with_capacity(positions.len()),
        ..ModelInferResponse::default()
    };
    for &position in positions {
        let missing = || InferError::internal(format!("{}: an output is missing", model.name));
        let tensor = ran.outputs.get(position).ok_or_else(missing)?;
        let mut bytes = Vec::new();
        binary::write(tensor.data(), &mut bytes).map_err(InferError::too_large)?;
        response.raw_output_contents.push(bytes);
        response.outputs.push(OutputTensor {
            name: model.graph.outputs()[position].name.clone(),
            datatype: tensors::protocol_name(tensor.data_type()).to_owned(),
            shape: tensor.shape().iter().map(|&dim| dim as i64).collect(),
            contents: typed.then(|| contents::write(tensor.data())).flatten(),
        });
    }
    Ok(response)
}

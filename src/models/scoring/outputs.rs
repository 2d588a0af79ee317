//! Which outputs of a graph are read, and as what: as the manifest says, or, without one, as the names
//! and shapes of the outputs suggest.

use onnx_ml::{DataType, Labels, Model, TensorInfo};

use crate::models::manifest::{Manifest, TaskKind};
use crate::models::tensors::{self, shape_text};

/// Which outputs are read, and as what.
pub(super) struct Outputs {
    pub(super) task: TaskKind,
    pub(super) score: usize,
    pub(super) raw: Option<usize>,
    pub(super) positive: usize,
}

impl Outputs {
    /// # Errors
    /// What does not fit, or is not clear without a manifest.
    pub(super) fn choose(graph: &Model, manifest: Option<&Manifest>) -> Result<Outputs, String> {
        let outputs = graph.outputs();
        let position = |name: &str| {
            outputs
                .iter()
                .position(|output| output.name == name)
                .ok_or_else(|| {
                    let names: Vec<&str> =
                        outputs.iter().map(|output| output.name.as_str()).collect();
                    format!(
                        "[output] names {name:?}, the graph has {}",
                        names.join(", ")
                    )
                })
        };
        let section = manifest.map(|manifest| &manifest.output);
        let score = match section.and_then(|section| section.probabilities.as_deref()) {
            Some(name) => position(name)?,
            None => likely_score(outputs)?,
        };
        let raw = section
            .and_then(|section| section.log_odds.as_deref())
            .map(position)
            .transpose()?;
        let info = &outputs[score];
        if !is_floating(info.data_type) {
            let found = tensors::protocol_name(info.data_type);
            return Err(format!(
                "output {:?}: expected FP16, FP32 or FP64, found {found}",
                info.name
            ));
        }
        let labels = info.labels.as_ref().map(Labels::len);
        let width = match info.shape.as_slice() {
            [_] => Some(1),
            [_, width] => width.or(labels),
            _ => None,
        };
        let unclear = || {
            format!(
                "output {:?} has the shape {}: model.toml must say which task and column it is",
                info.name,
                shape_text(&info.shape)
            )
        };
        let task = match (manifest, width) {
            (Some(manifest), _) => manifest.model.task,
            (None, Some(1)) => TaskKind::Regression,
            (None, Some(2)) => TaskKind::Binary,
            (None, _) => return Err(unclear()),
        };
        let positive = match (task, section.and_then(|section| section.positive), width) {
            (TaskKind::Regression | TaskKind::Affinity, _, _) => 0,
            (TaskKind::Binary, Some(column), _) => column,
            (TaskKind::Binary, None, Some(width)) if width <= 2 => width - 1,
            (TaskKind::Binary, None, _) => return Err(unclear()),
        };
        if width.is_some_and(|width| positive >= width) {
            return Err(format!(
                "[output] positive = {positive}, but output {:?} has the shape {}",
                info.name,
                shape_text(&info.shape)
            ));
        }
        let choices = manifest.map_or(0, |manifest| manifest.choice.len());
        if task == TaskKind::Affinity && (choices == 0 || width.is_some_and(|w| w != choices)) {
            return Err(format!(
                "{choices} [[choice]] entries stand for output {:?} of shape {}",
                info.name,
                shape_text(&info.shape)
            ));
        }
        Ok(Outputs {
            task,
            score,
            raw,
            positive,
        })
    }
}

/// The output that is most likely the score: one with a name that exporters give to probabilities
/// and to the value of a regression, or else the last one that can hold scores.
fn likely_score(outputs: &[TensorInfo]) -> Result<usize, String> {
    const NAMES: [&str; 3] = ["probabilities", "output_probability", "variable"];
    let can_hold_scores = |output: &TensorInfo| {
        is_floating(output.data_type) && (1..=2).contains(&output.shape.len())
    };
    for name in NAMES {
        let named = |output: &TensorInfo| output.name == name && can_hold_scores(output);
        if let Some(position) = outputs.iter().position(named) {
            return Ok(position);
        }
    }
    outputs.iter().rposition(can_hold_scores).ok_or_else(|| {
        let found: Vec<String> = outputs
            .iter()
            .map(|output| {
                let data_type = tensors::protocol_name(output.data_type);
                format!("{} {data_type} {}", output.name, shape_text(&output.shape))
            })
            .collect();
        format!(
            "no output can be a score: expected FP16, FP32 or FP64 of the shape [N] or [N, k], \
             found {}",
            found.join(", ")
        )
    })
}

fn is_floating(data_type: DataType) -> bool {
    matches!(data_type, DataType::F16 | DataType::F32 | DataType::F64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(name: &str, data_type: DataType, shape: &[Option<usize>]) -> TensorInfo {
        TensorInfo {
            name: name.to_owned(),
            data_type,
            shape: shape.to_vec(),
            labels: None,
        }
    }

    #[test]
    fn the_score_is_the_output_that_exporters_name_so_or_the_last_of_its_kind() {
        let label = output("label", DataType::I64, &[None]);
        let probabilities = output("probabilities", DataType::F32, &[None, Some(2)]);
        let decisions = output("decisions", DataType::F32, &[None, Some(2)]);
        let embedding = output("embedding", DataType::F32, &[None, Some(4), Some(4)]);
        let named_label = output("variable", DataType::String, &[None]);
        for (outputs, expected) in [
            (vec![&label, &probabilities], 1),
            (vec![&probabilities, &label], 0),
            (vec![&probabilities, &decisions], 0),
            (vec![&decisions, &embedding, &label], 0),
            (vec![&named_label, &decisions], 1),
        ] {
            let outputs: Vec<TensorInfo> = outputs.into_iter().cloned().collect();
            assert_eq!(likely_score(&outputs), Ok(expected), "{outputs:?}");
        }
        let problem = likely_score(&[label, embedding]).unwrap_err();
        assert!(problem.contains("label INT64 [N], embedding FP32 [N, 4, 4]"));
    }
}

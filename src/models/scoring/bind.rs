//! From a graph, its manifest and a view to a [`Scoring`]; everything that does not fit is said at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use onnx_ml::Model;

use super::Scoring;
use super::choices::bind_choices;
use super::inputs::BoundInput;
use super::outputs::Outputs;
use crate::features::value::Value;
use crate::features::view::{View, suggestion};
use crate::models::manifest::Manifest;

impl Scoring {
    /// Binds the graph's inputs to the view's features and checks the manifest against both.
    ///
    /// # Errors
    /// Everything that does not fit, one line each: input or feature, expected and found.
    pub fn bind(
        graph: &Model,
        manifest: Option<&Manifest>,
        view: &Arc<View>,
    ) -> Result<Scoring, Vec<String>> {
        let mut problems = Vec::new();
        let mapping = manifest.map(|manifest| &manifest.inputs);
        for named in mapping.into_iter().flat_map(|mapping| mapping.keys()) {
            if !graph.inputs().iter().any(|input| input.name == *named) {
                let names = graph.inputs().iter().map(|input| input.name.as_str());
                problems.push(format!(
                    "[inputs] names {named:?}, which the graph does not have{}",
                    suggestion(named, names)
                ));
            }
        }
        let mut inputs = Vec::new();
        for input in graph.inputs() {
            let own_name = vec![input.name.as_str()];
            let names = mapping
                .and_then(|mapping| mapping.get(&input.name))
                .map_or(own_name, |features| features.names());
            match BoundInput::bind(input, &names, view) {
                Ok(bound) => inputs.push(bound),
                Err(mut found) => problems.append(&mut found),
            }
        }
        let outputs = match Outputs::choose(graph, manifest) {
            Ok(outputs) => Some(outputs),
            Err(problem) => {
                problems.push(problem);
                None
            }
        };
        let choices = bind_choices(manifest, view, &mut problems);
        let baseline = read_baseline(manifest, view, &mut problems);
        let (Some(outputs), true) = (outputs, problems.is_empty()) else {
            return Err(problems);
        };

        let input_columns: Vec<usize> = inputs
            .iter()
            .flat_map(|i| i.columns.iter().copied())
            .collect();
        let choice_columns = choices
            .iter()
            .flat_map(|choice| choice.unless.iter().flat_map(|unless| unless.columns()))
            .filter_map(|column| view.index_of(column));
        let features = sorted(input_columns.iter().copied().chain(choice_columns));
        Ok(Scoring {
            view: Arc::clone(view),
            task: outputs.task,
            inputs,
            score_output: outputs.score,
            raw_output: outputs.raw,
            positive: outputs.positive,
            choices,
            baseline,
            features,
            input_features: sorted(input_columns.into_iter()),
        })
    }
}

fn sorted(columns: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut columns: Vec<usize> = columns.collect();
    columns.sort_unstable();
    columns.dedup();
    columns
}

/// The reference customer: what the manifest declares of it, else the default of the feature.
fn read_baseline(
    manifest: Option<&Manifest>,
    view: &View,
    problems: &mut Vec<String>,
) -> Vec<Value> {
    let mut baseline: Vec<Value> = view
        .features()
        .iter()
        .map(|feature| feature.default.clone().unwrap_or_default())
        .collect();
    let empty = BTreeMap::new();
    let declared = manifest.map_or(&empty, |manifest| &manifest.reasons.baseline);
    for (name, value) in declared {
        let json = serde_json::to_value(value).unwrap_or_default();
        match view.index_of(name) {
            Some(index) => match Value::from_json(&json, view.features()[index].kind) {
                Ok(value) => baseline[index] = value,
                Err(problem) => problems.push(format!("reasons baseline: {name}: {problem}")),
            },
            None => problems.push(format!(
                "reasons baseline: {name} is not a feature of view {}",
                view.name
            )),
        }
    }
    baseline
}

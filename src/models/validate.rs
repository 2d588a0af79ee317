//! A version folder looked at without a server: what a server would say of it, and how long it takes.
//!
//! Everything is looked at that can be, so that one run tells all that is wrong; a server stops at the
//! first mistake. What a server refuses is refused here and the other way round: both go by the same
//! functions.

use std::path::Path;

use serde::Serialize;

use super::golden::{Golden, GoldenReport};
use super::manifest::{Manifest, TaskKind};
use super::scoring::Scoring;
use super::tensors::protocol_name;
use super::trial::{TIMED_BATCH, Timing, Trial};
use super::version::{FileDigest, Files, bind, hexadecimal};
use crate::features::views::Views;

/// How many golden rows that are not reproduced are listed.
const SHOWN_ROWS: usize = 10;

/// What became of the folder.
#[derive(Debug, Default, Serialize)]
pub struct Validation {
    /// A server would serve it.
    pub accepted: bool,
    /// Everything for which a server would refuse it.
    pub problems: Vec<String>,
    /// What it would be served without, and what is worth knowing.
    pub remarks: Vec<String>,
    pub files: Vec<FileDigest>,
    /// SHA-256 over model.onnx and model.toml, hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    pub inputs: Vec<InputReport>,
    pub outputs: Vec<TensorReport>,
    /// How it is scored; absent when it is served as tensors only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub binding: Option<BindingReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub golden: Option<GoldenReport>,
    /// One row, and a batch.
    pub timings: Vec<Timing>,
}

/// An input or an output of the graph.
#[derive(Debug, Serialize)]
pub struct TensorReport {
    pub name: String,
    pub datatype: &'static str,
    /// Sizes, -1 for any.
    pub shape: Vec<i64>,
}

/// An input and the features that feed it.
#[derive(Debug, Serialize)]
pub struct InputReport {
    #[serde(flatten)]
    pub tensor: TensorReport,
    pub features: Vec<String>,
}

/// How a version is scored.
#[derive(Debug, Serialize)]
pub struct BindingReport {
    pub view: String,
    pub task: TaskKind,
    /// Every feature that is read.
    pub features: Vec<String>,
}

/// Looks at the version in `folder`.
pub fn validate(folder: &Path, views: &Views) -> Validation {
    let mut found = Validation::default();
    let files = match Files::read(folder) {
        Ok(files) => files,
        Err(problem) => {
            let problem = not_a_version(folder).unwrap_or(problem);
            found.problems.push(problem);
            return found;
        }
    };
    found.files = files.digests();
    found.digest = Some(hexadecimal(&files.bundle_digest()));
    let mut problems = Vec::new();
    let graph = noted(files.graph(), &mut problems);
    let manifest = noted(files.manifest(), &mut problems);
    let golden = noted(files.golden(), &mut problems);
    found.problems = problems;
    let Some(graph) = graph else {
        return found;
    };
    // Without a manifest that can be read nothing can be said of the binding.
    let scoring = match &manifest {
        Some(manifest) => found.take_binding(&graph, manifest.as_ref(), views),
        None => None,
    };
    found.describe(&graph, manifest.flatten().as_ref(), scoring.as_ref());
    let golden = golden.flatten();
    match &golden {
        Some(golden) => found.take_golden(golden, &graph),
        None if found.problems.is_empty() => found.remarks.push(
            "no golden.json: nothing was compared with what the model gave where it was trained"
                .to_owned(),
        ),
        None => {}
    }
    let rows = golden.as_ref().map_or(&[][..], |golden| &golden.rows);
    let trial = Trial::new(&graph, scoring.as_ref(), rows);
    // A graph that says how many rows it takes takes no others.
    let mut inputs = graph.inputs().iter();
    let fixed = inputs.find_map(|input| input.shape.first().copied().flatten());
    let batches = fixed.map_or(vec![1, TIMED_BATCH], |rows| vec![rows]);
    for rows in batches {
        match trial.time(rows) {
            Ok(timing) => found.timings.push(timing),
            Err(problem) => found
                .remarks
                .push(format!("{rows} rows not timed: {problem}")),
        }
    }
    found.accepted = found.problems.is_empty();
    found
}

/// Why a folder holds no version at all, and what to name instead; `None` when it has a `model.onnx`.
pub fn not_a_version(folder: &Path) -> Option<String> {
    let expected = "expected the folder of one version, with model.onnx in it";
    if folder.join("model.onnx").is_file() {
        return None;
    }
    if folder.is_file() {
        return Some(format!("it is a file; {expected}"));
    }
    if !folder.is_dir() {
        return Some(format!("there is no such folder; {expected}"));
    }
    if folder.join("model.onnx").exists() {
        return Some("model.onnx is not a file".to_owned());
    }
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.filter(|entry| entry.path().join("model.onnx").is_file());
    let mut names: Vec<String> = names
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    Some(match names.last() {
        Some(name) => {
            format!("model.onnx is missing; it is in the folder {name} inside: name that")
        }
        None => format!("model.onnx is missing; {expected}"),
    })
}

impl Validation {
    fn take_binding(
        &mut self,
        graph: &onnx_ml::Model,
        manifest: Option<&Manifest>,
        views: &Views,
    ) -> Option<Scoring> {
        match bind(graph, manifest, views) {
            Ok(Ok(scoring)) => Some(scoring),
            Ok(Err(unbound)) => {
                let why = unbound.join("; ");
                let remark = format!("served as tensors under /v2 only, not by /v1/score: {why}");
                self.remarks.push(remark);
                None
            }
            Err(problem) => {
                self.problems.push(problem);
                None
            }
        }
    }

    fn take_golden(&mut self, golden: &Golden, graph: &onnx_ml::Model) {
        let report = golden.report(graph);
        if report.rows == 0 {
            self.remarks.push("golden.json has no rows".to_owned());
        }
        let failures = report.failures.iter();
        let shown = failures.take(SHOWN_ROWS).map(ToString::to_string);
        self.problems.extend(shown);
        if report.failures.len() > SHOWN_ROWS {
            let more = report.failures.len() - SHOWN_ROWS;
            self.problems.push(format!("golden.json: {more} more rows"));
        }
        self.golden = Some(report);
    }

    fn describe(
        &mut self,
        graph: &onnx_ml::Model,
        manifest: Option<&Manifest>,
        scoring: Option<&Scoring>,
    ) {
        let mapping = manifest.map(|manifest| &manifest.inputs);
        self.inputs = graph
            .inputs()
            .iter()
            .map(tensor)
            .map(|tensor| {
                let mapped = mapping.and_then(|mapping| mapping.get(&tensor.name));
                let mapped = mapped.map(|features| features.names());
                let names = mapped.unwrap_or_else(|| vec![tensor.name.as_str()]);
                let features = names.into_iter().filter(|_| scoring.is_some());
                InputReport {
                    features: features.map(str::to_owned).collect(),
                    tensor,
                }
            })
            .collect();
        self.outputs = graph.outputs().iter().map(tensor).collect();
        self.binding = scoring.map(|scoring| {
            let features = scoring.features.iter();
            let names = features.map(|&column| scoring.view.features()[column].name.clone());
            BindingReport {
                view: scoring.view.name.clone(),
                task: scoring.task,
                features: names.collect(),
            }
        });
    }
}

fn tensor(info: &onnx_ml::TensorInfo) -> TensorReport {
    let sizes = info.shape.iter();
    let size =
        |size: &Option<usize>| size.map_or(-1, |size| i64::try_from(size).unwrap_or(i64::MAX));
    TensorReport {
        name: info.name.clone(),
        datatype: protocol_name(info.data_type),
        shape: sizes.map(size).collect(),
    }
}

fn noted<T>(read: Result<T, String>, problems: &mut Vec<String>) -> Option<T> {
    read.map_err(|problem| problems.push(problem)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
    }

    fn views() -> Views {
        Views::load(&root().join("features")).unwrap()
    }

    /// The sample model, to be changed.
    fn copy() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in super::super::version::FILE_NAMES {
            let sample = root().join("models/churn/1").join(file);
            std::fs::copy(sample, folder.path().join(file)).unwrap();
        }
        folder
    }

    #[test]
    fn the_sample_model_is_accepted_with_its_binding_its_rows_and_its_times() {
        let found = validate(&root().join("models/churn/1"), &views());
        assert!(found.accepted, "{:?}", found.problems);
        let binding = found.binding.unwrap();
        assert_eq!(
            (binding.view.as_str(), binding.task),
            ("customer", TaskKind::Binary)
        );
        assert_eq!(found.files.len(), 3);
        let golden = found.golden.unwrap();
        assert!(golden.rows > 0 && golden.failures.is_empty());
        let rows: Vec<usize> = found.timings.iter().map(|timing| timing.rows).collect();
        assert_eq!(rows, [1, TIMED_BATCH], "{:?}", found.remarks);
        assert!(found.inputs.iter().all(|input| !input.features.is_empty()));
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        let folder = copy();
        let manifest = folder.path().join("model.toml");
        let text = std::fs::read_to_string(&manifest).unwrap();
        std::fs::write(
            &manifest,
            text.replacen("view = \"customer\"", "view = \"x\"", 1),
        )
        .unwrap();
        let golden = folder.path().join("golden.json");
        let mut rows: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&golden).unwrap()).unwrap();
        rows["rows"][1]["outputs"]["probabilities"][0] = 0.125.into();
        std::fs::write(&golden, rows.to_string()).unwrap();

        let found = validate(folder.path(), &views());

        assert!(!found.accepted);
        let problems = found.problems.join("\n");
        assert!(problems.contains("[model] view \"x\""), "{problems}");
        assert!(problems.contains("golden.json row 1"), "{problems}");
        assert!(problems.contains("expected 0.125, found"), "{problems}");
        let failure = &found.golden.unwrap().failures[0];
        assert_eq!(
            (failure.row, failure.expected.clone()),
            (1, Some(0.125.into()))
        );
    }

    #[test]
    fn a_folder_without_a_model_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let missing = |folder: &Path| {
            let found = validate(folder, &views());
            assert!(!found.accepted);
            found.problems.join("\n")
        };
        assert!(missing(folder.path()).starts_with("model.onnx is missing; expected the folder"));
        let nowhere = missing(&folder.path().join("nowhere"));
        assert!(nowhere.starts_with("there is no such folder"), "{nowhere}");
        // The folder of a model, or the file itself, instead of a version.
        let above = missing(&root().join("models/churn"));
        assert!(above.contains("in the folder 1 inside"), "{above}");
        let file = missing(&root().join("models/churn/1/model.onnx"));
        assert!(file.starts_with("it is a file"), "{file}");
    }
}

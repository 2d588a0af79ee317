//! What a job is, so that it can be told whether what was interrupted is what is asked for now.

use serde::{Deserialize, Serialize};

use super::inputs::InputFile;

/// The option that is among the others when a job runs on a cluster.
pub const CLUSTER_OPTION: &str = "--cluster";

/// What a job is: two that differ in any of this do not belong together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Definition {
    /// The version of this program: another one may cut parts otherwise.
    pub program: String,
    pub inputs: Vec<InputFile>,
    pub models: Vec<ModelDigest>,
    pub view: String,
    /// SHA-256 in hexadecimal.
    pub view_digest: String,
    /// What else was asked for, by option.
    pub options: Vec<(String, String)>,
    /// The time of the job, which stands for that of a request. It is kept when a job is gone on with.
    pub at_us: i64,
}

/// A version, by what it is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelDigest {
    pub model: String,
    pub version: String,
    /// SHA-256 over `model.onnx` and `model.toml`, in hexadecimal.
    pub digest: String,
}

impl Definition {
    /// Whether it runs on a cluster: what is left of it when it ends early cannot be gone on with.
    pub fn is_on_cluster(&self) -> bool {
        self.options.iter().any(|(name, _)| name == CLUSTER_OPTION)
    }

    /// What is different now, in words; nothing when `now` is the same job.
    pub fn changes(&self, now: &Definition) -> Vec<String> {
        let mut changes = Vec::new();
        if self.program != now.program {
            changes.push(format!(
                "bellwether was {}, is {}",
                self.program, now.program
            ));
        }
        for input in &self.inputs {
            let path = input.path.display();
            match now.inputs.iter().find(|other| other.path == input.path) {
                None => changes.push(format!("input {path} is no longer there")),
                Some(other) if other != input => changes.push(format!(
                    "input {path} has changed ({} bytes then, {} now)",
                    input.bytes, other.bytes
                )),
                Some(_) => {}
            }
        }
        for input in &now.inputs {
            if !self.inputs.iter().any(|other| other.path == input.path) {
                changes.push(format!("input {} is new", input.path.display()));
            }
        }
        let called = |models: &[ModelDigest]| {
            let each = models
                .iter()
                .map(|m| format!("{} version {}", m.model, m.version));
            each.collect::<Vec<_>>().join(", ")
        };
        let (then, after) = (called(&self.models), called(&now.models));
        if then != after {
            changes.push(format!("the models were {then}, are {after}"));
        } else {
            for (then, now) in self.models.iter().zip(&now.models) {
                if then.digest != now.digest {
                    let (model, version) = (&then.model, &then.version);
                    changes.push(format!(
                        "the files of model {model} version {version} have changed"
                    ));
                }
            }
        }
        if (&self.view, &self.view_digest) != (&now.view, &now.view_digest) {
            changes.push(format!("feature view {} has changed", now.view));
        }
        for (name, value) in &self.options {
            let other = now.options.iter().find(|(other, _)| other == name);
            if other.is_none_or(|(_, other)| other != value) {
                let other = other.map_or("", |(_, value)| value.as_str());
                changes.push(format!("{name} was {value:?}, is {other:?}"));
            }
        }
        if changes.is_empty() && self.inputs != now.inputs {
            changes.push("the inputs are in another order".to_owned());
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition() -> Definition {
        Definition {
            program: "0.1.0".into(),
            inputs: vec![InputFile {
                path: "a.csv".into(),
                bytes: 7,
                xxh3: "00".into(),
            }],
            models: vec![ModelDigest {
                model: "churn".into(),
                version: "1".into(),
                digest: "ab".into(),
            }],
            view: "customer".into(),
            view_digest: "cd".into(),
            options: vec![("--explain".into(), "3".into())],
            at_us: 5,
        }
    }

    #[test]
    fn every_change_that_matters_is_named() {
        let then = definition();
        assert!(then.changes(&then).is_empty());
        let change = |edit: fn(&mut Definition), expected: &str| {
            let mut now = definition();
            edit(&mut now);
            let changes = then.changes(&now).join("; ");
            assert!(changes.contains(expected), "{changes}");
        };
        change(|now| now.program = "0.2.0".into(), "was 0.1.0, is 0.2.0");
        change(
            |now| now.inputs[0].xxh3 = "01".into(),
            "input a.csv has changed",
        );
        change(
            |now| now.inputs[0].path = "b.csv".into(),
            "input b.csv is new",
        );
        change(|now| now.models[0].version = "2".into(), "churn version 2");
        change(
            |now| now.models[0].digest = "ac".into(),
            "files of model churn version 1",
        );
        change(|now| now.view_digest = "ce".into(), "view customer");
        change(
            |now| now.options[0].1 = "5".into(),
            "--explain was \"3\", is \"5\"",
        );
    }
}

//! What a job is, as the function `predict` is told: JSON in the plan, so that executors need nothing but
//! their model repository.
//!
//! Both come from whoever reaches the scheduler: what does not fit is an error, never a panic.

use arrow::datatypes::{DataType, Field, Fields, SchemaRef};
use serde::{Deserialize, Serialize};

use crate::batch::score::bands::Bands;
use crate::batch::score::bind::Binding;
use crate::batch::score::definition::ModelDigest;
use crate::batch::score::plan::Plan;
use crate::batch::score::summary::digest_of;
use crate::models::version::hexadecimal;

/// What is the same for every row of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobSpec {
    /// The version of the program: another one may score otherwise.
    pub program: String,
    pub models: Vec<ModelDigest>,
    pub view: String,
    /// SHA-256 in hexadecimal.
    pub view_digest: String,
    pub explain: Option<usize>,
    /// By model: the bands that its scores are counted in.
    pub bands: Vec<Option<Bands>>,
    /// The time that stands for that of a request.
    pub at_us: i64,
    /// The columns of the output. The scheduler, which has no models, plans by them.
    pub output: Vec<OutputColumn>,
}

/// A column of the output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputColumn {
    pub name: String,
    pub kind: Kind,
}

/// The types that an output has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Float64,
    Text,
}

/// What is the same for every row of a scan.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InputSpec {
    pub shape: Shape,
    pub binding: Binding,
}

/// How rows come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// As the columns of the binding.
    Columns,
    /// As records, and how many fields each should have.
    Csv(usize),
    /// As lines of JSON.
    Ndjson,
}

/// The field of what comes back that says why a row was rejected; an empty text where there was no row.
pub const REJECTED: &str = "rejected";
/// The field that holds, in the first row of those that were scored at a time, what there is to count.
pub const COUNTS: &str = "counts";

impl JobSpec {
    /// The job of a plan.
    pub fn of(plan: &Plan, at_us: i64) -> JobSpec {
        let models = plan.models.iter().map(|version| ModelDigest {
            model: version.name.clone(),
            version: version.version.clone(),
            digest: digest_of(version),
        });
        JobSpec {
            program: env!("CARGO_PKG_VERSION").to_owned(),
            models: models.collect(),
            view: plan.view.name.clone(),
            view_digest: hexadecimal(&plan.view.digest),
            explain: plan.explain,
            bands: plan.bands.clone(),
            at_us,
            output: columns_of(&plan.schema),
        }
    }

    /// Reads the first argument of the function.
    ///
    /// # Errors
    /// What it is not.
    pub fn read(text: &str) -> Result<JobSpec, String> {
        serde_json::from_str(text).map_err(|error| {
            format!("the first argument is not the specification of a job: {error}")
        })
    }

    /// What the function gives for a row.
    pub fn fields(&self) -> Fields {
        let output = self.output.iter().map(|column| {
            let kind = match column.kind {
                Kind::Float64 => DataType::Float64,
                Kind::Text => DataType::Utf8,
            };
            Field::new(&column.name, kind, true)
        });
        let text = |name| Field::new(name, DataType::Utf8, true);
        output.chain([text(REJECTED), text(COUNTS)]).collect()
    }
}

impl InputSpec {
    /// Reads the second argument of the function and checks that it fits the plan and the number of
    /// columns that follow.
    ///
    /// # Errors
    /// What does not fit.
    pub fn read(text: &str, plan: &Plan, columns: usize) -> Result<InputSpec, String> {
        let input: InputSpec = serde_json::from_str(text)
            .map_err(|error| format!("the second argument does not describe an input: {error}"))?;
        let binding = &input.binding;
        let expected = match input.shape {
            Shape::Columns => binding.columns().count(),
            Shape::Csv(_) | Shape::Ndjson => 1,
        };
        if columns != expected {
            return Err(format!(
                "expected {expected} columns of the input, found {columns}"
            ));
        }
        let keys = plan.view.key_columns().len();
        if binding.keys.len() != keys {
            let found = binding.keys.len();
            return Err(format!("expected {keys} key columns, found {found}"));
        }
        let given = plan.view.derived_columns().start;
        if binding
            .features
            .iter()
            .any(|(feature, _)| *feature >= given)
        {
            return Err("a column is bound to a feature that the view does not have".to_owned());
        }
        Ok(input)
    }
}

/// The columns of an output, as they are told.
pub fn columns_of(schema: &SchemaRef) -> Vec<OutputColumn> {
    let fields = schema.fields().iter();
    let column = |field: &arrow::datatypes::FieldRef| OutputColumn {
        name: field.name().clone(),
        kind: match field.data_type() {
            DataType::Float64 => Kind::Float64,
            _ => Kind::Text,
        },
    };
    fields.map(column).collect()
}

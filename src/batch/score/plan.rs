//! What a job computes: which models over which view, and what its output looks like.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::bands::Bands;
use super::bind::ColumnOptions;
use super::statistics::is_share;
use crate::features::value::{Value, shorten};
use crate::features::view::View;
use crate::models::manifest::TaskKind;
use crate::models::repository::Repository;
use crate::models::scoring::Scoring;
use crate::models::version::ModelVersion;

/// Rows that are assembled and scored at a time: enough that the cost of a run is spread over many, few
/// enough that what lies between the operators of a graph stays in the processor's caches.
pub const CHUNK_ROWS: usize = 4096;

/// Everything that decides about the values of the output.
#[derive(Debug)]
pub struct Plan {
    pub view: Arc<View>,
    /// By column of the view: whether any model reads it, or it is an input of what one reads.
    pub needed: Vec<bool>,
    pub models: Vec<Arc<ModelVersion>>,
    /// How many contributions are given with each score.
    pub explain: Option<usize>,
    pub columns: ColumnOptions,
    /// The time that stands for that of a request, microseconds since the Unix epoch,
    pub at_us: i64,
    /// and as values of the view's columns.
    pub request_time: Vec<(usize, Value)>,
    /// The columns of the output.
    pub schema: SchemaRef,
    pub chunk_rows: usize,
    /// A part ends behind this many rows.
    pub checkpoint_rows: u64,
    /// By model: the bands that its scores are counted in while they come; none for scores whose range is
    /// not known beforehand.
    pub bands: Vec<Option<Bands>>,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Asked {
    pub models: Vec<String>,
    pub explain: Option<usize>,
    pub columns: ColumnOptions,
    pub checkpoint_rows: u64,
    /// The bands of scores; the usual ones of each model when left out.
    pub bands: Option<Bands>,
}

impl Plan {
    /// Finds the models, the champion of each name, and what they read. `at_us` is the time of the job.
    ///
    /// # Errors
    /// A model that is not there or does not bind, models over different views, or a wrong column.
    pub fn new(repository: &Repository, asked: &Asked, at_us: i64) -> Result<Plan, String> {
        let mut models: Vec<Arc<ModelVersion>> = Vec::new();
        for name in &asked.models {
            let found = repository.find(name, None);
            let version = found.map_err(|problem| format!("--model: {problem}"))?;
            if models.iter().any(|model| model.name == version.name) {
                let name = shorten(name, 64);
                return Err(format!("--model {name}: it is named twice"));
            }
            models.push(version);
        }
        Plan::over(models, asked, at_us)
    }

    /// The plan with these versions, whatever names are asked for.
    ///
    /// # Errors
    /// A version that does not bind, versions over different views, or a wrong column.
    pub fn over(models: Vec<Arc<ModelVersion>>, asked: &Asked, at_us: i64) -> Result<Plan, String> {
        let first = models.first().ok_or("--model: name at least one model")?;
        let view = Arc::clone(&scoring_of(first)?.view);
        let mut needed = vec![false; view.features().len()];
        let mut bands = Vec::with_capacity(models.len());
        for version in &models {
            let scoring = scoring_of(version)?;
            if scoring.view.name != view.name {
                return Err(format!(
                    "--model: {} reads view {} and {} reads view {}; score them one after the other",
                    first.name, view.name, version.name, scoring.view.name
                ));
            }
            for &column in &scoring.features {
                needed[column] = true;
            }
            let usual = is_share(scoring).then(Bands::of_shares);
            bands.push(asked.bands.clone().or(usual));
        }
        view.close_over_inputs(&mut needed);
        asked.columns.check(&view)?;
        let schema = output_schema(&view, &models, asked.explain.is_some())?;
        Ok(Plan {
            needed,
            models,
            explain: asked.explain,
            columns: asked.columns.clone(),
            at_us,
            request_time: view.request_time(at_us).collect(),
            schema,
            chunk_rows: CHUNK_ROWS,
            checkpoint_rows: asked.checkpoint_rows,
            bands,
            view,
        })
    }
}

/// How a version is scored.
///
/// # Errors
/// Why it is not.
pub fn scoring_of(version: &ModelVersion) -> Result<&Scoring, String> {
    let scoring = version.scoring.as_ref();
    scoring.map_err(|problems| {
        format!(
            "model {} version {} does not bind to a feature view: {}",
            version.name,
            version.version,
            problems.join("; ")
        )
    })
}

/// Whether the scores of a version come with a label.
pub fn has_label(scoring: &Scoring) -> bool {
    scoring.task == TaskKind::Affinity
}

fn output_schema(
    view: &View,
    models: &[Arc<ModelVersion>],
    with_reasons: bool,
) -> Result<SchemaRef, String> {
    let text = |name: String, nullable| Field::new(name, DataType::Utf8, nullable);
    let keys = view.key_columns().iter();
    let mut fields: Vec<Field> = keys.map(|key| text(key.clone(), false)).collect();
    for version in models {
        let name = &version.name;
        fields.push(Field::new(
            format!("{name}_score"),
            DataType::Float64,
            false,
        ));
        if has_label(scoring_of(version)?) {
            fields.push(text(format!("{name}_label"), true));
        }
        fields.push(text(format!("{name}_version"), false));
        if with_reasons {
            fields.push(text(format!("{name}_reasons"), true));
        }
    }
    for (index, field) in fields.iter().enumerate() {
        if fields[..index]
            .iter()
            .any(|other| other.name() == field.name())
        {
            return Err(format!(
                "--model: two columns of the output would be called {}; score these models one after \
                 the other",
                field.name()
            ));
        }
    }
    Ok(Arc::new(Schema::new(fields)))
}

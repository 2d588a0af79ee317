//! The models of an executor, found by digest in its repository.
//!
//! A job names versions and view with their digests. What lies in the folders is read when a job first
//! asks for it, so that a version that was put there since is found; another digest than that of the job is
//! an error, because another model would answer. What was loaded is kept, up to a number.

use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::spec::{JobSpec, columns_of};
use crate::batch::score::bind::ColumnOptions;
use crate::batch::score::definition::ModelDigest;
use crate::batch::score::plan::{Asked, Plan};
use crate::batch::score::prepare::chunk_rows;
use crate::features::value::shorten;
use crate::features::views::Views;
use crate::models::version::{Files, ModelVersion, hexadecimal};

/// Jobs whose plans are kept.
const MOST_PLANS: usize = 16;
/// Versions that are kept, each with its graph in memory.
const MOST_VERSIONS: usize = 32;

/// The models of an executor.
#[derive(Debug)]
pub struct Models {
    models: PathBuf,
    features: PathBuf,
    tasks: usize,
    memory: u64,
    /// Held while models are loaded: tasks of one job wait for the first of them, and do not load the
    /// same once more.
    kept: Mutex<Kept>,
}

/// What is kept, the longest ago first.
#[derive(Debug, Default)]
struct Kept {
    /// By the job's specification.
    plans: Vec<(String, Arc<Plan>)>,
    /// By name, version and digest, and the digest of the view that it is bound to.
    versions: Vec<(ModelDigest, String, Arc<ModelVersion>)>,
}

impl Models {
    /// Those of the folders; rows that are scored by `tasks` tasks at a time may take `memory` bytes.
    pub fn new(models: PathBuf, features: PathBuf, tasks: usize, memory: u64) -> Models {
        Models {
            models,
            features,
            tasks,
            memory,
            kept: Mutex::default(),
        }
    }

    /// The plan of a job, by its specification.
    ///
    /// # Errors
    /// What of the job this executor does not have, and what it has instead.
    pub fn plan(&self, job: &str) -> Result<Arc<Plan>, String> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, plan)) = kept.plans.iter().find(|(other, _)| other == job) {
            return Ok(Arc::clone(plan));
        }
        let spec = JobSpec::read(job)?;
        let plan = Arc::new(self.load(&mut kept, &spec)?);
        tracing::info!(
            view = spec.view,
            models = plan.models.len(),
            "models of a job are ready"
        );
        keep(
            &mut kept.plans,
            MOST_PLANS,
            (job.to_owned(), Arc::clone(&plan)),
        );
        Ok(plan)
    }

    fn load(&self, kept: &mut Kept, spec: &JobSpec) -> Result<Plan, String> {
        let program = env!("CARGO_PKG_VERSION");
        if spec.program != program {
            let theirs = shorten(&spec.program, 32);
            return Err(format!(
                "the job was made by bellwether {theirs} and this executor is bellwether {program}; \
                 scores are only the same with the same version"
            ));
        }
        let views = Views::load(&self.features).map_err(|errors| errors.to_string())?;
        let folder = self.features.display();
        let view = views.get(&spec.view).ok_or_else(|| {
            let name = shorten(&spec.view, 64);
            format!("feature view {name} is not in this executor's folder {folder}")
        })?;
        let digest = hexadecimal(&view.digest);
        if digest != spec.view_digest {
            return Err(format!(
                "feature view {}: the job was made with digest {}, and in this executor's folder {folder} \
                 it has digest {digest}; give executors the files of the job",
                view.name,
                shorten(&spec.view_digest, 64)
            ));
        }
        let mut versions = Vec::new();
        for wanted in &spec.models {
            let is_it = |kept: &&(ModelDigest, String, Arc<ModelVersion>)| {
                kept.0 == *wanted && kept.1 == digest
            };
            let found = kept.versions.iter().find(is_it);
            let version = match found {
                Some((_, _, version)) => Arc::clone(version),
                None => {
                    let version = Arc::new(read_version(&self.models, wanted, &views)?);
                    let entry = (wanted.clone(), digest.clone(), Arc::clone(&version));
                    keep(&mut kept.versions, MOST_VERSIONS, entry);
                    version
                }
            };
            versions.push(version);
        }
        let asked = Asked {
            models: Vec::new(),
            explain: spec.explain,
            bands: None,
            columns: ColumnOptions::default(),
            checkpoint_rows: u64::MAX,
        };
        let mut plan = Plan::over(versions, &asked, spec.at_us)?;
        if columns_of(&plan.schema) != spec.output {
            return Err("the job expects other columns than its models give".to_owned());
        }
        plan.bands.clone_from(&spec.bands);
        plan.chunk_rows = chunk_rows(&plan, self.tasks, self.memory, 0)?;
        Ok(plan)
    }
}

/// Adds what is newest, and forgets what is oldest.
fn keep<T>(all: &mut Vec<T>, most: usize, newest: T) {
    if all.len() >= most {
        all.remove(0);
    }
    all.push(newest);
}

fn read_version(
    models: &Path,
    wanted: &ModelDigest,
    views: &Views,
) -> Result<ModelVersion, String> {
    let (name, number) = (shorten(&wanted.model, 64), shorten(&wanted.version, 32));
    let called = format!("model {name} version {number}");
    // A job says which folder: it is not to lead out of the repository.
    let mut parts = Path::new(&wanted.model).components();
    let is_name = matches!(
        (parts.next(), parts.next()),
        (Some(Component::Normal(_)), None)
    );
    if !is_name || wanted.version.parse::<u64>().is_err() {
        return Err(format!("{called}: not the name and number of a version"));
    }
    let folder = models.join(&wanted.model).join(&wanted.version);
    let at = folder.display();
    let files = Files::read(&folder).map_err(|problem| {
        format!(
            "{called}, digest {}: this executor cannot read it in {at}: {problem}",
            shorten(&wanted.digest, 64)
        )
    })?;
    let digest = hexadecimal(&files.bundle_digest());
    if digest != wanted.digest {
        return Err(format!(
            "{called}: the job was made with digest {}, and this executor's {at} has digest {digest}; \
             give executors the files of the job",
            shorten(&wanted.digest, 64)
        ));
    }
    ModelVersion::build(files, &wanted.model, &wanted.version, views, Arc::default())
        .map_err(|problem| format!("{called}: {problem}"))
}

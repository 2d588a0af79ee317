//! A version that somebody sends: checked, published, and served.
//!
//! What is refused is never published, and neither is what cannot be recorded. What is published is
//! served when [`Repository::deploy`] returns, in the role that it was given when it was recorded.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::refresh::note_load;
use super::{Repository, announce, versions_of};
use crate::features::value::shorten;
use crate::models::bundles::{BundleId, Incoming, is_model_name};
use crate::models::catalog::Entry;
use crate::models::statistics::Statistics;
use crate::models::trial;
use crate::models::version::{Files, ModelVersion};

/// A version that was deployed.
#[derive(Debug)]
pub struct Deployed {
    pub number: u64,
    pub version: Arc<ModelVersion>,
    /// How long it took to build, check and warm it.
    pub load_time: Duration,
    /// Who answered when it came.
    pub champion: Option<String>,
}

/// A version that can be served, and that is published when it is recorded.
pub struct Accepted<'a> {
    /// Its number, which it keeps.
    pub number: u64,
    pub version: &'a ModelVersion,
    /// The setting that would take it out of memory again, if it had no role.
    pub left_out_by: Option<String>,
}

/// Why nothing was deployed.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    #[error(
        "model name {0:?}: expected at most 200 bytes that can name a folder: no slash, no dot at the \
         beginning, no control characters"
    )]
    Name(String),
    #[error("model {name}: the version is refused and nothing has changed: {problem}")]
    Refused { name: String, problem: String },
    #[error("model {name}: the version cannot be kept in {place}: {problem}; nothing has changed")]
    NotKept {
        name: String,
        place: String,
        problem: String,
    },
    #[error("model {name}: {problem}; nothing has changed")]
    NotRecorded { name: String, problem: String },
    #[error("model {name}: the version would not stay served: {problem}; nothing has changed")]
    NotKeptLoaded { name: String, problem: String },
}

impl Repository {
    /// A place for the files of a new version of the model.
    ///
    /// # Errors
    /// When it cannot be called that, or nothing can be written.
    pub fn receive(&self, name: &str) -> Result<Incoming, DeployError> {
        if !is_model_name(name) {
            return Err(DeployError::Name(shorten(name, 64)));
        }
        let received = self.bundles.receive(name);
        received.map_err(|error| self.not_kept(name, &error))
    }

    /// Builds, checks and warms what was received, publishes it under the next number and serves it.
    ///
    /// `record` is called when it is accepted, before it is published: whatever is to be known of it
    /// when the process ends in the next moment has to be durable when that returns. It may give the
    /// model roles, in which the version is served from its first moment on.
    ///
    /// # Errors
    /// Why not; nothing is published then.
    pub fn deploy(
        &self,
        name: &str,
        incoming: Incoming,
        record: impl FnOnce(&Accepted<'_>) -> Result<(), DeployError>,
    ) -> Result<Deployed, DeployError> {
        let mut known = self.changing();
        let started = Instant::now();
        let statistics = Arc::<Statistics>::default();
        let expected = self.next_number(name)?;
        let built = Files::read(incoming.folder()).and_then(|files| {
            let views = self.views.load();
            let counted = Arc::clone(&statistics);
            ModelVersion::build(files, name, &expected.to_string(), &views, counted)
        });
        note_load(started, built.is_ok());
        let version = built.map_err(|problem| DeployError::Refused {
            name: shorten(name, 64),
            problem,
        })?;
        trial::warm(&version);
        let load_time = started.elapsed();

        // Before it is said that it is there: little can go wrong afterwards.
        let synced = incoming.sync();
        synced.map_err(|error| self.not_kept(name, &error))?;
        // A folder may have come by hand while it was built.
        let number = self.next_number(name)?;
        let version = match number == expected {
            true => version,
            false => version.renumbered(&number.to_string()),
        };
        // It is the newest.
        let is_chosen = self.policy.loads(name, number, 0);
        record(&Accepted {
            number,
            version: &version,
            left_out_by: (!is_chosen).then(|| self.policy.setting(name)),
        })?;
        // It is in the ledger, whatever comes of it.
        self.note_number(name, number);
        let published = self.bundles.publish(incoming, number);
        published.map_err(|error| self.not_kept(name, &error))?;
        let bundle = BundleId {
            name: name.to_owned(),
            number,
        };
        let catalog = self.catalog();
        let before = catalog.model(name);
        known.unloaded.remove(name);
        let fingerprint = self.bundles.fingerprint(&bundle);
        known.read.insert(bundle, fingerprint);
        let version = Arc::new(version);
        let entry = Entry {
            name: name.to_owned(),
            version: number.to_string(),
            state: Ok(Arc::clone(&version)),
            not_reloaded: None,
            left_out: false,
            statistics,
        };
        announce(&entry);
        let mut versions: BTreeMap<u64, Entry> = before.map(versions_of).unwrap_or_default();
        versions.insert(number, entry);
        self.swap_in(name, versions);
        let champion = before.and_then(|model| model.champion());
        Ok(Deployed {
            number,
            version,
            load_time,
            champion: champion.map(|champion| champion.version.clone()),
        })
    }

    /// The number after the highest that there is or was, retired versions and those whose folder is
    /// gone included: a number never means two versions.
    fn next_number(&self, name: &str) -> Result<u64, DeployError> {
        let found = self.bundles.versions(name);
        let found = found.map_err(|error| self.not_kept(name, &error))?;
        let highest = found.last().map(|bundle| bundle.number);
        let highest = highest.max(self.highest_number(name)).unwrap_or(0);
        let next = highest.checked_add(1).ok_or_else(|| DeployError::NotKept {
            name: shorten(name, 64),
            place: self.bundles.place(),
            problem: format!("there is no number after {highest}"),
        })?;
        let free = self.bundles.free_number(name, next);
        free.map_err(|error| self.not_kept(name, &error))
    }

    fn not_kept(&self, name: &str, error: &std::io::Error) -> DeployError {
        DeployError::NotKept {
            name: shorten(name, 64),
            place: self.bundles.place(),
            problem: error.to_string(),
        }
    }

    /// [`Repository::deploy`] on the thread that loads.
    ///
    /// # Errors
    /// As [`Repository::deploy`].
    pub async fn deploy_aside(
        self: &Arc<Self>,
        name: String,
        incoming: Incoming,
        record: impl FnOnce(&Accepted<'_>) -> Result<(), DeployError> + Send + 'static,
    ) -> Result<Deployed, DeployError> {
        let repository = Arc::clone(self);
        let deployed = name.clone();
        let work = move || repository.deploy(&deployed, incoming, record);
        let done = self.loader.run(work).await;
        done.unwrap_or_else(|problem| {
            Err(DeployError::NotRecorded {
                name: shorten(&name, 64),
                problem,
            })
        })
    }
}

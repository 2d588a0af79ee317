//! New and changed files, seen by looking every now and then.
//!
//! A folder is read when it has looked the same twice: a copy that is still being made is not. What was
//! read is not read again until it looks different, whatever came of it.

use std::collections::{BTreeSet, HashMap};

use super::refresh::Look;
use super::{Known, Repository};
use crate::models::bundles::{BundleId, Fingerprint};
use crate::models::catalog::Entry;

impl Repository {
    /// Looks at every model's files, and loads what is new or changed and has come to rest. What was
    /// there before and cannot be replaced goes on as it was; the log says why.
    pub fn watch_once(&self) {
        let mut known = self.changing();
        let mut names = match self.bundles.models() {
            Ok(names) => names,
            // It was there when the server started; what is loaded is served on.
            Err(error) => {
                let place = self.bundles.place();
                tracing::warn!(place, error = %error, "the model folder cannot be read now");
                return;
            }
        };
        let catalog = self.catalog();
        names.extend(catalog.names().into_iter().map(str::to_owned));
        names.sort_unstable();
        names.dedup();
        let mut seen = HashMap::new();
        for name in names {
            if known.unloaded.contains(&name) {
                continue;
            }
            let Ok(found) = self.bundles.versions(&name) else {
                continue;
            };
            let settled = self.settled(&known, &found, &mut seen);
            let listed = catalog.model(&name).into_iter();
            let is_gone = listed
                .flat_map(|model| model.numbered())
                .any(|(number, _)| {
                    let name = name.clone();
                    let bundle = BundleId { name, number };
                    // One that is served on without a folder is known to be gone.
                    found.binary_search(&bundle).is_err() && known.read.contains_key(&bundle)
                });
            if settled.is_empty() && !is_gone {
                continue;
            }
            let look = |number: u64, entry: Option<&Entry>| match (settled.contains(&number), entry)
            {
                (true, _) => Look::Read,
                (false, Some(_)) => Look::Keep,
                (false, None) => Look::Pass,
            };
            if let Err(problem) = self.refresh(&mut known, &name, look) {
                tracing::error!(model = name, error = %problem, "models are loaded as they were");
            }
        }
        known.seen = seen;
        self.note_strays(&mut known);
    }

    /// Those of `found` whose files are new or changed and look as they did the last time.
    fn settled(
        &self,
        known: &Known,
        found: &[BundleId],
        seen: &mut HashMap<BundleId, Fingerprint>,
    ) -> BTreeSet<u64> {
        let mut settled = BTreeSet::new();
        for bundle in found {
            let now = self.bundles.fingerprint(bundle);
            let is_changed = known.read.get(bundle) != Some(&now);
            let has_graph = now.files[0].is_some();
            let is_at_rest = known.seen.get(bundle) == Some(&now);
            // A folder without a graph is one that somebody is about to fill, unless it had one.
            let is_new = !known.read.contains_key(bundle);
            if is_changed && is_at_rest && (has_graph || !is_new) {
                settled.insert(bundle.number);
            }
            seen.insert(bundle.clone(), now);
        }
        settled
    }
}

//! Everything at once, when the server starts: several versions at a time, because nobody waits for an
//! answer yet.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::sync::{Arc, OnceLock, PoisonError};

use onnx_ml::{Pool, ScopedThreads};

use super::{Known, Repository, catalog_of};
use crate::models::bundles::BundleId;
use crate::models::catalog::Entry;
use crate::models::statistics::Statistics;

/// How many versions are loaded at a time at most: each needs memory for its file and its graph.
const MAX_LOADING_THREADS: usize = 8;

impl Repository {
    /// Loads what is to be loaded of every model.
    ///
    /// # Errors
    /// When the place cannot be read as a whole.
    pub(super) fn load_all(&mut self) -> std::io::Result<()> {
        let mut known = Known::default();
        let roles = self
            .roles
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let mut models: BTreeMap<String, BTreeMap<u64, Entry>> = BTreeMap::new();
        let mut to_load: Vec<BundleId> = Vec::new();
        for name in self.bundles.models()? {
            let said = roles.get(&name).map(Arc::as_ref);
            let found = self.bundles.versions(&name).unwrap_or_default();
            let wanted = self.wanted(&name, &found, said);
            for bundle in found {
                if wanted.has(bundle.number) {
                    to_load.push(bundle);
                    continue;
                }
                let entry = self.left_out(&mut known, &bundle, None, said);
                let versions = models.entry(name.clone()).or_default();
                versions.insert(bundle.number, entry);
            }
        }
        for (bundle, entry) in self.load_several(&mut known, to_load) {
            let versions = models.entry(bundle.name).or_default();
            versions.insert(bundle.number, entry);
        }
        for (name, versions) in &mut models {
            let said = roles.get(name).map(Arc::as_ref);
            self.complete(&mut known, name, versions, said);
        }
        for (name, versions) in &models {
            if let Some((highest, _)) = versions.last_key_value() {
                self.note_number(name, *highest);
            }
        }
        self.note_strays(&mut known);
        self.loaded.store(Arc::new(catalog_of(models, &roles)));
        *self.changing() = known;
        Ok(())
    }

    fn load_several(&self, known: &mut Known, bundles: Vec<BundleId>) -> Vec<(BundleId, Entry)> {
        for bundle in &bundles {
            known
                .read
                .insert(bundle.clone(), self.bundles.fingerprint(bundle));
        }
        let entries: Vec<OnceLock<Entry>> = bundles.iter().map(|_| OnceLock::new()).collect();
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
        ScopedThreads(threads.min(MAX_LOADING_THREADS)).run(bundles.len(), &|index| {
            let bundle = &bundles[index];
            let statistics = Arc::<Statistics>::default();
            let state = self.build(bundle, None, &statistics);
            // Each place is written once, by whoever loads its folder.
            let _ = entries[index].set(Entry {
                name: bundle.name.clone(),
                version: bundle.version(),
                state,
                not_reloaded: None,
                left_out: false,
                statistics,
            });
        });
        let loaded = bundles.into_iter().zip(entries);
        loaded
            .filter_map(|(bundle, entry)| Some((bundle, entry.into_inner()?)))
            .collect()
    }
}

//! Reading every entity, in the order of the keys.

use std::sync::Arc;

use super::Inner;
use crate::features::view::View;
use crate::store::StoreError;
use crate::store::entity::Entity;
use crate::store::scan::{PAGE_BYTES, Page};

impl Inner {
    /// The next entities behind the key `after`, at most `limit`, as they are at `at_us`.
    ///
    /// The first page has the store write what is in memory only, so that every entity has a row: pages are
    /// read from the rows, and an entity that is newer in memory from there. Nothing is brought into memory
    /// for it, because whoever scans reads each entity once.
    pub fn scan(
        &self,
        view: &Arc<View>,
        after: Option<&str>,
        limit: usize,
        at_us: i64,
    ) -> Result<Page, StoreError> {
        if after.is_none() {
            self.checkpoint()?;
        }
        let rows = self.rows.page(&view.name, after, limit, PAGE_BYTES)?;
        let mut page = Page::default();
        for (row_key, value) in rows.rows {
            let key = row_key.get(view.name.len() + 1..).unwrap_or_default();
            let key = std::str::from_utf8(key).map_err(|_| StoreError::Damaged {
                view: view.name.clone(),
                problem: "a key is not UTF-8".to_owned(),
            })?;
            let shard = self.cache.shard_of(&row_key);
            let in_memory = self.cache.lock(shard).peek(&row_key, view, at_us)?;
            let snapshot = match in_memory {
                Some(snapshot) => snapshot,
                None => Some(Entity::decode(view, &value)?.snapshot(view, at_us)),
            };
            if rows.is_cut {
                page.next = Some(key.to_owned());
            }
            // Removed since it had its row.
            if let Some(snapshot) = snapshot {
                page.entities.push((key.to_owned(), snapshot));
            }
        }
        Ok(page)
    }
}

//! Reading every entity of a view with `SCAN`, in no order.
//!
//! Redis promises that a key that is there all the time is found, and may find it more than once while its
//! table grows or shrinks. The place where a scan goes on is worth nothing after Redis was started again. A
//! cluster is scanned node by node; what moves from one to another meanwhile may be missed.

use std::sync::Arc;

use ::redis::{Cmd, Pipeline, Value};

use super::{RedisStore, decode};
use crate::features::view::View;
use crate::store::StoreError;
use crate::store::scan::Page;

/// Keys whose values are asked for in one round trip.
const VALUES_AT_ONCE: usize = 512;

impl RedisStore {
    /// The entities that are found from the place `after` on: `limit` of them, or up to as many more as one
    /// `SCAN` finds.
    pub(super) async fn scan_page(
        &self,
        view: &Arc<View>,
        after: Option<&str>,
        limit: usize,
        at_us: i64,
    ) -> Result<Page, StoreError> {
        let nodes = self.nodes().await?;
        let (mut slot, mut cursor) = match after {
            Some(place) => read_place(place).ok_or_else(|| StoreError::Place(place.to_owned()))?,
            None => (nodes.first().copied().unwrap_or_default(), 0),
        };
        let (pattern, around) = self.layout.entities_of(view);
        let mut names: Vec<Vec<u8>> = Vec::new();
        let next = loop {
            let mut command = Cmd::new();
            command.arg("SCAN").arg(cursor).arg("MATCH").arg(&pattern);
            command.arg("COUNT").arg(limit);
            let found: (u64, Vec<Vec<u8>>) = self.links.read_at(slot, &command).await?;
            cursor = found.0;
            names.extend(found.1);
            if cursor == 0 {
                // This node has no more.
                match nodes.iter().find(|node| **node > slot) {
                    Some(next) => slot = *next,
                    None => break None,
                }
            }
            if names.len() >= limit {
                break Some(format!("{slot}:{cursor}"));
            }
        };
        let mut page = Page {
            entities: Vec::with_capacity(names.len()),
            next,
        };
        for names in names.chunks(VALUES_AT_ONCE) {
            let mut commands = Pipeline::with_capacity(names.len());
            for name in names {
                let mut get = Cmd::with_capacity(2, 128);
                get.arg("GET").arg(name);
                commands.add_command(get);
            }
            let values: Vec<Option<Vec<u8>>> = self.links.read_to_write(&commands).await?;
            for (name, value) in names.iter().zip(values) {
                let key = around.key_in(name).ok_or_else(|| StoreError::Damaged {
                    view: view.name.clone(),
                    problem: "a key is not UTF-8".to_owned(),
                })?;
                let entity = match &value {
                    Some(bytes) => decode(view, bytes)?.1,
                    None => None,
                };
                if let Some(entity) = entity {
                    page.entities.push((key, entity.snapshot(view, at_us)));
                }
            }
        }
        Ok(page)
    }

    /// The nodes that hold entities, each by the first slot that it has.
    async fn nodes(&self) -> Result<Vec<u16>, StoreError> {
        if !self.links.is_cluster() {
            return Ok(vec![0]);
        }
        let mut command = Cmd::new();
        command.arg("CLUSTER").arg("SLOTS");
        let ranges: Vec<Vec<Value>> = self.links.read_at(0, &command).await?;
        let mut ranges: Vec<(u16, Value)> =
            ranges.iter().filter_map(|range| first_of(range)).collect();
        ranges.sort_by_key(|(slot, _)| *slot);
        let mut known: Vec<Value> = Vec::new();
        ranges.retain(|(_, primary)| {
            let is_new = !known.contains(primary);
            if is_new {
                known.push(primary.clone());
            }
            is_new
        });
        match ranges.is_empty() {
            true => Err(StoreError::Unavailable(
                "no node of the cluster has slots".to_owned(),
            )),
            false => Ok(ranges.into_iter().map(|(slot, _)| slot).collect()),
        }
    }
}

/// The first slot of a range, and its primary.
fn first_of(range: &[Value]) -> Option<(u16, Value)> {
    match range {
        [Value::Int(first), _, primary, ..] => Some((u16::try_from(*first).ok()?, primary.clone())),
        _ => None,
    }
}

/// The first slot of a node, and the cursor there.
fn read_place(place: &str) -> Option<(u16, u64)> {
    let (slot, cursor) = place.split_once(':')?;
    Some((slot.parse().ok()?, cursor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_node_and_a_cursor() {
        assert_eq!(
            read_place("5461:18446744073709551615"),
            Some((5461, u64::MAX))
        );
        for place in ["", "C-1", "7", ":", "70000:1", "1:x"] {
            assert_eq!(read_place(place), None, "{place}");
        }
    }
}

//! The online store that `bellwether score` reads or writes.

use std::sync::Arc;

use super::remote::CredentialArgs;
use super::{open_store_and_ingest, runtime};
use crate::batch::score::store_access::StoreAccess;
use crate::config::{Config, StoreKind};
use crate::features::views::Views;
use crate::serve::definitions::open_store;

/// Entities of an embedded store that are kept in memory, in bytes: those that others are related to.
const CACHE_BYTES: u64 = 128 * 1024 * 1024;

/// What the command line says of the store.
pub struct Asked<'a> {
    pub server: Option<&'a str>,
    pub credentials: &'a CredentialArgs,
    pub is_read: bool,
    pub is_written: bool,
}

/// Opens the store, or prepares to ask the server that has it; `None` when it is neither read nor written.
///
/// # Errors
/// When a server has it open, it is not there, or the command line is wrong.
pub fn open(
    config: &Config,
    views: &Views,
    asked: &Asked<'_>,
) -> Result<Option<Arc<StoreAccess>>, String> {
    if !asked.is_read && !asked.is_written {
        return match asked.server {
            Some(_) => Err("--server: it is for --from-store and --to-store".to_owned()),
            None => Ok(None),
        };
    }
    if let Some(url) = asked.server {
        let server = asked.credentials.connect(url)?;
        return Ok(Some(Arc::new(StoreAccess::server(server))));
    }
    let kind = config.store.checked_kind()?;
    let data_dir = config.data_dir.display();
    let name = match kind {
        StoreKind::Redis => "on Redis".to_owned(),
        StoreKind::Embedded => format!("in {data_dir}"),
    };
    if kind == StoreKind::Embedded && asked.is_read && !config.data_dir.join("store").is_dir() {
        return Err(format!(
            "--from-store: there is no store in --data-dir {data_dir}; name the directory of the server, or the \
             server itself with --server URL"
        ));
    }
    let mut config = config.clone();
    let cache_bytes = config.store.cache_bytes.unwrap_or(CACHE_BYTES);
    config.store.cache_bytes = Some(cache_bytes.min(CACHE_BYTES));
    // A shared store is read beside the servers that use it. Whatever changes a store goes through the log,
    // and what the log of a stopped server has beyond its store is applied first.
    let is_only_read = kind == StoreKind::Redis && !asked.is_written;
    let (store, ingest) = match is_only_read {
        true => (open_store(&config)?, None),
        false => {
            let opened = open_store_and_ingest(&config, views);
            let (store, ingest) = opened.map_err(|problem| {
                format!("{problem}. The store of a running server is used with --server URL")
            })?;
            (store, Some(ingest))
        }
    };
    let access = StoreAccess::open(name, store, ingest, runtime()?);
    Ok(Some(Arc::new(access)))
}

//! What the configuration names, loaded or looked at: views, models, keys, the store.

use std::sync::Arc;

use super::auth::Auth;
use super::listener::Limits;
use super::tls::Tls;
use crate::config::{Config, StoreKind};
use crate::features::views::Views;
use crate::models::repository::Repository;
use crate::models::rollout::Role;
use crate::models::rollout::journal::State;
use crate::store::embedded::{self, EmbeddedStore};
use crate::store::redis::RedisStore;
use crate::store::{self, OnlineStore};

/// Loads views and models, in the roles that were said of them; a refused version is logged and
/// counted, and an error when strict.
///
/// # Errors
/// Every problem, one line each.
pub fn load_definitions(config: &Config) -> Result<(Views, Repository), String> {
    let views = Views::load(&config.features).map_err(|errors| errors.to_string())?;
    let roles = State::read(&config.data_dir)?;
    let repository = Repository::open_with(
        &config.models,
        &views,
        roles.roles,
        config.repository.clone(),
    );
    let mut problems = Vec::new();
    if let Some(reason) = repository.unreadable() {
        tracing::error!(reason, "not ready: no models");
        problems.push(reason.to_owned());
    }
    problems.extend(repository.strays());
    let catalog = repository.catalog();
    for (role, entry) in catalog.with_roles() {
        let folder = config.models.join(&entry.name).join(&entry.version);
        match &entry.state {
            Ok(version) => {
                let binds = version.scoring.is_ok();
                tracing::info!(
                    model = entry.name,
                    version = entry.version,
                    binds,
                    "model ready"
                );
            }
            Err(reason) if entry.left_out || role == Role::Retired => {
                tracing::info!(
                    model = entry.name,
                    version = entry.version,
                    reason,
                    "model not loaded"
                );
            }
            Err(reason) => {
                tracing::error!(
                    model = entry.name,
                    version = entry.version,
                    reason,
                    "model unavailable"
                );
                problems.push(format!("{}: {reason}", folder.display()));
            }
        }
    }
    for name in &config.require_models {
        if let Err(problem) = repository.find(name, None) {
            problems.push(format!("require_models: {problem}"));
        }
    }
    if config.strict && !problems.is_empty() {
        return Err(problems.join("\n"));
    }
    Ok((views, repository))
}

/// Whether keys and certificates can be used, without serving.
///
/// # Errors
/// The setting or the file that is wrong.
pub fn check_security(config: &Config) -> Result<(), String> {
    config.listen_address()?;
    config.grpc_listen_address()?;
    Limits::of(config)?;
    Auth::open(config)?;
    Tls::open(&config.tls)?;
    Ok(())
}

/// Whether the store's settings can be right, without opening it.
///
/// # Errors
/// The setting that is wrong, and what was expected.
pub fn check_store(config: &Config) -> Result<(), String> {
    match config.store.checked_kind()? {
        StoreKind::Embedded => Ok(()),
        StoreKind::Redis => RedisStore::check(&config.store),
    }
}

/// Opens the store that the configuration names: the embedded one in the data directory, or a shared
/// one.
///
/// # Errors
/// When it is in use by another process or cannot be opened, or a setting is wrong. That a shared
/// store cannot be reached now is no error.
pub fn open_store(config: &Config) -> Result<Arc<dyn OnlineStore>, String> {
    let data_dir = &config.data_dir;
    match config.store.checked_kind()? {
        StoreKind::Embedded => {
            let configured = config.store.cache_bytes;
            let cache_bytes = configured.unwrap_or_else(store::memory::default_cache_bytes);
            tracing::info!(
                cache_bytes,
                chosen_by = if configured.is_some() {
                    "store.cache_bytes"
                } else {
                    "the machine"
                },
                "memory for entities of the online store"
            );
            let options = embedded::Options {
                cache_bytes: usize::try_from(cache_bytes).unwrap_or(usize::MAX),
                ..embedded::Options::default()
            };
            EmbeddedStore::open_with(&data_dir.join("store"), options)
                .map(|store| Arc::new(store) as Arc<dyn OnlineStore>)
        }
        StoreKind::Redis => RedisStore::open(&config.store, data_dir)
            .map(|store| Arc::new(store) as Arc<dyn OnlineStore>),
    }
    .map_err(|error| error.to_string())
}

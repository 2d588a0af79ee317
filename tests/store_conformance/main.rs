//! The conformance suite of the online stores: one list of promises ([`cases`]), kept by the embedded
//! store and by a real Redis alike, alone, behind TLS and as a cluster. What only a shared store has to
//! promise is in [`shared`].
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods
)]

mod cases;
mod servers;
mod shared;
mod world;

use std::time::Duration;

use bellwether::config::{SecretUrl, StoreConfig};

use crate::cases::CASES;
use crate::servers::{RedisServer, make_certificates, redis_is_installed, start_cluster};
use crate::world::World;

/// Settings for a Redis on a machine that is busy with tests.
pub fn settings(url: &str) -> StoreConfig {
    StoreConfig {
        url: Some(SecretUrl::from(url)),
        connect_timeout: Duration::from_secs(10),
        timeout: Duration::from_secs(5),
        ..StoreConfig::default()
    }
}

/// Keeps every promise in a world of its own, on threads like those of a server.
fn keep_promises(shared: Option<&StoreConfig>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    for (number, (promise, case)) in CASES.iter().enumerate() {
        println!("{promise}");
        let shared = shared.map(|config| StoreConfig {
            key_prefix: format!("test{number}:"),
            ..config.clone()
        });
        let world = World::new(shared);
        runtime.block_on(case(&world));
    }
}

#[test]
fn the_embedded_store_keeps_its_promises() {
    keep_promises(None);
}

#[test]
fn redis_keeps_the_same_promises() {
    if redis_is_installed() {
        let redis = RedisServer::start(&[]);
        keep_promises(Some(&settings(&redis.url())));
    }
}

#[test]
fn a_cluster_keeps_the_same_promises() {
    if redis_is_installed() {
        let nodes = start_cluster();
        let first = &nodes[0].url();
        keep_promises(Some(&settings(&first.replace("redis:", "redis+cluster:"))));
        for node in &nodes {
            assert!(!servers::keys(node).is_empty(), "every node has a share");
        }
    }
}

#[test]
fn redis_behind_tls_keeps_the_same_promises() {
    if !redis_is_installed() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    make_certificates(dir.path());
    let file = |name: &str| dir.path().join(name).display().to_string();
    let redis = RedisServer::start_with(|port| {
        let mut arguments = ["--port", "0", "--tls-auth-clients", "no"]
            .map(str::to_owned)
            .to_vec();
        for (name, value) in [
            ("--tls-port", port.to_string()),
            ("--tls-cert-file", file("server.pem")),
            ("--tls-key-file", file("server.key")),
            ("--tls-ca-cert-file", file("ca.pem")),
        ] {
            arguments.extend([name.to_owned(), value]);
        }
        arguments
    });
    let with_authority = |name: &str| StoreConfig {
        tls_ca_file: Some(dir.path().join(name)),
        ..settings(&redis.url().replace("redis:", "rediss:"))
    };
    keep_promises(Some(&with_authority("ca.pem")));
    shared::is_refused(&with_authority("other.pem"), "certificate");
}

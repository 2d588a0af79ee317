//! Reading one entity of the embedded store: ten stored features and ten windows, of a random one of a
//! million entities: with all of them in memory, with a cache that holds few of them, and with the cache
//! that a server on this machine takes by itself.
//!
//!     cargo bench --bench online_store
//!
//! `ENTITIES` in the environment is how many there are, `EVENTS` how many events each of them has. What
//! the store says of its memory is printed beside what the process takes (Linux).

#![allow(clippy::print_stderr, reason = "a bench prints what it works on")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bellwether::features::change::{Change, Event, KeyColumn, ProfileUpdate, What};
use bellwether::features::value::Value;
use bellwether::features::view::View;
use bellwether::features::views::Views;
use bellwether::ingest::route::route;
use bellwether::store::OnlineStore;
use bellwether::store::embedded::{EmbeddedStore, Options};
use bellwether::store::entity::named_value;
use bellwether::store::memory::default_cache_bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use futures_util::FutureExt;

/// That of the server: a read that misses makes and drops dozens of small allocations.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type AnyError = Box<dyn std::error::Error>;

const STORED: usize = 10;
const BATCH: usize = 1_000;
const HOUR_US: i64 = 3_600_000_000;
const START_US: i64 = 1_750_000_000_000_000;

/// Memory for entities: enough for all of them, and for a few in a hundred.
const LARGE_BYTES: usize = 8 << 30;
const SMALL_BYTES: usize = 64 << 20;

/// Function, window, and what is aggregated.
const WINDOWS: [(&str, &str, &str); 10] = [
    ("count", "1h", ""),
    ("count", "30d", ""),
    ("sum", "24h", "minutes"),
    ("sum", "30d", "minutes"),
    ("avg", "7d", "minutes"),
    ("min", "30d", "minutes"),
    ("max", "30d", "minutes"),
    ("stddev", "30d", "minutes"),
    ("rate", "7d", ""),
    ("time_since_last", "90d", ""),
];

fn views(dir: &Path) -> Result<Views, AnyError> {
    let mut text = "[view]\nname = \"customer\"\nentity = \"customer_id\"\n".to_owned();
    for index in 0..STORED {
        text += &format!("[[feature]]\nname = \"stored_{index}\"\ntype = \"float64\"\n");
    }
    for (index, (function, window, value)) in WINDOWS.iter().enumerate() {
        let kind = if *function == "count" {
            "int64"
        } else {
            "float64"
        };
        let value = match value.is_empty() {
            true => String::new(),
            false => format!(", value = \"{value}\""),
        };
        text += &format!(
            "[[feature]]\nname = \"window_{index}\"\ntype = \"{kind}\"\naggregate = {{ event = \
             \"call\", function = \"{function}\", window = \"{window}\"{value} }}\n"
        );
    }
    std::fs::write(dir.join("customer.toml"), text)?;
    Ok(Views::load(dir)?)
}

fn key(index: usize) -> String {
    format!("C-{index:07}")
}

fn update(index: usize) -> Change {
    let feature = |feature: usize| {
        let value = Value::Float64((index * STORED + feature) as f64);
        named_value(&format!("stored_{feature}"), &value)
    };
    Change {
        known_at_us: None,
        what: Some(What::Update(ProfileUpdate {
            view: "customer".to_owned(),
            key: key(index),
            occurred_at_us: START_US,
            features: (0..STORED).map(feature).collect(),
        })),
    }
}

fn call(index: usize, number: usize, occurred_at_us: i64) -> Change {
    Change {
        known_at_us: None,
        what: Some(What::Event(Event {
            event_id: format!("E-{index}-{number}"),
            event: "call".to_owned(),
            keys: vec![KeyColumn {
                column: "customer_id".to_owned(),
                value: key(index),
            }],
            occurred_at_us,
            properties: format!("{{\"minutes\": {}.5}}", (index + number) % 60),
        })),
    }
}

/// Gives every entity its features and events, some hours apart.
fn load(
    store: &EmbeddedStore,
    views: &Views,
    entities: usize,
    events: usize,
) -> Result<i64, AnyError> {
    let mut sequence = 1;
    let mut now_us = START_US;
    for round in 0..=events {
        for first in (0..entities).step_by(BATCH) {
            let indices = first..entities.min(first + BATCH);
            let changes: Vec<Change> = indices
                .map(|index| match round {
                    0 => update(index),
                    _ => call(index, round, now_us),
                })
                .collect();
            let count = changes.len() as u64;
            let mut routed = route(views, changes);
            routed.number(sequence, now_us);
            let applied = store.apply(&routed.as_batch(0)).now_or_never();
            applied.ok_or("the store waits")??;
            sequence += count;
        }
        now_us += 7 * HOUR_US;
    }
    Ok(now_us)
}

fn bench(criterion: &mut Criterion) -> Result<(), AnyError> {
    let number = |name: &str, default: usize| match std::env::var(name) {
        Ok(text) => text.parse().map_err(|error| format!("{name}: {error}")),
        Err(_) => Ok(default),
    };
    let entities = number("ENTITIES", 1_000_000)?;
    let events = number("EVENTS", 5)?;
    let dir = tempfile::tempdir()?;
    let views = views(dir.path())?;
    let view = Arc::clone(views.get("customer").ok_or("no view customer")?);
    let store_dir = dir.path().join("store");
    let open = |cache_bytes| {
        let options = Options {
            cache_bytes,
            ..Options::default()
        };
        EmbeddedStore::open_with(&store_dir, options)
    };
    let resident_before = resident_bytes();
    let started = Instant::now();
    let store = open(LARGE_BYTES)?;
    let now_us = load(&store, &views, entities, events)?;
    let changes = entities * (events + 1);
    eprintln!(
        "{changes} changes applied at {:.0} a second",
        changes as f64 / started.elapsed().as_secs_f64(),
    );
    let say_memory = |store: &EmbeddedStore| {
        let usage = store.usage();
        let resident = resident_bytes().saturating_sub(resident_before);
        eprintln!(
            "{} entities in memory, {} bytes each as the store counts; the process has grown by {} bytes \
             for each, its buffers among them",
            usage.entities,
            usage.bytes / usage.entities.max(1),
            resident / usage.entities.max(1),
        );
    };
    say_memory(&store);
    let mut group = criterion.benchmark_group("read_20_features");
    let mut measure = |name: &str, store: &EmbeddedStore| {
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || key(fastrand::usize(0..entities)),
                |key| read(store, &view, &key, now_us),
                criterion::BatchSize::SmallInput,
            );
        });
    };
    measure("all_in_memory", &store);
    drop(store);
    measure("base_larger_than_cache", &open(SMALL_BYTES)?);
    let store = open(usize::try_from(default_cache_bytes()).unwrap_or(usize::MAX))?;
    // As in a server that has been up for some time.
    for index in 0..entities {
        read(&store, &view, &key(index), now_us);
    }
    say_memory(&store);
    measure("default_cache", &store);
    group.finish();
    Ok(())
}

fn read(store: &EmbeddedStore, view: &Arc<View>, key: &str, now_us: i64) -> usize {
    let wanted = [(view, key)];
    let found = store.read(&wanted, now_us).now_or_never();
    let snapshot = found.and_then(Result::ok).and_then(|mut found| found.pop());
    let snapshot = snapshot.flatten().unwrap_or_default();
    let values = snapshot.profile.len() + snapshot.windows.len();
    assert_eq!(values, STORED + WINDOWS.len());
    values
}

/// What the process takes of the machine's memory; 0 where that cannot be asked.
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split_whitespace().nth(1);
    pages
        .and_then(|pages| pages.parse::<usize>().ok())
        .unwrap_or(0)
        * 4096
}

fn run(criterion: &mut Criterion) {
    if let Err(error) = bench(criterion) {
        eprintln!("the bench could not run: {error}");
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(Duration::from_secs(5)).sample_size(50);
    targets = run
}
criterion_main!(benches);

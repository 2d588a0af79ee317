//! The hot path by stage: what one score of one customer spends its time in.
//!
//!     cargo bench --bench score_stages

#![allow(clippy::print_stderr, reason = "a bench prints why it could not run")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bellwether::clock;
use bellwether::features::change::ProfileUpdate;
use bellwether::features::value::Value;
use bellwether::features::view::View;
use bellwether::features::views::Views;
use bellwether::ledger::{Ledger, LedgerOptions};
use bellwether::models::repository::Repository;
use bellwether::score::assemble::{RowInput, assemble};
use bellwether::score::reasons::explain;
use bellwether::score::related::Related;
use bellwether::score::{ScoreRequest, Scorer};
use bellwether::store::embedded::EmbeddedStore;
use bellwether::store::entity::{Action, named_value};
use bellwether::store::{Batch, OnlineStore, Profile, StoredValue, ViewWork, Work, read_one};
use criterion::{Criterion, criterion_group, criterion_main};

type AnyError = Box<dyn std::error::Error>;

fn root(folder: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)
}

/// A customer with a value for every stored feature.
fn profile(view: &View) -> Profile {
    let mut profile = Profile::default();
    for feature in view.stored_features() {
        let value = match (&feature.default, feature.name.as_str()) {
            (Some(default), _) => default.clone(),
            (None, _) => Value::Float64(70.5),
        };
        profile.set(feature.name.clone(), StoredValue { value, as_of_us: 1 });
    }
    profile
}

fn stages(criterion: &mut Criterion) -> Result<(), AnyError> {
    let views = Views::load(&root("features"))?;
    let repository = Repository::open(&root("models"), &views);
    let view = views.get("customer").ok_or("no view customer")?.clone();
    let profile = profile(&view);
    let windows: Vec<Value> = view.window_columns().map(|_| Value::Int64(3)).collect();
    let row = RowInput {
        key: "C-1",
        profile: Some(&profile),
        windows: &windows,
        ..RowInput::default()
    };
    let stored_only: Vec<bool> = view
        .features()
        .iter()
        .map(|feature| feature.expression.is_none())
        .collect();
    let everything = vec![true; view.features().len()];

    let mut group = criterion.benchmark_group("one_row");
    group.bench_function("assemble_stored", |b| {
        b.iter(|| assemble(&view, &[row], &Related::default(), &stored_only))
    });
    group.bench_function("assemble_with_derived", |b| {
        b.iter(|| assemble(&view, &[row], &Related::default(), &everything))
    });
    let assembled = assemble(&view, &[row], &Related::default(), &everything)?;
    for name in ["churn", "upsell"] {
        let version = repository.find(name, None)?;
        let scoring = version
            .scoring
            .as_ref()
            .map_err(|problems| problems.join("; "))?;
        group.bench_function(format!("model_{name}"), |b| {
            b.iter(|| scoring.score(&version.graph, &assembled.batch));
        });
        let scored = scoring.score(&version.graph, &assembled.batch)?.remove(0);
        group.bench_function(format!("explain_{name}"), |b| {
            b.iter(|| {
                explain(
                    scoring,
                    &version.graph,
                    assembled.batch.columns(),
                    &scored,
                    3,
                )
            });
        });
    }

    let runtime = tokio::runtime::Runtime::new()?;
    let data_dir = tempfile::tempdir()?;
    let store = EmbeddedStore::open(&data_dir.path().join("store"))?;
    let features = profile.iter();
    let features = features.map(|(name, stored)| named_value(name, &stored.value));
    let update = ProfileUpdate {
        view: view.name.clone(),
        key: "C-1".to_owned(),
        occurred_at_us: 1,
        features: features.collect(),
    };
    let work = Work {
        change: 0,
        key: update.key.clone(),
        action: Action::Update(&update),
    };
    let batch = Batch {
        sequence: 1,
        changes: 1,
        segment: 0,
        known_at_us: clock::now_us(),
        views: vec![ViewWork {
            view: Arc::clone(&view),
            work: vec![work],
        }],
    };
    runtime.block_on(store.apply(&batch))?;
    group.bench_function("store_read", |b| {
        b.iter(|| runtime.block_on(read_one(&store, &view, "C-1", clock::now_us())));
    });

    let ledger = Ledger::open(data_dir.path(), LedgerOptions::default())?;
    let scorer = Scorer::new(
        views,
        Arc::new(repository),
        Arc::new(store),
        Arc::new(ledger),
    );
    let request = ScoreRequest {
        customer_id: "C-1".to_owned(),
        ..ScoreRequest::default()
    };
    group.bench_function("whole_two_models_with_ledger", |b| {
        b.iter(|| runtime.block_on(scorer.score(&request)));
    });
    group.finish();
    scorer.ledger.close()?;
    Ok(())
}

fn run(criterion: &mut Criterion) {
    if let Err(error) = stages(criterion) {
        eprintln!("the bench could not run: {error}");
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(Duration::from_secs(3)).sample_size(50);
    targets = run
}
criterion_main!(benches);

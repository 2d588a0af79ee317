//! A server's way of changes without the server: ledger, applier and embedded store in a directory,
//! with the clock in the test's hands.
#![allow(dead_code, clippy::unwrap_used)]

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use bellwether::features::change::{
    Change, Event, KeyColumn, NamedValue, ProfileUpdate, Removal, Scalar, What,
};
use bellwether::features::column::value_at;
use bellwether::features::value::Value;
use bellwether::features::views::Views;
use bellwether::history::Bounds;
use bellwether::ingest::Ingest;
use bellwether::ledger::{Ledger, LedgerOptions};
use bellwether::score::assemble::{RowInput, assemble};
use bellwether::score::read_related;
use bellwether::store::embedded::EmbeddedStore;
use bellwether::store::{OnlineStore, read_one};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tempfile::TempDir;

pub const SECOND: i64 = 1_000_000;
pub const HOUR: i64 = 3_600 * SECOND;
pub const DAY: i64 = 24 * HOUR;
/// A Thursday in 2026 at an odd time.
pub const START: i64 = 1_769_000_123_456_789;

pub struct Online {
    pub views: Views,
    pub store: Arc<dyn OnlineStore>,
    pub ledger: Arc<Ledger>,
    pub ingest: Ingest,
    runtime: tokio::runtime::Runtime,
    /// Last, so that it is removed when nobody writes to it any more.
    pub dir: TempDir,
}

pub fn views(files: &[(&str, &str)]) -> Views {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join(format!("{name}.toml")), text).unwrap();
    }
    Views::load(dir.path()).unwrap()
}

impl Online {
    pub fn new(views: &Views) -> Online {
        Online::open(tempfile::tempdir().unwrap(), views)
    }

    fn open(dir: TempDir, views: &Views) -> Online {
        let ledger = Arc::new(Ledger::open(dir.path(), LedgerOptions::default()).unwrap());
        let store: Arc<dyn OnlineStore> =
            Arc::new(EmbeddedStore::open(&dir.path().join("store")).unwrap());
        let ingest = Ingest::start(
            Arc::new(ArcSwap::from_pointee(views.clone())),
            Arc::clone(&ledger),
            Arc::clone(&store),
            dir.path().to_owned(),
        )
        .unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        Online {
            views: views.clone(),
            store,
            ledger,
            ingest,
            runtime,
            dir,
        }
    }

    /// Stopped, and started with other views.
    pub fn restarted(self, views: &Views) -> Online {
        let Online {
            dir,
            store,
            ledger,
            ingest,
            ..
        } = self;
        ingest.close();
        ledger.close().unwrap();
        drop((ingest, store, ledger));
        Online::open(dir, views)
    }

    pub fn submit(&self, changes: Vec<Change>, known_at_us: i64) {
        let submitted = self.ingest.submit_known_at(changes, known_at_us);
        self.runtime.block_on(submitted).unwrap();
    }

    /// Every feature of an entity as a score at `at_us` gets it, and the last change in it.
    pub fn read(&self, view: &str, key: &str, at_us: i64) -> (Vec<Value>, Option<u64>) {
        let view = self.views.get(view).unwrap();
        let needed = vec![true; view.features().len()];
        let context: Vec<(usize, Value)> = view.request_time(at_us).collect();
        let read = async {
            let seen = read_one(&*self.store, view, key, at_us).await.unwrap();
            let row = RowInput {
                key,
                profile: seen.as_ref().map(|seen| &seen.profile),
                windows: seen.as_ref().map(|seen| &*seen.windows).unwrap_or_default(),
                context: &context,
                overrides: &[],
            };
            let related = read_related(&*self.store, view, &row, &needed, at_us)
                .await
                .unwrap();
            let assembled = assemble(view, &[row], &related, &needed).unwrap();
            let columns = assembled.batch.columns().iter();
            let values = columns.map(|column| value_at(column, 0)).collect();
            (values, seen.map(|seen| seen.applied))
        };
        self.runtime.block_on(read)
    }

    pub fn bounds(&self, memory_bytes: usize) -> Bounds {
        Bounds {
            temp_bytes: u64::MAX,
            memory_bytes,
            temp_dir: self.dir.path().join("tmp"),
        }
    }
}

pub fn event(
    customer: &str,
    id: &str,
    name: &str,
    occurred_at_us: i64,
    properties: &str,
) -> Change {
    event_of(
        "customer_id",
        customer,
        id,
        name,
        occurred_at_us,
        properties,
    )
}

pub fn event_of(
    column: &str,
    key: &str,
    id: &str,
    name: &str,
    occurred_at_us: i64,
    properties: &str,
) -> Change {
    Change {
        known_at_us: None,
        what: Some(What::Event(Event {
            event_id: id.to_owned(),
            event: name.to_owned(),
            keys: vec![KeyColumn {
                column: column.to_owned(),
                value: key.to_owned(),
            }],
            occurred_at_us,
            properties: properties.to_owned(),
        })),
    }
}

pub fn update(view: &str, key: &str, occurred_at_us: i64, features: &[(&str, Scalar)]) -> Change {
    let features = features.iter().map(|(name, value)| NamedValue {
        name: (*name).to_owned(),
        value: Some(value.clone()),
    });
    Change {
        known_at_us: None,
        what: Some(What::Update(ProfileUpdate {
            view: view.to_owned(),
            key: key.to_owned(),
            occurred_at_us,
            features: features.collect(),
        })),
    }
}

pub fn removal(view: &str, key: &str) -> Change {
    Change {
        known_at_us: None,
        what: Some(What::Removal(Removal {
            view: view.to_owned(),
            key: key.to_owned(),
        })),
    }
}

/// The rows of a Parquet file as one batch.
pub fn read_parquet(file: &Path) -> RecordBatch {
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(file).unwrap()).unwrap();
    let schema = Arc::clone(builder.schema());
    let batches: Vec<RecordBatch> = builder.build().unwrap().map(Result::unwrap).collect();
    concat_batches(&schema, &batches).unwrap()
}

/// The values in `row` of the columns from `first` on.
pub fn row_values(batch: &RecordBatch, row: usize, first: usize) -> Vec<Value> {
    let columns = batch.columns()[first..].iter();
    columns.map(|column| value_at(column, row)).collect()
}

/// Values as text that tells apart what is not the same bits.
pub fn exactly(values: &[Value]) -> Vec<String> {
    let text = |value: &Value| match value {
        Value::Float64(float) => format!("{float:?} {:016x}", float.to_bits()),
        other => format!("{other:?}"),
    };
    values.iter().map(text).collect()
}

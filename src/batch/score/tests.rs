//! What a job does when something is wrong with its files: it stops there, and nothing behind the place
//! counts.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::Schema;

use super::bind::{ColumnOptions, bind};
use super::folder::JobFolder;
use super::inputs::{describe, find};
use super::limit::RejectLimit;
use super::plan::Plan;
use super::sink::{Done, Sink};
use super::source::{Item, Position, Source};
use super::watch::Watch;
use super::write::OutputFormat;
use crate::features::view::View;

const VIEW: &str = r#"
[view]
name = "customer"
entity = "customer_id"
[[feature]]
name = "tenure"
type = "int64"
"#;

/// No models, over one feature.
pub fn plan() -> Plan {
    let view = View::parse(VIEW).unwrap();
    Plan {
        needed: vec![true],
        models: Vec::new(),
        explain: None,
        columns: ColumnOptions::default(),
        request_time: Vec::new(),
        schema: Arc::new(Schema::empty()),
        chunk_rows: 2,
        checkpoint_rows: 1000,
        bands: Vec::new(),
        at_us: 0,
        view: Arc::new(view),
    }
}

fn names(files: &[PathBuf]) -> Vec<String> {
    let name = |file: &PathBuf| file.file_name().unwrap().to_string_lossy().into_owned();
    files.iter().map(name).collect()
}

#[test]
fn behind_a_place_that_cannot_be_read_nothing_comes() {
    // Given a file with a record that is longer than any may be, and good rows before and behind it
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("base.csv");
    let too_long = "9".repeat(5 * 1024 * 1024);
    let text = format!("customer_id,tenure\na,1\nb,2\nc,{too_long}\nd,4\ne,5\n");
    std::fs::write(&file, text).unwrap();
    let files = describe(find(&[file]).unwrap()).unwrap();
    let plan = plan();
    let mut source = Source::new(&plan, &files, Position::default());
    let first = source.next_item().unwrap();
    assert!(matches!(first, Some((0, Item::Chunk(chunk))) if chunk.rows == 2));
    // When it is read to there, then it is said once, and no thread that asks gets more: no rows, and no
    // end of a part
    assert!(source.next_item().unwrap_err().contains("base.csv"));
    for _ in 0..3 {
        assert!(source.next_item().unwrap().is_none());
    }
}

#[test]
fn behind_what_was_not_written_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let plan = plan();
    let folder = JobFolder::open(&dir.path().join("scores.csv")).unwrap();
    let watch = Watch::begin(&[]).unwrap();
    let new_sink = || {
        Sink::new(
            &plan,
            &folder,
            OutputFormat::Csv,
            RejectLimit::Usual,
            &watch,
            Vec::new(),
        )
    };
    let end = || Done::EndOfPart(Position::default());
    // Given a place to write to that is in the way
    let blocked = folder.unfinished("part");
    std::fs::create_dir(&blocked).unwrap();
    let mut sink = new_sink();
    assert!(sink.put(0, end()).is_err());
    // When it is free again, then the parts that follow are refused all the same
    std::fs::remove_dir(&blocked).unwrap();
    let refused = sink.put(1, end()).unwrap_err();
    assert!(refused.contains("an earlier part"), "{refused}");
    assert!(sink.parts.is_empty() && !folder.part_file(0).exists());
    // And a job that begins there writes them
    let mut sink = new_sink();
    sink.put(0, end()).unwrap();
    assert_eq!(sink.parts.len(), 1);
    assert!(folder.part_file(0).exists());
}

#[test]
fn a_file_is_read_once_whatever_it_is_called() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("base.csv"), "customer_id\na\n").unwrap();
    std::fs::create_dir(path("more")).unwrap();
    symlink(path("base.csv"), path("link.csv")).unwrap();
    let twice = |other: &Path| {
        let refused = find(&[path("base.csv"), other.to_owned()]).unwrap_err();
        assert!(refused.contains("named twice"), "{refused}");
        assert!(refused.contains(&other.display().to_string()), "{refused}");
    };
    twice(&path("link.csv"));
    twice(&path("more/../base.csv"));
    assert_eq!(names(&find(&[path("link.csv")]).unwrap()), ["link.csv"]);
}

#[test]
fn what_earlier_jobs_rejected_is_no_input_unless_it_is_named() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["base.ndjson", "scores.csv.rejects.ndjson", "rejects.ndjson"] {
        std::fs::write(dir.path().join(name), "{\"customer_id\": \"a\"}\n").unwrap();
    }
    let expected = ["base.ndjson", "rejects.ndjson"];
    for input in ["", "*.ndjson", "**/*"] {
        let found = find(&[dir.path().join(input)]).unwrap();
        assert_eq!(names(&found), expected, "{input}");
    }
    // Rows that were put right can be scored again.
    let rejects = "scores.csv.rejects.ndjson";
    let found = find(&[dir.path().join(rejects)]).unwrap();
    assert_eq!(names(&found), [rejects]);
}

#[test]
fn two_columns_of_one_name_are_refused() {
    let view = View::parse(VIEW).unwrap();
    let try_bind = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        bind(&names, &view, &[true], &ColumnOptions::default())
    };
    for (columns, twice) in [
        (["customer_id", "tenure", "tenure"], "tenure"),
        (["customer_id", "tenure", "customer_id"], "customer_id"),
    ] {
        let refused = try_bind(&columns).unwrap_err();
        let expected = format!("2 columns are called {twice}");
        assert!(refused.contains(&expected), "{refused}");
    }
    // Of columns that nothing is read of it does not matter.
    let binding = try_bind(&["customer_id", "tenure", "x", "x"]).unwrap();
    assert_eq!(binding.unread, ["x", "x"]);
}

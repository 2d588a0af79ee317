use std::time::{Duration, Instant};

use super::super::key_file::{KeyEntry, Time};
use super::super::scope::Scope;
use super::super::secret;
use super::*;
use crate::ledger::{LedgerOptions, last_audits};

fn entry(id: &str) -> KeyEntry {
    KeyEntry {
        id: id.to_owned(),
        name: "assembly engine".to_owned(),
        sha256: secret::new_key(id).unwrap().digest,
        scopes: vec![Scope::Score],
        created: Time(1_769_860_800_000_000),
        expires: None,
        rate_per_second: None,
        burst: None,
        revoked: None,
        previous: None,
    }
}

fn file(ids: &[&str]) -> KeyFile {
    KeyFile {
        keys: ids.iter().map(|id| entry(id)).collect(),
    }
}

fn ledger(data_dir: &Path) -> Arc<Ledger> {
    Arc::new(Ledger::open(data_dir, LedgerOptions::default()).unwrap())
}

/// A server's life: it looks at the keys, one file after the other, each until nothing waits any more.
fn life(data_dir: &Path, files: &[&KeyFile]) {
    let ledger = ledger(data_dir);
    let mut record = KeyRecord::open(data_dir, Arc::clone(&ledger));
    for file in files {
        settle(&mut record, file);
    }
    ledger.close().unwrap();
}

fn settle(record: &mut KeyRecord, file: &KeyFile) {
    let keys = fingerprints(file);
    let deadline = Instant::now() + Duration::from_secs(60);
    record.look(&keys);
    while record.state.as_ref().unwrap().waiting.is_some() {
        assert!(Instant::now() < deadline, "{:?}", record.problem);
        std::thread::yield_now();
        record.look(&keys);
    }
}

/// Action and details of every row, the oldest first.
fn rows(data_dir: &Path) -> Vec<(String, Json)> {
    let newest = last_audits(data_dir, 100).unwrap().newest;
    let rows = newest.into_iter().rev();
    rows.map(|row| (row.action, serde_json::from_str(&row.details).unwrap()))
        .collect()
}

fn change(added: &[&str], changed: &[&str], removed: &[&str], is_found: bool) -> (String, Json) {
    let mut details = json!({"added": added, "changed": changed, "removed": removed});
    if is_found {
        details["found"] = "at the start".into();
    }
    ("keys.change".to_owned(), details)
}

#[test]
fn what_was_changed_while_no_server_ran_is_recorded_once_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    // Given a server without keys, so that there is nothing to say
    life(dir.path(), &[&KeyFile::default()]);
    assert_eq!(rows(dir.path()), []);
    // When keys are made while none runs, and it is started again and again
    let made = file(&["a1", "b2", "c3"]);
    for _ in 0..3 {
        life(dir.path(), &[&made]);
    }
    // Then one row says so
    let first = [change(&["a1", "b2", "c3"], &[], &[], true)];
    assert_eq!(rows(dir.path()), first);
    // And so it is of every other change, and of one while it runs
    let mut other = made.clone();
    other.keys[0].scopes.push(Scope::Admin);
    other.keys.remove(1);
    let mut rotated = other.clone();
    rotated.keys[1].sha256 = secret::new_key("c3").unwrap().digest;
    life(dir.path(), &[&other, &rotated, &rotated]);
    let later = [
        change(&[], &["a1"], &["b2"], true),
        change(&[], &["c3"], &[], false),
    ];
    assert_eq!(rows(dir.path()), [&first[..], &later].concat());
}

#[test]
fn keys_that_were_there_before_anybody_looked_are_no_change() {
    let dir = tempfile::tempdir().unwrap();
    let keys = file(&["a1", "b2"]);
    life(dir.path(), &[&keys]);
    let found = [("keys.found".to_owned(), json!({"keys": ["a1", "b2"]}))];
    assert_eq!(rows(dir.path()), found);
    // A file that is lost or broken is begun anew, which is said in the same way
    std::fs::write(dir.path().join(FILE), "{\"format\": 2}").unwrap();
    life(dir.path(), &[&keys]);
    life(dir.path(), &[&keys]);
    assert_eq!(rows(dir.path()), [&found[..], &found].concat());
}

#[test]
fn the_first_key_of_a_running_server_is_a_change() {
    let dir = tempfile::tempdir().unwrap();
    life(dir.path(), &[&KeyFile::default(), &file(&["a1"])]);
    assert_eq!(rows(dir.path()), [change(&["a1"], &[], &[], false)]);
}

#[test]
fn a_change_is_in_one_row_wherever_the_process_ends() {
    let dir = tempfile::tempdir().unwrap();
    let keys = file(&["a1"]);
    let changed = file(&["a1"]);
    life(dir.path(), &[&keys]);
    // Given that it ends when the row is in the ledger, and nobody has noted that
    let ledger_of_first = ledger(dir.path());
    let mut record = KeyRecord::open(dir.path(), Arc::clone(&ledger_of_first));
    record.look(&fingerprints(&changed));
    assert!(record.state.as_ref().unwrap().waiting.is_some());
    ledger_of_first.close().unwrap();
    drop((record, ledger_of_first));
    // Or, the next time, before the row gets to the ledger
    let ledger_of_second = ledger(dir.path());
    let mut record = KeyRecord::open(dir.path(), Arc::clone(&ledger_of_second));
    settle(&mut record, &changed);
    ledger_of_second.close().unwrap();
    record.look(&fingerprints(&keys));
    assert!(record.problem.is_some());
    drop((record, ledger_of_second));
    // When it starts again, then each change is in one row
    for _ in 0..2 {
        life(dir.path(), &[&keys]);
    }
    let recorded = rows(dir.path());
    let expected = [
        ("keys.found".to_owned(), json!({"keys": ["a1"]})),
        change(&[], &["a1"], &[], true),
        change(&[], &["a1"], &[], false),
    ];
    assert_eq!(recorded, expected);
}

#[test]
fn what_cannot_be_written_down_is_recorded_later_and_together() {
    let dir = tempfile::tempdir().unwrap();
    let gone = dir.path().join("gone");
    let ledger = ledger(dir.path());
    let mut record = KeyRecord::open(dir.path(), Arc::clone(&ledger));
    settle(&mut record, &KeyFile::default());
    // Given a data directory that takes no file
    record.data_dir = gone;
    for ids in [&["a1"][..], &["a1", "b2"]] {
        record.look(&fingerprints(&file(ids)));
        assert!(record.problem.is_some());
    }
    // When it does again
    record.data_dir = dir.path().to_owned();
    settle(&mut record, &file(&["a1", "b2"]));
    ledger.close().unwrap();
    assert_eq!(rows(dir.path()), [change(&["a1", "b2"], &[], &[], false)]);
}

#[test]
fn neither_row_nor_file_says_anything_of_a_secret() {
    let dir = tempfile::tempdir().unwrap();
    let keys = file(&["a1"]);
    let mut changed = keys.clone();
    changed.keys[0].sha256 = secret::new_key("a1").unwrap().digest;
    life(dir.path(), &[&keys, &changed]);
    let mut said = std::fs::read_to_string(dir.path().join(FILE)).unwrap();
    for (_, details) in rows(dir.path()) {
        said += &details.to_string();
    }
    assert!(said.contains("a1"));
    for key in [&keys.keys[0], &changed.keys[0]] {
        let digest = serde_json::to_value(key.sha256).unwrap();
        assert!(!said.contains(digest.as_str().unwrap()), "{said}");
    }
}

//! Which events are recognised, compared with a plain list of all of them.

use proptest::prelude::*;

use super::files::run_path;
use super::filters::Pool;
use super::run::RunWriter;
use super::*;

const HOUR_US: i64 = 3_600_000_000;

fn record(identity: u128, sequence: u64, hours: i64) -> Record {
    Record {
        identity,
        sequence,
        known_at_us: hours * HOUR_US,
    }
}

fn add(recent: &Recent, record: Record) -> bool {
    let mut session = recent.session(record.known_at_us).unwrap();
    let is_new = !session.is_duplicate(&record).unwrap();
    if is_new {
        session.remember(record).unwrap();
    }
    is_new
}

#[derive(Clone, Debug)]
enum Step {
    Event(u128),
    Wait(i64),
    Sync,
    Reopen,
    Settle,
}

fn any_step() -> impl Strategy<Value = Step> {
    // Some identities have the same beginning, as an attacker could arrange.
    let identity = prop_oneof![
        (0..200_u128)
            .prop_map(|number| number.wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835)),
        (0..50_u128).prop_map(|number| (7 << 64) + number),
    ];
    prop_oneof![
        60 => identity.prop_map(Step::Event),
        2 => (1..9_i64).prop_map(Step::Wait),
        1 => Just(Step::Sync),
        1 => Just(Step::Reopen),
        1 => Just(Step::Settle),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn an_event_is_new_once_in_24_hours(steps in prop::collection::vec(any_step(), 1..600)) {
        let dir = tempfile::tempdir().unwrap();
        let mut recent = Recent::open(dir.path(), 0, 0, 16).unwrap();
        let mut log: Vec<(Record, bool)> = Vec::new();
        let mut hours = 0;
        let mut synced = 0;
        for step in steps {
            match step {
                Step::Event(identity) => {
                    let event = record(identity, log.len() as u64 + 1, hours);
                    let mut earlier = log.iter().filter(|(other, new)| *new && other.identity == identity);
                    let expected = !earlier.any(|(other, _)| other.makes_duplicate(&event));
                    prop_assert_eq!(add(&recent, event), expected);
                    log.push((event, expected));
                }
                Step::Wait(more) => hours += more,
                Step::Sync => {
                    recent.sync().unwrap();
                    synced = log.len();
                    recent.checkpointed(hours * HOUR_US);
                }
                Step::Settle => recent.settle(),
                Step::Reopen => {
                    drop(recent);
                    let known_at_us = log[..synced].last().map_or(0, |(event, _)| event.known_at_us);
                    recent = Recent::open(dir.path(), synced as u64 + 1, known_at_us, 16).unwrap();
                    for (event, expected) in &log[synced..] {
                        prop_assert_eq!(add(&recent, *event), *expected, "replayed {:?}", event);
                    }
                }
            }
        }
    }
}

#[test]
fn files_are_merged_and_deleted_when_their_events_are_24_hours_old() {
    let dir = tempfile::tempdir().unwrap();
    let recent = Recent::open(dir.path(), 0, 0, 64).unwrap();
    for number in 0..4_000_u64 {
        let identity = xxhash_rust::xxh3::xxh3_128(&number.to_le_bytes());
        assert!(add(&recent, record(identity, number + 1, 0)));
    }
    recent.settle();
    let files = recent.files();
    assert!((1..=12).contains(&files), "{files} files");
    assert!(!add(
        &recent,
        record(xxhash_rust::xxh3::xxh3_128(&7_u64.to_le_bytes()), 5_000, 23)
    ));

    // Not before what came meanwhile is checkpointed.
    assert!(add(&recent, record(1, 5_001, 25)));
    recent.settle();
    assert!(recent.files() >= files);
    recent.checkpointed(25 * HOUR_US);
    recent.settle();
    assert!(recent.files() <= 1, "{} files", recent.files());
}

#[test]
fn a_file_is_read_the_same_with_and_without_its_filters_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let identity = |number: u64| xxhash_rust::xxh3::xxh3_128(&number.to_le_bytes());
    let mut records: Vec<Record> = (0..5_000).map(|n| record(identity(n), n + 1, 0)).collect();
    records.sort_unstable();
    let mut writer = RunWriter::create(dir.path().join("a.run"), 1, 5_000).unwrap();
    for record in &records {
        writer.add(*record).unwrap();
    }
    let run = writer.finish().unwrap();
    let mut filters = Pool::new(1 << 20).take(run.groups()).unwrap();
    run.read_filters(&mut filters).unwrap();
    let mut buffer = Vec::new();
    for number in 0..10_000 {
        for filters in [None, Some(&filters)] {
            let mut found = Vec::new();
            run.find(identity(number), filters, &mut buffer, |record| {
                found.push(record)
            })
            .unwrap();
            let expected = (number < 5_000).then(|| record(identity(number), number + 1, 0));
            assert_eq!(found, Vec::from_iter(expected));
        }
    }
}

#[test]
fn files_that_were_merged_across_the_place_of_the_replay_recognise_every_event_once() {
    let identity = |number: u64| xxhash_rust::xxh3::xxh3_128(&number.to_le_bytes());
    for checkpointed in [0, 1, 15, 16, 17, 40, 64, 100, 255, 256, 299, 300] {
        let dir = tempfile::tempdir().unwrap();
        let recent = Recent::open(dir.path(), 0, 0, 16).unwrap();
        for number in 1..=300 {
            assert!(add(&recent, record(identity(number), number, 0)));
            if number == checkpointed {
                recent.sync().unwrap();
                recent.checkpointed(0);
            }
        }
        // Merged over the checkpoint, and then the power goes: of the tail nothing is left.
        recent.settle();
        drop(recent);
        if checkpointed == 0 {
            for tail in std::fs::read_dir(dir.path()).unwrap() {
                let tail = tail.unwrap().path();
                if tail
                    .extension()
                    .is_some_and(|extension| extension == "tail")
                {
                    std::fs::remove_file(tail).unwrap();
                }
            }
        }
        let mut recent = Recent::open(dir.path(), checkpointed + 1, 0, 16).unwrap();
        for number in checkpointed + 1..=300 {
            assert!(
                add(&recent, record(identity(number), number, 0)),
                "the replay brings event {number} again, after {checkpointed}"
            );
        }
        for restarts in 0..2 {
            for number in 1..=300 {
                assert!(
                    !add(&recent, record(identity(number), 300 + number, 1)),
                    "event {number} sent again, after {checkpointed}, {restarts} restarts"
                );
            }
            recent.sync().unwrap();
            recent.settle();
            drop(recent);
            recent = Recent::open(dir.path(), 301, 0, 16).unwrap();
        }
    }
}

#[test]
fn a_damaged_file_is_named_and_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = run_path(dir.path(), 1, 1, 1);
    let mut writer = RunWriter::create(path.clone(), 1, 1).unwrap();
    writer.add(record(5, 1, 0)).unwrap();
    drop(writer.finish().unwrap());
    let whole = std::fs::read(&path).unwrap();
    for (bytes, problem) in [
        (&whole[..20], "too short"),
        (&whole[..whole.len() - 1], "does not end"),
        (&whole[32..], "length"),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let error = Recent::open(dir.path(), 1, 0, 16)
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains(problem) && error.contains(".run"), "{error}");
    }
}

//! Rows on disk: those of another view or of an older directory, a damaged one, and whose they are.

use super::*;
use crate::store::entity::Action;

#[test]
fn a_changed_view_reads_what_was_stored_under_the_old_one() {
    let old_views = views(CUSTOMER);
    let new_views = views(&format!("{CUSTOMER}{MORE}"));
    let (old, new) = (view(&old_views), view(&new_views));
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1 << 20);
    let mut log = Log::new();
    let minute_us = 60_000_000;
    let at_us = START_US + 10 * minute_us;
    let first = log.push(vec![
        update("C-1", 3, START_US),
        ticket("C-1", "E-1", START_US),
    ]);
    log.apply(first, &store, &old_views);
    // It is newer than its row, and a reader comes with the new view.
    let found = read(&store, &new, "C-1", at_us).unwrap();
    assert_eq!(found.windows, [Value::Int64(1), Value::Null]);

    log.known_at_us += minute_us;
    let second = log.push(vec![ticket("C-1", "E-2", START_US + minute_us)]);
    log.apply(second, &store, &new_views);
    let found = read(&store, &new, "C-1", at_us).unwrap();
    assert_eq!(found.windows, [Value::Int64(2), Value::Float64(2.5)]);

    // A request that began under the old view takes nothing away.
    store.inner.checkpoint().unwrap();
    let found = read(&store, &old, "C-1", at_us).unwrap();
    assert_eq!(found.windows, [Value::Int64(2)]);
    log.known_at_us += minute_us;
    let third = log.push(vec![update("C-1", 4, START_US)]);
    log.apply(third, &store, &new_views);
    let found = read(&store, &new, "C-1", at_us).unwrap();
    assert_eq!(found.windows, [Value::Int64(2), Value::Float64(2.5)]);
    assert_eq!(found.profile.get("tenure").unwrap().value, Value::Int64(4));
}

#[test]
fn rows_of_older_data_directories_are_read() {
    let views = views(CUSTOMER);
    let view = view(&views);
    let dir = tempfile::tempdir().unwrap();
    {
        let database = fjall::Database::builder(dir.path()).open().unwrap();
        let options = fjall::KeyspaceCreateOptions::default;
        let profiles = database.keyspace("profiles", options).unwrap();
        let mut entity = Entity::default();
        let update = ProfileUpdate {
            occurred_at_us: START_US,
            features: vec![named_value("tenure", &Value::Int64(5))],
            ..ProfileUpdate::default()
        };
        entity.fold(&view, &Action::Update(&update), 0, START_US);
        profiles
            .insert(row_key("customer", "C-1"), entity.encode(&view))
            .unwrap();
        database.persist(fjall::PersistMode::SyncAll).unwrap();
    }
    let store = open(dir.path(), 1 << 20);
    assert_eq!(store.watermark(), Watermark::default());
    let found = read(&store, &view, "C-1", START_US).unwrap();
    assert_eq!(found.profile.get("tenure").unwrap().value, Value::Int64(5));
    assert_eq!(state(&store, &view).len(), 1);
}

#[test]
fn a_damaged_row_concerns_its_entity_only_until_that_is_removed() {
    let views = views(CUSTOMER);
    let view = view(&views);
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::new();
    let store = open(dir.path(), 1 << 20);
    let row = row_key("customer", "C-1");
    store.inner.rows.put(&row, Some(vec![0xFF; 9])).unwrap();

    let first = log.push(vec![
        update("C-1", 1, START_US),
        update("C-2", 2, START_US),
        ticket("C-1", "E-1", START_US),
    ]);
    let applied = log.apply(first, &store, &views);
    for refused in [&applied[0], &applied[2]] {
        assert!(
            matches!(refused, Applied::Refused(why) if why.contains("customer is damaged")),
            "{refused:?}"
        );
    }
    assert_eq!(applied[1], Applied::Done);
    let damaged = store.inner.read(&view, "C-1", START_US);
    assert!(matches!(damaged, Err(StoreError::Damaged { .. })));
    assert!(read(&store, &view, "C-2", START_US).is_some());
    store.inner.checkpoint().unwrap();

    // Removed, it begins anew; the event that was refused may come again.
    let second = log.push(vec![
        removal("C-1"),
        ticket("C-1", "E-1", START_US),
        update("C-1", 7, START_US),
    ]);
    assert_eq!(log.apply(second, &store, &views), vec![Applied::Done; 3]);
    drop(store);
    let store = open(dir.path(), 1 << 20);
    let found = read(&store, &view, "C-1", START_US).unwrap();
    assert_eq!(found.windows, [Value::Int64(1)]);
    assert_eq!(found.profile.get("tenure").unwrap().value, Value::Int64(7));
}

#[test]
fn features_are_kept_whatever_the_view_knows_of_them() {
    // "zeal" and "able" were declared once, "tenure" is.
    let views = views(CUSTOMER);
    let view = view(&views);
    let dir = tempfile::tempdir().unwrap();
    let mut entity = Entity::default();
    let write = |entity: &mut Entity, name: &str, value: Value, occurred_at_us: i64| {
        let update = ProfileUpdate {
            occurred_at_us,
            features: vec![named_value(name, &value)],
            ..ProfileUpdate::default()
        };
        entity.fold(&view, &Action::Update(&update), 1, START_US);
    };
    write(
        &mut entity,
        "zeal",
        Value::String("ä".repeat(300)),
        START_US,
    );
    write(&mut entity, "tenure", Value::Int64(i64::MIN), i64::MAX);
    write(&mut entity, "able", Value::Bool(true), i64::MIN);
    write(&mut entity, "empty", Value::Null, 0);
    write(&mut entity, "half", Value::Float64(-0.5), -1);
    let store = open(dir.path(), 1 << 20);
    let row = row_key("customer", "C-1");
    store
        .inner
        .rows
        .put(&row, Some(entity.encode(&view)))
        .unwrap();
    let found = read(&store, &view, "C-1", START_US).unwrap();
    let features: Vec<_> = found
        .profile
        .iter()
        .map(|(name, stored)| (name, stored.value.clone(), stored.as_of_us))
        .collect();
    let expected = [
        ("able", Value::Bool(true), i64::MIN),
        ("empty", Value::Null, 0),
        ("half", Value::Float64(-0.5), -1),
        ("tenure", Value::Int64(i64::MIN), i64::MAX),
        ("zeal", Value::String("ä".repeat(300)), START_US),
    ];
    assert_eq!(features, expected);
    assert_eq!(
        Entity::decode(&view, &entity.encode(&view)).unwrap(),
        entity
    );
    // An older value does not replace a newer one.
    write(&mut entity, "tenure", Value::Int64(1), i64::MAX - 1);
    assert_eq!(
        Entity::decode(&view, &entity.encode(&view)).unwrap(),
        entity
    );
    let tenure = entity.snapshot(&view, START_US).profile;
    assert_eq!(tenure.get("tenure").unwrap().value, Value::Int64(i64::MIN));
}

#[test]
fn a_second_store_in_the_same_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _store = open(dir.path(), 0);
    let second = EmbeddedStore::open(dir.path());
    assert!(matches!(second, Err(StoreError::InUse(_))));
}

use super::*;
use crate::batch::score::diff::table::ScoreRows;
use arrow::array::{Float64Array, StringArray};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn fill(folder: &Path, name: &str, rows: &[(String, f64)], count: usize) -> Vec<Size> {
    let mut buckets = Buckets::create(folder, name, count, 7).unwrap();
    for rows in rows.chunks(5) {
        let keys: StringArray = rows.iter().map(|(key, _)| Some(key.as_str())).collect();
        let scores: Float64Array = rows.iter().map(|(_, score)| Some(*score)).collect();
        let batch = ScoreRows {
            rows: rows.len(),
            keys: vec![keys],
            scores: vec![scores],
        };
        buckets.add_batch(&batch).unwrap();
    }
    buckets.finish().unwrap()
}

fn rows(rows: &[(&str, f64)]) -> Vec<(String, f64)> {
    rows.iter()
        .map(|(key, score)| ((*key).to_owned(), *score))
        .collect()
}

#[test]
fn everyone_is_counted_where_they_were_and_are() {
    let dir = tempfile::tempdir().unwrap();
    let then = rows(&[("a", 0.1), ("b", 0.5), ("c", 0.9), ("d", 0.1), ("b", 0.7)]);
    let now = rows(&[("c", 0.1), ("a", 0.9), ("b", 0.7), ("e", 0.3), ("e", 0.5)]);
    let last = fill(dir.path(), "last", &then, 3);
    let new = fill(dir.path(), "now", &now, 3);
    let joined = join(dir.path(), &last, &new, &[Bands::of_shares()], 7, 20).unwrap();
    assert_eq!((joined.both, joined.new, joined.gone), (3, 1, 1));
    assert_eq!((joined.duplicates, joined.last_duplicates), (1, 1));
    let model = &joined.models[0];
    assert_eq!((model.rose(), model.fell(), model.stayed()), (1, 1, 1));
    assert_eq!(
        (
            model.migration[0][4],
            model.migration[4][0],
            model.migration[3][3]
        ),
        (1, 1, 1)
    );
    assert_eq!(
        (&model.new[..], &model.gone[..]),
        (&[0, 0, 1, 0, 0][..], &[1, 0, 0, 0, 0][..])
    );
    assert_eq!(
        model.up.len() + model.down.len(),
        2,
        "b stayed where it was"
    );
    assert_eq!(
        (model.up[0].key.as_str(), model.down[0].key.as_str()),
        ("a", "c")
    );
}

#[test]
fn the_furthest_are_kept_and_of_those_alike_the_first_by_key() {
    let mut movers = Vec::new();
    for (key, now) in [
        ("d", 0.5),
        ("b", 0.5),
        ("c", 0.75),
        ("a", 0.25),
        ("a2", 0.5),
    ] {
        keep_furthest(&mut movers, 3, key.as_bytes(), 0.0, now);
    }
    let keys: Vec<&str> = movers.iter().map(|moved| moved.key.as_str()).collect();
    assert_eq!(keys, ["c", "a2", "b"]);
    keep_furthest(&mut movers, 0, b"x", 0.0, 9.0);
    assert_eq!(movers, []);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn spread_or_not_the_result_is_that_of_one_table(
        then in prop::collection::vec((0..40_u32, 0..100_u32), 0..120),
        now in prop::collection::vec((0..40_u32, 0..100_u32), 0..120),
        most_rows in 8..60_u64,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let named = |rows: &[(u32, u32)]| -> Vec<(String, f64)> {
            let each = rows.iter();
            each.map(|(key, score)| (format!("key {key}"), f64::from(*score) / 100.0)).collect()
        };
        let (then, now) = (named(&then), named(&now));
        let bands = [Bands::of_shares()];
        let sizes = [fill(dir.path(), "last", &then, 2), fill(dir.path(), "now", &now, 2)];
        let mut found = Join {
            folder: dir.path(),
            most_rows,
            joined: Joined::new(&bands, 1000),
        };
        for (index, (last, new)) in sizes[0].iter().zip(&sizes[1]).enumerate() {
            let of_bucket = [*last, *new];
            found.bucket(["last", "now"], index, of_bucket, 7, 0).unwrap();
        }
        let found = found.joined;
        let then: BTreeMap<&str, f64> = then.iter().map(|(key, s)| (key.as_str(), *s)).collect();
        let now: BTreeMap<&str, f64> = now.iter().map(|(key, s)| (key.as_str(), *s)).collect();
        let mut expected = vec![vec![0; 5]; 5];
        let mut up = Vec::new();
        for (key, score) in &now {
            if let Some(before) = then.get(key) {
                expected[bands[0].of(*before)][bands[0].of(*score)] += 1;
                if score > before {
                    up.push(*key);
                }
            }
        }
        let model = &found.models[0];
        prop_assert_eq!(&model.migration, &expected);
        let mut risen: Vec<&str> = model.up.iter().map(|moved| moved.key.as_str()).collect();
        risen.sort_unstable();
        prop_assert_eq!(risen, up);
        let changes: Vec<f64> = model.up.iter().map(|moved| moved.now - moved.then).collect();
        prop_assert!(changes.is_sorted_by(|before, after| before >= after));
        prop_assert_eq!(found.both as usize, now.keys().filter(|key| then.contains_key(*key)).count());
        prop_assert_eq!(found.both as usize + found.gone as usize, then.len());
        prop_assert_eq!(found.both as usize + found.new as usize, now.len());
    }
}

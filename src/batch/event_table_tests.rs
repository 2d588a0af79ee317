//! What becomes of the columns of a file of events.

use arrow::array::{Float64Array, Int64Array, TimestampMicrosecondArray};

use super::*;

fn views() -> Views {
    let dir = tempfile::tempdir().unwrap();
    let file = "[view]\nname = 'customer'\nentity = 'customer_id'\n\
                [[feature]]\nname = 'tenure'\ntype = 'int64'\n";
    std::fs::write(dir.path().join("customer.toml"), file).unwrap();
    Views::load(dir.path()).unwrap()
}

fn csv(columns: &[(&str, &[&str])]) -> RecordBatch {
    let arrays = columns.iter().map(|(name, cells)| {
        let cells = cells.iter().map(|cell| (!cell.is_empty()).then_some(*cell));
        let array: ArrayRef = Arc::new(StringArray::from_iter(cells));
        (*name, array)
    });
    RecordBatch::try_from_iter_with_nullable(arrays.map(|(name, array)| (name, array, true)))
        .unwrap()
}

fn tickets() -> RecordBatch {
    csv(&[
        ("id", &["t1", "t2"]),
        ("customer_id", &["a", "b"]),
        ("opened", &["2026-01-31T12:00:00Z", ""]),
        ("hours", &["1.50", "x"]),
        ("code", &["007", "8"]),
        ("urgent", &["True", ""]),
    ])
}

fn wanted() -> EventColumns {
    let pair = |field: &str, column: &str| (field.to_owned(), column.to_owned());
    EventColumns {
        event: Some("ticket".to_owned()),
        renamed: vec![pair("event_id", "id"), pair("occurred_at", "opened")],
        ..EventColumns::default()
    }
}

fn prepare(batch: &RecordBatch, wanted: &EventColumns) -> Result<PreparedRows, String> {
    let is_typed = batch.column(0).data_type() != &DataType::Utf8;
    EventTable::new(&batch.schema(), &views(), wanted, is_typed)?.prepare(batch)
}

fn texts(prepared: &PreparedRows, column: &str) -> Vec<Option<String>> {
    let column = prepared.rows.column_by_name(column).unwrap();
    let texts = column.as_string::<i32>().iter();
    texts.map(|text| text.map(str::to_owned)).collect()
}

#[test]
fn cells_of_a_csv_file_become_properties_by_what_they_look_like() {
    let mut wanted = wanted();
    wanted.text = vec!["code".to_owned()];
    let prepared = prepare(&tickets(), &wanted).unwrap();
    let properties = texts(&prepared, "properties");
    let first = r#"{"hours":1.50,"code":"007","urgent":true}"#;
    let second = r#"{"hours":"x","code":"8"}"#;
    assert_eq!(
        properties,
        [Some(first.to_owned()), Some(second.to_owned())]
    );
    // A number that JSON would not write like this is text.
    let prepared = prepare(&tickets(), &super::tests::wanted()).unwrap();
    let properties = texts(&prepared, "properties");
    assert_eq!(
        properties[0].as_deref(),
        Some(r#"{"hours":1.50,"code":"007","urgent":true}"#)
    );
    assert_eq!(properties[1].as_deref(), Some(r#"{"hours":"x","code":8}"#));
}

#[test]
fn renamed_columns_and_the_name_of_the_event_are_there() {
    let prepared = prepare(&tickets(), &wanted()).unwrap();
    let id = |text: &str| Some(text.to_owned());
    assert_eq!(texts(&prepared, "event_id"), [id("t1"), id("t2")]);
    assert_eq!(texts(&prepared, "event"), [id("ticket"), id("ticket")]);
    assert_eq!(prepared.without_time.len(), 1);
    assert_eq!(prepared.without_time[0].0, 1);
    assert!(prepared.without_time[0].1.contains("opened"));
    assert!(prepared.known_at.is_none());
}

#[test]
fn ids_made_of_columns_are_the_same_each_time_and_different_for_different_rows() {
    let mut wanted = wanted();
    wanted.renamed.remove(0);
    wanted.id_from = vec!["id".to_owned(), "customer_id".to_owned()];
    wanted.ignored = vec!["id".to_owned()];
    let first = texts(&prepare(&tickets(), &wanted).unwrap(), "event_id");
    assert_eq!(
        first,
        texts(&prepare(&tickets(), &wanted).unwrap(), "event_id")
    );
    assert_ne!(first[0], first[1]);
    // Values that would run together when they are joined
    let shifted = csv(&[
        ("id", &["a", "ab"]),
        ("customer_id", &["bc", "c"]),
        ("opened", &["2026-01-31T12:00:00Z", "2026-01-31T12:00:00Z"]),
    ]);
    let ids = texts(&prepare(&shifted, &wanted).unwrap(), "event_id");
    assert_ne!(ids[0], ids[1]);
}

#[test]
fn when_it_was_learned_is_what_the_file_says() {
    let mut wanted = wanted();
    wanted.known_at = KnownAt::Occurred;
    let prepared = prepare(&tickets(), &wanted).unwrap();
    let known_at = prepared.known_at.unwrap();
    assert_eq!(known_at[0], Ok(1_769_860_800_000_000));
    assert!(known_at[1].is_err());
    wanted.known_at = KnownAt::Column("hours".to_owned());
    let prepared = prepare(&tickets(), &wanted).unwrap();
    assert!(prepared.known_at.as_ref().unwrap()[0].is_err());
    let properties = texts(&prepared, "properties");
    assert!(!properties[0].as_ref().unwrap().contains("hours"));
}

#[test]
fn typed_columns_keep_their_types() {
    let columns: [(&str, ArrayRef); 5] = [
        ("customer_id", Arc::new(Int64Array::from(vec![7]))),
        ("event_id", Arc::new(StringArray::from(vec!["t1"]))),
        (
            "occurred_at",
            Arc::new(TimestampMicrosecondArray::from(vec![5]).with_timezone("UTC")),
        ),
        ("hours", Arc::new(Float64Array::from(vec![1.5]))),
        ("seen", Arc::new(arrow::array::Date32Array::from(vec![1]))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let wanted = EventColumns {
        event: Some("ticket".to_owned()),
        ..EventColumns::default()
    };
    let prepared = prepare(&batch, &wanted).unwrap();
    let of = |name: &str| {
        prepared
            .rows
            .column_by_name(name)
            .unwrap()
            .data_type()
            .clone()
    };
    let micros = DataType::Timestamp(TimeUnit::Microsecond, None);
    assert_eq!(of("customer_id"), DataType::Int64);
    assert_eq!(of("hours"), DataType::Float64);
    assert_eq!((of("occurred_at"), of("seen")), (micros.clone(), micros));
}

#[test]
fn what_is_missing_or_there_twice_is_said() {
    let problem = |change: fn(&mut EventColumns)| {
        let mut wanted = wanted();
        change(&mut wanted);
        prepare(&tickets(), &wanted).map(|_| ()).unwrap_err()
    };
    type Change = fn(&mut EventColumns);
    let cases: [(Change, &str); 9] = [
        (|wanted| wanted.event = None, "--event"),
        (|wanted| drop(wanted.renamed.remove(0)), "--event-id-from"),
        (
            |wanted| drop(wanted.renamed.remove(1)),
            "occurred_at=COLUMN",
        ),
        (|wanted| wanted.ignored = vec!["hour".to_owned()], "hours"),
        (|wanted| wanted.text = vec!["hour".to_owned()], "hours"),
        (
            |wanted| wanted.id_from = vec!["code".to_owned()],
            "event_id",
        ),
        (
            |wanted| wanted.known_at = KnownAt::Column("x".to_owned()),
            "--known-at",
        ),
        (
            |wanted| wanted.renamed[0].0 = "eventid".to_owned(),
            "event_id",
        ),
        (
            |wanted| {
                wanted
                    .renamed
                    .push(("customer_id".to_owned(), "code".to_owned()))
            },
            "both customer_id",
        ),
    ];
    for (change, word) in cases {
        let said = problem(change);
        assert!(said.contains(word), "expected {word} in: {said}");
    }
}

//! Tables of events, as Arrow IPC streams.

use std::sync::Arc;

use arrow::array::{ArrayRef, DictionaryArray, Int64Array, StringArray, TimestampMillisecondArray};
use arrow::datatypes::Int32Type;
use arrow::ipc::writer::StreamWriter;
use arrow::record_batch::RecordBatch;

use super::*;

pub fn table() -> RecordBatch {
    let column = |values: Vec<Option<&str>>| Arc::new(StringArray::from(values)) as ArrayRef;
    let times = TimestampMillisecondArray::from(vec![Some(NOW_US / 1000 - 1), None, None]);
    RecordBatch::try_from_iter([
        ("event_id", column(vec![Some("1"), Some("2"), None])),
        ("event", column(vec![Some("ticket"); 3])),
        ("customer_id", column(vec![Some("C-1"), None, Some("C-3")])),
        (
            "site_id",
            Arc::new(Int64Array::from(vec![None, Some(7), None])) as ArrayRef,
        ),
        (
            "occurred_at",
            Arc::new(times.with_timezone("Europe/Berlin")) as ArrayRef,
        ),
        (
            "minutes",
            Arc::new(Int64Array::from(vec![Some(3), None, None])) as ArrayRef,
        ),
        ("severity", column(vec![Some("\"high\""), None, None])),
    ])
    .unwrap()
}

pub fn stream(rows: &RecordBatch) -> Vec<u8> {
    let mut writer = StreamWriter::try_new(Vec::new(), rows.schema_ref()).unwrap();
    writer.write(rows).unwrap();
    writer.finish().unwrap();
    writer.into_inner().unwrap()
}

#[test]
fn a_table_has_an_event_in_each_row() {
    let body = stream(&table());
    let (events, refused) = read_with(&EventsConfig::default(), &body, Form::Table).unwrap();
    assert_eq!(events.len(), 2);
    assert_eq!(keys(&events[0]), [("customer_id", "C-1")]);
    assert_eq!(events[0].occurred_at_us, NOW_US - 1000);
    assert_eq!(
        events[0].properties,
        r#"{"minutes":3,"severity":"\"high\""}"#
    );
    assert_eq!(keys(&events[1]), [("site_id", "7")]);
    assert_eq!(
        (events[1].occurred_at_us, events[1].properties.as_str()),
        (NOW_US, "")
    );
    assert_eq!(refused[0].0, 2);
    assert!(
        refused[0].3.starts_with("event_id: missing"),
        "{}",
        refused[0].3
    );

    let config = EventsConfig {
        max_batch_events: 2,
        ..EventsConfig::default()
    };
    let error = read_with(&config, &body, Form::Table).unwrap_err();
    assert!(
        matches!(error, BodyError::TooMany { limit: 2, .. }),
        "{error}"
    );
    let without = table().project(&[0, 2]).unwrap();
    let error = read_with(&EventsConfig::default(), &stream(&without), Form::Table).unwrap_err();
    assert_eq!(
        error.to_string(),
        "body: no column event; every event needs one"
    );
    for body in [&b""[..], b"{}", b"ARROW1\0\0", &[0xff; 100]] {
        let error = read_with(&EventsConfig::default(), body, Form::Table).unwrap_err();
        assert!(matches!(error, BodyError::Syntax(_)), "{error}");
    }
}

#[test]
fn a_small_table_cannot_grow_without_bound() {
    // Given a thousand rows that all have the same long text
    let long = "x".repeat(100_000);
    let texts: DictionaryArray<Int32Type> = std::iter::repeat_n(long.as_str(), 1000).collect();
    let ids = StringArray::from_iter_values((0..1000).map(|id| id.to_string()));
    let events = StringArray::from(vec!["ticket"; 1000]);
    let rows = RecordBatch::try_from_iter([
        ("event_id", Arc::new(ids) as ArrayRef),
        ("event", Arc::new(events) as ArrayRef),
        ("customer_id", Arc::new(texts) as ArrayRef),
    ])
    .unwrap();
    let body = stream(&rows);
    assert!(body.len() < 200_000);
    // When it is read, then it is refused before the texts are written out
    let error = read_with(&EventsConfig::default(), &body, Form::Table).unwrap_err();
    let expected = "body: column \"customer_id\": its texts take 100000000 bytes";
    assert!(error.to_string().starts_with(expected), "{error}");
    // And a few rows of it are read
    let body = stream(&rows.slice(0, 3));
    let (_, refused) = read_with(&EventsConfig::default(), &body, Form::Table).unwrap();
    assert!(refused[0].3.contains("bytes long"), "{}", refused[0].3);
}

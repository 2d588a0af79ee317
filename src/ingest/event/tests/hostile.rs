//! Any events, read as another JSON reader reads them, and bodies that somebody has changed.

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::cloud::cloud_event;
use super::table::{stream, table};
use super::*;

/// Any JSON value, small, with the names that mean something.
fn values() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        any::<String>().prop_map(Json::from),
        "[a-z0-9-]{1,8}".prop_map(Json::from),
        Just(json!("2026-01-31T11:59:59.5Z")),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            prop::collection::hash_map(any::<String>(), inner, 0..4)
                .prop_map(|members| members.into_iter().collect()),
        ]
    })
}

fn objects() -> impl Strategy<Value = Json> {
    let name = prop_oneof![
        8 => Just("event_id".to_owned()),
        8 => Just("event".to_owned()),
        8 => Just("customer_id".to_owned()),
        4 => Just("site_id".to_owned()),
        4 => Just("occurred_at".to_owned()),
        4 => Just("properties".to_owned()),
        1 => any::<String>(),
    ];
    let value = prop_oneof![4 => "[a-z0-9]{1,8}".prop_map(Json::from), 1 => values()];
    prop::collection::hash_map(name, value, 0..7).prop_map(|members| members.into_iter().collect())
}

/// What an event is, said with another JSON reader and without haste.
fn expected(event: &Json) -> Option<Event> {
    let text_ok =
        |text: &str| (1..=256).contains(&text.len()) && !text.chars().any(char::is_control);
    let known = [
        "event_id",
        "event",
        "customer_id",
        "site_id",
        "occurred_at",
        "properties",
    ];
    let members = event.as_object()?;
    if members.keys().any(|name| !known.contains(&name.as_str())) {
        return None;
    }
    let event_id = members
        .get("event_id")?
        .as_str()
        .filter(|text| text_ok(text))?;
    let name = members.get("event")?.as_str()?;
    let in_name = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if name.is_empty() || name.len() > 128 || !name.chars().all(in_name) {
        return None;
    }
    let mut keys = Vec::new();
    for column in ["customer_id", "site_id"] {
        let value = match members.get(column) {
            None | Some(Json::Null) => continue,
            Some(Json::String(text)) => text.clone(),
            Some(Json::Number(number)) => {
                let float = number.as_f64()?;
                match number.as_i64() {
                    Some(integer) => integer.to_string(),
                    None if float.fract() == 0.0 && float.abs() < 1e18 => {
                        format!("{}", float as i64)
                    }
                    None => return None,
                }
            }
            Some(_) => return None,
        };
        if !text_ok(&value) {
            return None;
        }
        keys.push((column.to_owned(), value));
    }
    if keys.is_empty() {
        return None;
    }
    let occurred_at_us = match members.get("occurred_at") {
        None | Some(Json::Null) => NOW_US,
        Some(Json::String(text)) => crate::clock::from_rfc3339(text).ok()?,
        Some(_) => return None,
    };
    let properties = match members.get("properties") {
        None | Some(Json::Null) => String::new(),
        Some(Json::Object(members)) if members.is_empty() => String::new(),
        Some(object @ Json::Object(_)) => object.to_string(),
        Some(_) => return None,
    };
    let keys = keys.into_iter();
    Some(Event {
        event_id: event_id.to_owned(),
        event: name.to_owned(),
        keys: keys
            .map(|(column, value)| crate::features::change::KeyColumn { column, value })
            .collect(),
        occurred_at_us,
        properties,
    })
}

proptest! {
    #[test]
    fn events_are_read_as_another_reader_reads_them(
        objects in prop::collection::vec(objects(), 1..6), lines in any::<bool>()
    ) {
        let body = match lines {
            true => objects.iter().map(Json::to_string).collect::<Vec<_>>().join("\n"),
            false => Json::from(objects.clone()).to_string(),
        };
        let (mut found, refused) = read(body.as_bytes());
        for event in &mut found {
            event.keys.sort_by(|left, right| left.column.cmp(&right.column));
        }
        let expected: Vec<Event> = objects.iter().filter_map(expected).collect();
        prop_assert_eq!(found, expected);
        let wrong: Vec<usize> = (0..objects.len())
            .filter(|index| self::expected(&objects[*index]).is_none())
            .collect();
        prop_assert_eq!(refused.iter().map(|one| one.0).collect::<Vec<_>>(), wrong);
    }

    #[test]
    fn changed_bytes_of_a_body_never_do_harm(
        object in objects(), cloud in any::<bool>(), at in any::<prop::sample::Index>(),
        bytes in prop::collection::vec(any::<u8>(), 0..4), cut in any::<bool>()
    ) {
        let object = if cloud { cloud_event(&object) } else { object };
        let mut body = Json::from(vec![object]).to_string().into_bytes();
        let at = at.index(body.len());
        body.splice(at..(at + bytes.len()).min(body.len()), bytes);
        if cut {
            body.truncate(at);
        }
        let is_json = serde_json::from_slice::<Json>(&body);
        match read_with(&EventsConfig::default(), &body, Form::Json) {
            Ok(_) => prop_assert!(is_json.is_ok() || body.starts_with(b"{"), "{:?}", is_json),
            Err(error) => prop_assert!(error.to_string().len() < 500, "{}", error),
        }
    }

    #[test]
    fn changed_bytes_of_a_table_never_do_harm(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<Option<prop::sample::Index>>()
    ) {
        let mut body = stream(&table());
        for (at, byte) in edits {
            let at = at.index(body.len());
            body[at] = byte;
        }
        if let Some(cut) = cut {
            body.truncate(cut.index(body.len()));
        }
        if let Err(error) = read_with(&EventsConfig::default(), &body, Form::Table) {
            prop_assert!(error.to_string().len() < 500, "{}", error);
        }
    }
}

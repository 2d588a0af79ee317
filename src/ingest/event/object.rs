//! Events in their native shape: `{"event_id", "event", "customer_id", "occurred_at", "properties"}`.

use std::borrow::Cow;

use super::draft::{Draft, Finished, NATIVE};
use super::{Reader, cloud};
use crate::ingest::documents::describe;
use crate::json::{Cursor, Unexpected};

/// Reads the object at the cursor. One that says which version of CloudEvents it is of is read as a
/// CloudEvent.
pub fn read<'b>(reader: &Reader<'_>, cursor: &mut Cursor<'b>) -> Result<Finished, Unexpected> {
    let beginning = cursor.clone();
    let mut draft = Draft::default();
    let mut is_cloud_event = false;
    cursor.object(|cursor, name| match name {
        "event_id" => draft.read_id(cursor, "event_id"),
        "event" => draft.read_name(cursor, "event"),
        "occurred_at" => draft.read_time(cursor, "occurred_at"),
        "properties" => read_properties(&mut draft, cursor, "properties"),
        name => match reader.column(name) {
            Some(column) => draft.read_key(cursor, column, name),
            None => {
                is_cloud_event |= name == "specversion";
                draft.unknown_field(name, reader);
                cursor.skip().map(|_| ())
            }
        },
    })?;
    if is_cloud_event {
        *cursor = beginning;
        return cloud::read(reader, cursor);
    }
    let bytes = cursor.position() - beginning.position();
    Ok(draft.finish(reader, NATIVE, bytes))
}

/// Reads an object and keeps its text; null is as good as nothing.
fn read_properties<'b>(
    draft: &mut Draft<'b>,
    cursor: &mut Cursor<'b>,
    field: &str,
) -> Result<(), Unexpected> {
    match cursor.peek() {
        Some(b'{') => {
            let text = cursor.skip_text()?;
            if draft.properties.is_some() {
                draft.refuse(format!("{field}: given twice"));
            }
            draft.properties = Some(Cow::Borrowed(text));
            Ok(())
        }
        Some(b'n') => cursor.null().map(|_| ()),
        _ => {
            let found = describe(cursor)?;
            draft.refuse(format!("{field}: expected an object, found {found}"));
            Ok(())
        }
    }
}

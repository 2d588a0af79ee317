//! CloudEvents 1.0: as an object of their own, and in binary mode, where the attributes are headers.
//!
//! `id` is the event's id, `type` its name, `time` when it occurred. `data` is an object: the event's
//! properties, the key columns among them. `subject` is the key of the entity that the configuration
//! says (`events.cloudevents_subject`), unless the data has that column. Other attributes are passed
//! over.

use std::borrow::Cow;

use super::draft::{Draft, Finished, Names};
use super::{EventBatch, Reader};
use crate::features::value::shorten;
use crate::ingest::documents::{BodyError, describe, locate};
use crate::json::{Cursor, Unexpected};

const CLOUD: Names = Names {
    event_id: "id",
    event: "type",
    occurred_at: "time",
};

/// Reads the object at the cursor.
pub fn read<'b>(reader: &Reader<'_>, cursor: &mut Cursor<'b>) -> Result<Finished, Unexpected> {
    let start = cursor.position();
    let mut draft = Draft::default();
    let (mut version, mut subject) = (None, None);
    cursor.object(|cursor, name| {
        match name {
            "id" => draft.read_id(cursor, CLOUD.event_id)?,
            "type" => draft.read_name(cursor, CLOUD.event)?,
            "time" => draft.read_time(cursor, CLOUD.occurred_at)?,
            "subject" => subject = draft.text(cursor, "subject")?,
            "specversion" => version = draft.text(cursor, "specversion")?,
            "datacontenttype" => {
                if let Some(content_type) = draft.text(cursor, "datacontenttype")? {
                    check_content_type(&mut draft, &content_type);
                }
            }
            "data" => read_data(reader, &mut draft, cursor)?,
            "data_base64" => {
                cursor.skip()?;
                draft.refuse("data_base64: expected data, a JSON object".to_owned());
            }
            _ => {
                cursor.skip()?;
            }
        }
        Ok(())
    })?;
    check_version(&mut draft, version.as_deref());
    add_subject(reader, &mut draft, subject);
    let bytes = cursor.position() - start;
    Ok(draft.finish(reader, CLOUD, bytes))
}

/// The attributes of an event in binary mode, as the headers have them, percent-decoded.
#[derive(Debug, Default)]
pub struct Attributes {
    pub specversion: Option<String>,
    pub id: Option<String>,
    pub kind: Option<String>,
    pub time: Option<String>,
    pub subject: Option<String>,
    pub content_type: Option<String>,
}

impl Reader<'_> {
    /// Reads an event in binary mode: `body` is its data.
    ///
    /// # Errors
    /// When the data is not JSON.
    pub fn read_binary(
        &self,
        attributes: Attributes,
        body: &[u8],
    ) -> Result<EventBatch, BodyError> {
        let mut draft = Draft::default();
        draft.event_id = attributes.id.map(Cow::Owned);
        draft.event = attributes.kind.map(Cow::Owned);
        if let Some(time) = &attributes.time {
            draft.set_time(time, CLOUD.occurred_at);
        }
        check_version(&mut draft, attributes.specversion.as_deref());
        if let Some(content_type) = &attributes.content_type {
            check_content_type(&mut draft, content_type);
        }
        let mut cursor = Cursor::new(body);
        if cursor.peek().is_some() {
            read_data(self, &mut draft, &mut cursor)
                .and_then(|()| cursor.end())
                .map_err(|unexpected| BodyError::Syntax(locate(body, unexpected)))?;
        }
        add_subject(self, &mut draft, attributes.subject.map(Cow::Owned));
        let mut batch = EventBatch::default();
        batch.add(draft.finish(self, CLOUD, body.len()));
        Ok(batch)
    }
}

/// Reads the data: an object, with key columns among its members.
fn read_data<'b>(
    reader: &Reader<'_>,
    draft: &mut Draft<'b>,
    cursor: &mut Cursor<'b>,
) -> Result<(), Unexpected> {
    match cursor.peek() {
        Some(b'{') => {}
        Some(b'n') => return cursor.null().map(|_| ()),
        _ => {
            let found = describe(cursor)?;
            draft.refuse(format!("data: expected an object, found {found}"));
            return Ok(());
        }
    }
    if draft.properties.is_some() {
        draft.refuse("data: given twice".to_owned());
    }
    let mut members = cursor.clone();
    draft.properties = Some(Cow::Borrowed(cursor.skip_text()?));
    members.object(|members, name| match reader.column(name) {
        Some(column) => draft.read_key(members, column, name),
        None => members.skip().map(|_| ()),
    })
}

fn add_subject<'b>(reader: &Reader<'_>, draft: &mut Draft<'b>, subject: Option<Cow<'b, str>>) {
    let (Some(subject), Some(column)) = (subject, reader.subject) else {
        return;
    };
    if draft.keys.iter().all(|(taken, _)| *taken != column) {
        draft.add_key(column, subject, "subject");
    }
}

fn check_version(draft: &mut Draft<'_>, version: Option<&str>) {
    match version {
        Some("1.0") => {}
        Some(other) => draft.refuse(format!(
            "specversion: expected \"1.0\", found {:?}",
            shorten(other, 20)
        )),
        None => draft.refuse("specversion: missing, expected \"1.0\"".to_owned()),
    }
}

fn check_content_type(draft: &mut Draft<'_>, content_type: &str) {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    let essence = essence.to_ascii_lowercase();
    if essence != "application/json" && !essence.ends_with("+json") && essence != "text/json" {
        draft.refuse(format!(
            "datacontenttype: expected application/json, found {:?}",
            shorten(content_type, 64)
        ));
    }
}

//! From a broker's message to the events it carries.

use super::event::cloud::Attributes;
use super::event::{Form, Reader};
use super::source::Message;
use crate::config::EventsConfig;
use crate::features::change::Change;
use crate::features::views::Views;

/// How the messages of a source are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// An event or a list of events, as `POST /v1/events` takes them.
    #[default]
    Json,
    /// CloudEvents: structured, a list of them, or binary, with the attributes in `ce-` headers.
    CloudEvents,
}

/// What a message holds.
#[derive(Debug, Default)]
pub struct Contents {
    /// The events that are right.
    pub changes: Vec<Change>,
    /// What is wrong with the message or some of its events.
    pub problem: Option<String>,
}

/// Reads a message that is looked at `now_us`. An event that does not say when it occurred occurred when
/// the broker took it, so that it is the same when it is delivered again.
pub fn read(
    message: &Message,
    format: Format,
    views: &Views,
    config: &EventsConfig,
    now_us: i64,
) -> Contents {
    let mut reader = Reader::new(views, config, now_us);
    if let Some(taken_at_us) = message.taken_at_us {
        reader = reader.with_default_time(taken_at_us);
    }
    let read = match format {
        Format::Json => reader.read(&message.payload, Form::Json),
        Format::CloudEvents => match binary_attributes(&message.headers) {
            Some(attributes) => reader.read_binary(attributes, &message.payload),
            None => reader.read(&message.payload, Form::CloudEvents),
        },
    };
    let batch = match read {
        Ok(batch) => batch,
        Err(error) => {
            return Contents {
                problem: Some(error.to_string()),
                ..Contents::default()
            };
        }
    };
    let is_one = batch.count() == 1;
    let others = batch.refused.len().saturating_sub(1);
    let problem = batch.refused.first().map(|refused| match (is_one, others) {
        (true, _) => refused.error.clone(),
        (false, 0) => format!("event {}: {}", refused.index, refused.error),
        (false, others) => {
            let (index, error) = (refused.index, &refused.error);
            format!("event {index}: {error}; {others} more of its events are refused")
        }
    });
    Contents {
        changes: batch.changes,
        problem,
    }
}

/// The attributes of a CloudEvent in binary mode; `None` when it is in another one.
fn binary_attributes(headers: &[(String, String)]) -> Option<Attributes> {
    let mut attributes = Attributes::default();
    let mut is_binary = false;
    for (name, value) in headers {
        let name = name.to_ascii_lowercase();
        if name == "content-type" || name == "ce-datacontenttype" {
            attributes.content_type = Some(value.clone());
            continue;
        }
        let Some(name) = name.strip_prefix("ce-") else {
            continue;
        };
        is_binary |= name == "specversion" || name == "id";
        let value = Some(percent_decode(value));
        match name {
            "specversion" => attributes.specversion = value,
            "id" => attributes.id = value,
            "type" => attributes.kind = value,
            "time" => attributes.time = value,
            "subject" => attributes.subject = value,
            _ => {}
        }
    }
    is_binary.then_some(attributes)
}

/// Headers and URLs hold letters beyond ASCII as `%` and two hexadecimal digits for each byte. What is
/// not written like that stays as it is.
pub fn percent_decode(text: &str) -> String {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match (byte, digit(bytes.get(at + 1)), digit(bytes.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high * 16 + low) as u8);
                at += 3;
            }
            _ => {
                decoded.push(*byte);
                at += 1;
            }
        }
    }
    String::from_utf8(decoded).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_percent_decoded() {
        for (text, decoded) in [
            ("a-1", "a-1"),
            ("K%C3%B6ln", "Köln"),
            ("100%", "100%"),
            ("%zz%4", "%zz%4"),
            ("%ff", "%ff"),
            ("%25", "%"),
        ] {
            assert_eq!(percent_decode(text), decoded);
        }
    }

    #[test]
    fn attributes_make_a_message_a_binary_cloud_event() {
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert!(binary_attributes(&[]).is_none());
        assert!(binary_attributes(&[header("content-type", "application/json")]).is_none());
        let headers = [
            header("ce-specversion", "1.0"),
            header("Ce-Id", "7"),
            header("ce-type", "call"),
        ];
        let attributes = binary_attributes(&headers).unwrap();
        assert_eq!(attributes.specversion.as_deref(), Some("1.0"));
        assert_eq!(attributes.id.as_deref(), Some("7"));
        assert_eq!(attributes.kind.as_deref(), Some("call"));
    }
}

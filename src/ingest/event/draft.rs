//! An event while it is read, the checks that every form of it goes through, and the change that it
//! becomes.

use std::borrow::Cow;

use smallvec::SmallVec;

use super::{MAX_EVENT_BYTES, Reader, time};
use crate::clock;
use crate::features::change::{Change, Event, KeyColumn, What};
use crate::features::value::shorten;
use crate::features::view::suggestion;
use crate::ingest::documents::describe;
use crate::json::{Cursor, Unexpected};

/// The longest id and the longest value of a key column, in bytes.
pub const MAX_ID_BYTES: usize = 256;
/// The longest name of an event, in bytes.
pub const MAX_EVENT_NAME_BYTES: usize = 128;
/// No event happened after the year 2200, microseconds since the Unix epoch.
const LATEST_US: i64 = 7_258_118_400_000_000;
/// How many views are named when an event reaches none.
const SHOWN_VIEWS: usize = 10;

/// The fields of an event beside its key columns.
pub const FIELDS: [&str; 4] = ["event_id", "event", "occurred_at", "properties"];

/// An event that is right, or why it is not.
pub type Finished = Result<Change, Refusal>;

/// Why an event is refused.
#[derive(Debug)]
pub struct Refusal {
    pub event_id: Option<String>,
    pub error: String,
}

/// What is known of an event so far. The first thing that is wrong with it is kept.
#[derive(Debug, Default)]
pub struct Draft<'a> {
    pub event_id: Option<Cow<'a, str>>,
    pub event: Option<Cow<'a, str>>,
    pub occurred_at_us: Option<i64>,
    /// Index of a key column among those of the reader, and its value.
    pub keys: SmallVec<[(usize, Cow<'a, str>); 2]>,
    /// The text of a JSON object.
    pub properties: Option<Cow<'a, str>>,
    problem: Option<String>,
}

/// How a form calls the fields of an event, for messages.
#[derive(Debug, Clone, Copy)]
pub struct Names {
    pub event_id: &'static str,
    pub event: &'static str,
    pub occurred_at: &'static str,
}

/// The native names.
pub const NATIVE: Names = Names {
    event_id: "event_id",
    event: "event",
    occurred_at: "occurred_at",
};

impl<'a> Draft<'a> {
    /// Notes that the event is wrong.
    pub fn refuse(&mut self, problem: String) {
        self.problem.get_or_insert(problem);
    }

    /// Reads a text; null is as good as nothing.
    pub fn text(
        &mut self,
        cursor: &mut Cursor<'a>,
        field: &str,
    ) -> Result<Option<Cow<'a, str>>, Unexpected> {
        if cursor.peek() == Some(b'"') {
            return cursor.string().map(Some);
        }
        if !cursor.null()? {
            let found = describe(cursor)?;
            self.refuse(format!("{field}: expected text, found {found}"));
        }
        Ok(None)
    }

    /// Reads the event's id.
    pub fn read_id(&mut self, cursor: &mut Cursor<'a>, field: &str) -> Result<(), Unexpected> {
        let text = self.text(cursor, field)?;
        if self.event_id.is_some() {
            self.refuse(format!("{field}: given twice"));
        }
        self.event_id = text.or(self.event_id.take());
        Ok(())
    }

    /// Reads the event's name.
    pub fn read_name(&mut self, cursor: &mut Cursor<'a>, field: &str) -> Result<(), Unexpected> {
        let text = self.text(cursor, field)?;
        if self.event.is_some() {
            self.refuse(format!("{field}: given twice"));
        }
        self.event = text.or(self.event.take());
        Ok(())
    }

    /// Reads the event's time.
    pub fn read_time(&mut self, cursor: &mut Cursor<'a>, field: &str) -> Result<(), Unexpected> {
        if !matches!(cursor.peek(), Some(b'"' | b'n')) {
            let found = describe(cursor)?;
            self.refuse(format!(
                "{field}: expected a time like \"2026-01-31T12:00:00Z\", found {found}"
            ));
            return Ok(());
        }
        if let Some(text) = self.text(cursor, field)? {
            self.set_time(&text, field);
        }
        Ok(())
    }

    /// Takes the event's time from RFC 3339 text.
    pub fn set_time(&mut self, text: &str, field: &str) {
        if self.occurred_at_us.is_some() {
            self.refuse(format!("{field}: given twice"));
        }
        match time::read(text) {
            Ok(time_us) => self.occurred_at_us = Some(time_us),
            Err(problem) => self.refuse(format!("{field}: {problem}")),
        }
    }

    /// Reads the value of a key column: text, or a whole number, which becomes text. Null is as good
    /// as nothing.
    pub fn read_key(
        &mut self,
        cursor: &mut Cursor<'a>,
        column: usize,
        name: &str,
    ) -> Result<(), Unexpected> {
        let value = match cursor.peek() {
            Some(b'"') => cursor.string()?,
            Some(b'n') => return cursor.null().map(|_| ()),
            Some(b'-' | b'0'..=b'9')
                if let Some(integer) = cursor.clone().number()?.to_integer() =>
            {
                cursor.number()?;
                Cow::Owned(integer.to_string())
            }
            _ => {
                let found = describe(cursor)?;
                self.refuse(format!(
                    "{name}: expected text or a whole number, found {found}"
                ));
                return Ok(());
            }
        };
        self.add_key(column, value, name);
        Ok(())
    }

    /// Takes the value of a key column.
    pub fn add_key(&mut self, column: usize, value: Cow<'a, str>, name: &str) {
        // What is given twice is not kept twice: an event may have as many keys as there are columns.
        if self.keys.iter().any(|(taken, _)| *taken == column) {
            self.refuse(format!("{name}: given twice"));
        } else {
            self.keys.push((column, value));
        }
    }

    /// Notes a field that there is not.
    pub fn unknown_field(&mut self, name: &str, reader: &Reader<'_>) {
        // Looking for a similar name takes time, and only the first mistake is told.
        if self.problem.is_some() {
            return;
        }
        let names = FIELDS.iter().chain(&reader.columns).copied();
        self.refuse(format!(
            "{}: no such field{}; what describes the event belongs into properties",
            shorten(name, 64),
            suggestion(name, names)
        ));
    }

    /// Checks everything and makes the change. `bytes` is the length of the event as it was sent.
    pub fn finish(mut self, reader: &Reader<'_>, names: Names, bytes: usize) -> Finished {
        let problem = match self.problem.take() {
            Some(problem) => Some(problem),
            None => self.check(reader, names, bytes).err(),
        };
        if let Some(error) = problem {
            let event_id = self.event_id.map(|id| shorten(&id, MAX_ID_BYTES));
            return Err(Refusal { event_id, error });
        }
        let key = |(column, value): (usize, Cow<'a, str>)| KeyColumn {
            column: reader.columns[column].to_owned(),
            value: value.into_owned(),
        };
        let properties = self.properties.filter(|text| text != "{}");
        let event = Event {
            event_id: self.event_id.unwrap_or_default().into_owned(),
            event: self.event.unwrap_or_default().into_owned(),
            keys: self.keys.into_iter().map(key).collect(),
            occurred_at_us: self.occurred_at_us.unwrap_or(reader.default_time_us),
            properties: properties.unwrap_or_default().into_owned(),
        };
        Ok(Change {
            known_at_us: None,
            what: Some(What::Event(event)),
        })
    }

    fn check(&self, reader: &Reader<'_>, names: Names, bytes: usize) -> Result<(), String> {
        if bytes > MAX_EVENT_BYTES {
            return Err(format!(
                "{bytes} bytes long, at most {MAX_EVENT_BYTES} are allowed for one event"
            ));
        }
        let Some(event_id) = &self.event_id else {
            return Err(format!(
                "{}: missing; it makes sending an event again safe, because one that was taken \
                 before is recognised by it",
                names.event_id
            ));
        };
        check_text(names.event_id, event_id)?;
        check_name(names.event, self.event.as_deref())?;
        for (column, value) in &self.keys {
            check_text(reader.columns[*column], value)?;
        }
        if let Some(time_us) = self.occurred_at_us {
            reader.check_time(names.occurred_at, time_us)?;
        }
        reader.check_reach(&self.keys)
    }
}

impl Reader<'_> {
    fn check_time(&self, field: &str, time_us: i64) -> Result<(), String> {
        if !(0..LATEST_US).contains(&time_us) {
            return Err(format!(
                "{field}: expected a time between the years 1970 and 2200, found {}",
                clock::to_rfc3339(time_us)
            ));
        }
        if time_us > self.latest_us {
            return Err(format!(
                "{field}: {} lies {} s in the future, at most {} s are allowed (events.max_clock_skew; \
                 with events.future = \"park\", events.max_ahead)",
                clock::to_rfc3339(time_us),
                (time_us - self.now_us) / 1_000_000,
                (self.latest_us - self.now_us) / 1_000_000
            ));
        }
        Ok(())
    }

    /// An event has to happen to somebody.
    fn check_reach(&self, keys: &[(usize, Cow<'_, str>)]) -> Result<(), String> {
        let has = |wanted: &usize| keys.iter().any(|(column, _)| column == wanted);
        let reached = self
            .views
            .iter()
            .any(|(_, columns)| columns.iter().all(has));
        if reached {
            return Ok(());
        }
        let found = match keys {
            [] => "no key column".to_owned(),
            keys => {
                let names = keys.iter().map(|(column, _)| self.columns[*column]);
                format!("only {}", names.collect::<Vec<_>>().join(", "))
            }
        };
        let mut expected: Vec<String> = self
            .views
            .iter()
            .take(SHOWN_VIEWS)
            .map(|(view, _)| format!("{} (view {})", view.key_columns().join(" and "), view.name))
            .collect();
        if expected.is_empty() {
            expected.push("a feature view, but none is loaded".to_owned());
        }
        Err(format!(
            "reaches no view: found {found}, expected {}",
            expected.join(", or ")
        ))
    }

    /// The index of the key column called `name`.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| *column == name)
    }
}

/// Refuses what no id and no key can be.
///
/// # Errors
/// The field with: empty, too long, or with control characters.
pub fn check_text(field: &str, text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err(format!("{field}: empty"));
    }
    if text.len() > MAX_ID_BYTES {
        let length = text.len();
        return Err(format!(
            "{field}: {length} bytes long, at most {MAX_ID_BYTES} are allowed"
        ));
    }
    // The control characters beyond ASCII begin with 0xC2, as many letters do.
    let suspicious = |byte: u8| byte < 0x20 || byte == 0x7f || byte == 0xc2;
    if text.bytes().any(suspicious) && text.chars().any(char::is_control) {
        return Err(format!("{field}: holds control characters"));
    }
    Ok(())
}

fn check_name(field: &str, name: Option<&str>) -> Result<(), String> {
    let Some(name) = name else {
        return Err(format!(
            "{field}: missing; it says what happened, for example \"ticket\""
        ));
    };
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    if (1..=MAX_EVENT_NAME_BYTES).contains(&name.len()) && name.bytes().all(allowed) {
        return Ok(());
    }
    Err(format!(
        "{field}: expected 1 to {MAX_EVENT_NAME_BYTES} letters, digits, underscores, dots and dashes, \
         found {:?}",
        shorten(name, 64)
    ))
}

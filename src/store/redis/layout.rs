//! Where an entity is in Redis, and the bytes of its value.
//!
//! `<prefix>{<view>:<key>}` is the entity; `<prefix>{<view>:<key>}:e:<32 hex digits>` says that an
//! event was counted, and when it was learned. A cluster places a key by what is between its first
//! pair of braces, which is the same for all keys of an entity whatever its own key holds, so that one
//! script may write them together. No two entities share a key: a view's name holds no colon, and an
//! entity's key ends in a brace, an event's in a digit.
//!
//! A value is a kind (one byte), a version (eight random bytes, new with every write), marks, and the
//! entity as every store keeps it. A mark names a server and the last of its changes that went in:
//! what that server sends again after a crash is recognised by it, exactly and for ever. A removed
//! entity leaves its version and its marks behind for a day, so that it is not raised from the dead by
//! what was counted before.

use crate::features::change::EventIdentity;
use crate::features::view::View;

/// Marks of this many servers are kept in a value; the one not written to for longest goes first.
/// What it sends again is still recognised event by event, for a day.
const MAX_MARKS: usize = 16;

/// Kind and version: what a write is compared by.
pub const VERSION_BYTES: usize = 9;

const ENTITY: u8 = 1;
const REMOVED: u8 = 2;
const MARK_BYTES: usize = 24;
const MAX_PREFIX_BYTES: usize = 64;

/// Names keys.
pub struct Layout {
    prefix: String,
}

impl Layout {
    /// # Errors
    /// When the prefix would spoil the keys.
    pub fn new(prefix: &str) -> Result<Layout, String> {
        let problem = if prefix.len() > MAX_PREFIX_BYTES {
            format!(
                "is {} bytes long, at most {MAX_PREFIX_BYTES} are allowed",
                prefix.len()
            )
        } else if prefix.contains(['{', '}']) {
            "holds a brace, and braces say which node of a cluster a key belongs to".to_owned()
        } else if prefix.chars().any(char::is_control) {
            "holds a control character".to_owned()
        } else {
            return Ok(Layout {
                prefix: prefix.to_owned(),
            });
        };
        Err(format!(
            "store.key_prefix {prefix:?}: {problem}; take for example \"bw:\""
        ))
    }

    pub fn entity_key(&self, view: &View, key: &str) -> String {
        let mut name = String::with_capacity(self.prefix.len() + view.name.len() + key.len() + 3);
        name.push_str(&self.prefix);
        name.push('{');
        name.push_str(&view.name);
        name.push(':');
        name.push_str(key);
        name.push('}');
        name
    }

    /// A pattern that the keys of all entities of a view match, and nothing else does; and how to read
    /// their own keys from them.
    pub fn entities_of(&self, view: &View) -> (String, Around) {
        let start = format!("{}{{{}:", self.prefix, view.name);
        let mut pattern = String::with_capacity(start.len() + 4);
        for letter in start.chars() {
            // What a pattern takes for itself.
            if matches!(letter, '*' | '?' | '[' | ']' | '^' | '-' | '\\') {
                pattern.push('\\');
            }
            pattern.push(letter);
        }
        pattern.push_str("*}");
        (pattern, Around(start.len()))
    }

    /// The key that says that an event was counted for the entity at `entity_key`.
    pub fn event_key(entity_key: &str, identity: EventIdentity) -> String {
        format!("{entity_key}:e:{:032x}", identity.0)
    }
}

/// How many bytes are before an entity's own key.
#[derive(Clone, Copy, Debug)]
pub struct Around(usize);

impl Around {
    /// The entity's own key in its key in Redis, if that is text.
    pub fn key_in(self, name: &[u8]) -> Option<String> {
        let key = name.get(self.0..name.len().checked_sub(1)?)?;
        std::str::from_utf8(key).ok().map(str::to_owned)
    }
}

/// Up to where the changes of one server are in an entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The server.
    pub replica: u64,
    /// The number of its last change, in its own log.
    pub sequence: u64,
    /// When that was learned. A server whose directory was restored from a backup numbers its changes
    /// from an earlier one on; by the time they are told from those that had the numbers before.
    pub known_at_us: i64,
}

/// The marks of an entity, the latest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks(Vec<Mark>);

impl Marks {
    /// Whether the change that `mark` stands for went in before.
    pub fn cover(&self, mark: Mark) -> bool {
        self.0.iter().any(|known| {
            known.replica == mark.replica
                && known.sequence >= mark.sequence
                && known.known_at_us >= mark.known_at_us
        })
    }

    /// Says that the change that `mark` stands for, and all before it, are in.
    pub fn put(&mut self, mark: Mark) {
        self.0.retain(|known| known.replica != mark.replica);
        self.0.insert(0, mark);
        self.0.truncate(MAX_MARKS);
    }
}

/// A value, read.
#[derive(Debug)]
pub struct Record<'a> {
    pub version: [u8; VERSION_BYTES],
    pub marks: Marks,
    /// The bytes of the entity; `None` when it was removed.
    pub entity: Option<&'a [u8]>,
}

impl Record<'_> {
    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Record<'_>, String> {
        let too_short = || format!("it has only {} bytes", bytes.len());
        let (version, rest) = bytes
            .split_first_chunk::<VERSION_BYTES>()
            .ok_or_else(too_short)?;
        let (&count, mut rest) = rest.split_first().ok_or_else(too_short)?;
        let mut marks = Vec::with_capacity(usize::from(count).min(MAX_MARKS));
        for _ in 0..count {
            let (mark, behind) = rest
                .split_first_chunk::<MARK_BYTES>()
                .ok_or_else(too_short)?;
            let number = |at: usize| {
                let mut eight = [0; 8];
                eight.copy_from_slice(&mark[at..at + 8]);
                u64::from_le_bytes(eight)
            };
            marks.push(Mark {
                replica: number(0),
                sequence: number(8),
                known_at_us: number(16).cast_signed(),
            });
            rest = behind;
        }
        let entity = match version[0] {
            ENTITY => Some(rest),
            REMOVED => None,
            kind => {
                return Err(format!(
                    "it begins with the byte {kind}, which this version of the server does not know; \
                     another program may have written it, or a later version of this one"
                ));
            }
        };
        Ok(Record {
            version: *version,
            marks: Marks(marks),
            entity,
        })
    }
}

/// The bytes of a value; without an entity, of one that was removed.
pub fn encode(version: u64, marks: &Marks, entity: Option<&[u8]>) -> Vec<u8> {
    let entity_bytes = entity.unwrap_or_default();
    let length = VERSION_BYTES + 1 + marks.0.len() * MARK_BYTES + entity_bytes.len();
    let mut bytes = Vec::with_capacity(length);
    bytes.push(if entity.is_some() { ENTITY } else { REMOVED });
    bytes.extend_from_slice(&version.to_le_bytes());
    // At most MAX_MARKS.
    bytes.push(u8::try_from(marks.0.len()).unwrap_or(u8::MAX));
    for mark in &marks.0 {
        bytes.extend_from_slice(&mark.replica.to_le_bytes());
        bytes.extend_from_slice(&mark.sequence.to_le_bytes());
        bytes.extend_from_slice(&mark.known_at_us.to_le_bytes());
    }
    bytes.extend_from_slice(entity_bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIEW: &str = "[view]\nname = \"customer\"\nentity = \"customer_id\"\n\
                        [[feature]]\nname = \"plan\"\ntype = \"string\"\n";

    fn mark(replica: u64, sequence: u64, known_at_us: i64) -> Mark {
        Mark {
            replica,
            sequence,
            known_at_us,
        }
    }

    #[test]
    fn all_keys_of_an_entity_have_the_same_text_between_the_first_braces() {
        let view = View::parse(VIEW).unwrap();
        let layout = Layout::new("bw:").unwrap();
        for key in ["C-1", "}", "{", "a}b{c", "{}", "ключ", "a b\u{1f}c"] {
            let entity = layout.entity_key(&view, key);
            let event = Layout::event_key(&entity, EventIdentity(7));
            // The rule of the cluster specification: from the first "{" to the first "}" after it.
            let tag = |name: &str| {
                let (_, rest) = name.split_once('{').unwrap();
                rest.split_once('}').unwrap().0.to_owned()
            };
            assert_eq!(tag(&entity), tag(&event), "{key}");
            assert!(tag(&entity).starts_with("customer:"));
        }
        assert_eq!(layout.entity_key(&view, "C-1"), "bw:{customer:C-1}");
    }

    #[test]
    fn the_pattern_of_a_view_is_literal_and_an_entitys_own_key_is_read_back() {
        let view = View::parse(VIEW).unwrap();
        let layout = Layout::new("b*w[1]:").unwrap();
        let (pattern, around) = layout.entities_of(&view);
        assert_eq!(pattern, "b\\*w\\[1\\]:{customer:*}");
        for key in ["C-1", "}", "ключ", "a}b{c"] {
            let name = layout.entity_key(&view, key);
            assert_eq!(around.key_in(name.as_bytes()).as_deref(), Some(key));
        }
        assert_eq!(around.key_in(b""), None);
    }

    #[test]
    fn a_prefix_with_braces_is_refused() {
        for prefix in ["{", "a}", "{}"] {
            let problem = Layout::new(prefix).err().unwrap();
            assert!(problem.starts_with("store.key_prefix"), "{problem}");
        }
    }

    #[test]
    fn a_value_is_read_as_it_was_written() {
        let mut marks = Marks::default();
        marks.put(mark(1, 10, 100));
        marks.put(mark(2, 20, -200));
        let bytes = encode(77, &marks, Some(b"entity"));
        let record = Record::decode(&bytes).unwrap();
        assert_eq!(record.version, bytes[..VERSION_BYTES]);
        assert_eq!(record.marks, marks);
        assert_eq!(record.entity, Some(&b"entity"[..]));
        let removed = encode(78, &marks, None);
        assert_eq!(Record::decode(&removed).unwrap().entity, None);
    }

    #[test]
    fn no_bytes_are_too_strange_to_be_refused() {
        let mut marks = Marks::default();
        marks.put(mark(1, 10, 100));
        let bytes = encode(77, &marks, Some(b""));
        for length in 0..bytes.len() {
            assert!(Record::decode(&bytes[..length]).is_err(), "{length}");
        }
        let problem = Record::decode(b"a value that somebody else has written").unwrap_err();
        assert!(problem.contains("byte"), "{problem}");
    }

    #[test]
    fn marks_tell_what_was_sent_again_from_what_is_new() {
        let mut marks = Marks::default();
        marks.put(mark(1, 10, 100));
        // Sent again: the same or an earlier change of that server.
        assert!(marks.cover(mark(1, 10, 100)));
        assert!(marks.cover(mark(1, 9, 90)));
        // New: a later one, one of another server, and one numbered again after a restored backup.
        assert!(!marks.cover(mark(1, 11, 110)));
        assert!(!marks.cover(mark(2, 10, 100)));
        assert!(!marks.cover(mark(1, 9, 101)));
        // The marks of the servers that wrote last are kept.
        for replica in 2..40 {
            marks.put(mark(replica, 1, 1));
        }
        assert!(!marks.cover(mark(1, 10, 100)));
        assert!(marks.cover(mark(39, 1, 1)));
        assert_eq!(marks.0.len(), MAX_MARKS);
    }
}

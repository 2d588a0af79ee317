//! Messages that can never become events, kept for a person to look at.
//!
//! One file for each source, `<data-dir>/dead-letters/<source>.ndjson`, a line a message: when, why,
//! where it came from, and the message itself. A line is on disk before the message is acknowledged,
//! so none is lost; after a crash between the two a message may be there twice.
//!
//! The files are bounded: at [`Limits::file_bytes`] a file is put aside as `<source>.1.ndjson`, the
//! older ones move up, and the oldest is let go. They hold payloads as they came, so they are readable
//! by their owner only. Nothing here reads them back.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::source::Message;
use crate::clock;

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A file that has grown to this many bytes is put aside. One batch may go over it.
    pub file_bytes: u64,
    /// How many such files are kept beside the current one.
    pub older_files: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            file_bytes: 64 * 1024 * 1024,
            older_files: 4,
        }
    }
}

/// The dead letters of one source.
#[derive(Debug)]
pub struct DeadLetters {
    folder: PathBuf,
    source: String,
    limits: Limits,
}

/// One line of the file.
#[derive(Debug, Serialize)]
struct DeadLetter<'a> {
    time: String,
    reason: &'a str,
    stream: &'a str,
    subject: &'a str,
    sequence: u64,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    headers: &'a [(String, String)],
    /// The message, when it is text.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a str>,
    /// The message, when it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
}

impl DeadLetters {
    /// The dead letters of `source` in a data directory; nothing is created before there is one.
    pub fn new(data_dir: &Path, source: &str, limits: Limits) -> DeadLetters {
        DeadLetters {
            folder: data_dir.join("dead-letters"),
            source: source.to_owned(),
            limits,
        }
    }

    /// The file that is written to.
    pub fn file(&self) -> PathBuf {
        self.folder.join(format!("{}.ndjson", self.source))
    }

    /// Writes messages with the reason for each, and returns when they are on disk.
    ///
    /// # Errors
    /// The file and what the system says. The same messages may be written again.
    pub fn append(&self, letters: &[(&Message, &str)]) -> io::Result<()> {
        self.try_append(letters).map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", self.file().display()))
        })
    }

    fn try_append(&self, letters: &[(&Message, &str)]) -> io::Result<()> {
        std::fs::create_dir_all(&self.folder)?;
        self.rotate_when_full()?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.file())?;
        let end = end_of_last_line(&file)?;
        file.set_len(end)?;
        file.seek(SeekFrom::Start(end))?;
        let mut lines = Vec::new();
        let time = clock::to_rfc3339(clock::now_us());
        for (message, reason) in letters {
            let text = std::str::from_utf8(&message.payload).ok();
            let letter = DeadLetter {
                time: time.clone(),
                reason,
                stream: &message.stream,
                subject: &message.subject,
                sequence: message.sequence,
                headers: &message.headers,
                payload: text,
                payload_base64: text.is_none().then(|| base64(&message.payload)),
            };
            serde_json::to_writer(&mut lines, &letter)?;
            lines.push(b'\n');
        }
        file.write_all(&lines)?;
        file.sync_all()?;
        // The name of a new file is on disk only with its folder.
        File::open(&self.folder)?.sync_all()
    }

    fn rotate_when_full(&self) -> io::Result<()> {
        match std::fs::metadata(self.file()) {
            Ok(found) if found.len() >= self.limits.file_bytes => {}
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        }
        let older = |number: usize| self.folder.join(format!("{}.{number}.ndjson", self.source));
        for number in (1..self.limits.older_files).rev() {
            if older(number).exists() {
                std::fs::rename(older(number), older(number + 1))?;
            }
        }
        if self.limits.older_files == 0 {
            return std::fs::remove_file(self.file());
        }
        std::fs::rename(self.file(), older(1))
    }
}

/// Where the last whole line ends: behind it is at most what a crash left of a line, whose message was
/// not acknowledged and comes again.
fn end_of_last_line(file: &File) -> io::Result<u64> {
    let length = file.metadata()?.len();
    let mut reader = BufReader::new(file);
    // Lines are read from the start only when the last one is torn.
    if length == 0 {
        return Ok(0);
    }
    reader.seek(SeekFrom::Start(length - 1))?;
    if reader.fill_buf()?.first() == Some(&b'\n') {
        return Ok(length);
    }
    reader.seek(SeekFrom::Start(0))?;
    let (mut end, mut position) = (0, 0);
    loop {
        let buffer = reader.fill_buf()?;
        if buffer.is_empty() {
            return Ok(end);
        }
        if let Some(newline) = buffer.iter().rposition(|byte| *byte == b'\n') {
            end = position + newline as u64 + 1;
        }
        let read = buffer.len();
        position += read as u64;
        reader.consume(read);
    }
}

/// Standard base64 with padding.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let byte = |index: usize| u32::from(three.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for letter in 0..4 {
            if letter <= three.len() {
                let index = (bits >> (18 - 6 * letter)) & 63;
                text.push(char::from(LETTERS[index as usize]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;

    fn message(payload: &[u8], sequence: u64) -> Message {
        Message {
            payload: payload.to_vec().into(),
            headers: Vec::new(),
            stream: "events".to_owned(),
            subject: "events.ticket".to_owned(),
            sequence,
            taken_at_us: None,
            redelivered: false,
            receipt: String::new(),
        }
    }

    fn lines(file: &Path) -> Vec<Json> {
        let text = std::fs::read_to_string(file).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    #[test]
    fn a_letter_says_what_came_from_where_and_why_it_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let letters = DeadLetters::new(dir.path(), "crm", Limits::default());
        let (text, bytes) = (message(b"{oops", 7), message(&[0xff, 0x00], 8));
        letters
            .append(&[(&text, "not JSON"), (&bytes, "not UTF-8")])
            .unwrap();
        let mut found = lines(&dir.path().join("dead-letters/crm.ndjson"));
        for letter in &mut found {
            let time = letter.as_object_mut().unwrap().remove("time").unwrap();
            clock::from_rfc3339(time.as_str().unwrap()).unwrap();
        }
        let subject = "events.ticket";
        assert_eq!(
            found,
            [
                json!({"reason": "not JSON", "stream": "events", "subject": subject, "sequence": 7, "payload": "{oops"}),
                json!({"reason": "not UTF-8", "stream": "events", "subject": subject, "sequence": 8, "payload_base64": "/wA="}),
            ]
        );
    }

    #[test]
    fn what_a_crash_left_of_a_line_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let letters = DeadLetters::new(dir.path(), "crm", Limits::default());
        letters.append(&[(&message(b"a", 1), "first")]).unwrap();
        let mut torn = OpenOptions::new()
            .append(true)
            .open(letters.file())
            .unwrap();
        torn.write_all(b"{\"time\": \"20").unwrap();
        letters.append(&[(&message(b"b", 2), "second")]).unwrap();
        let reasons: Vec<_> = lines(&letters.file())
            .iter()
            .map(|letter| letter["reason"].clone())
            .collect();
        assert_eq!(reasons, [json!("first"), json!("second")]);
    }

    #[test]
    fn the_files_are_bounded_and_the_oldest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let limits = Limits {
            file_bytes: 1,
            older_files: 2,
        };
        let letters = DeadLetters::new(dir.path(), "crm", limits);
        for sequence in 1..=5 {
            letters
                .append(&[(&message(b"x", sequence), "bad")])
                .unwrap();
        }
        let folder = dir.path().join("dead-letters");
        let sequence_in = |name: &str| lines(&folder.join(name))[0]["sequence"].clone();
        assert_eq!(sequence_in("crm.ndjson"), json!(5));
        assert_eq!(sequence_in("crm.1.ndjson"), json!(4));
        assert_eq!(sequence_in("crm.2.ndjson"), json!(3));
        assert_eq!(std::fs::read_dir(folder).unwrap().count(), 3);
    }

    #[test]
    fn base64_is_the_standard_one() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }
}

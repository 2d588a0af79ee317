//! Text files in pieces of whole records, so that threads can parse them side by side.
//!
//! Where a record of CSV ends depends on the quotes before it; [`Splitter`] follows them as the `csv`
//! crate does, byte by byte, and looks at nothing else. A line of NDJSON ends at its line break.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// The longest record, in bytes.
pub const MAX_RECORD_BYTES: usize = 4 * 1024 * 1024;
/// A piece ends at the first record beyond this many bytes.
const PIECE_BYTES: usize = 4 * 1024 * 1024;
const READ_BYTES: usize = 256 * 1024;

/// Some whole records.
#[derive(Debug)]
pub struct Piece {
    pub bytes: Vec<u8>,
    /// How many records they are; blank lines are none.
    pub records: usize,
    /// Where in the file the next piece begins.
    pub end: u64,
}

/// A text file that is being cut into pieces.
#[derive(Debug)]
pub struct Splitter {
    file: File,
    /// Read and not handed out.
    buffer: Vec<u8>,
    /// Where in the file the buffer begins.
    at: u64,
    is_at_end: bool,
    is_csv: bool,
}

/// Where in a record of CSV a byte is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nothing of the record was seen but what a blank line may have.
    Blank,
    FieldStart,
    Unquoted,
    Quoted,
    /// After a quote in a quoted field: its end, or the first of two.
    Quote,
}

impl Splitter {
    /// Opens `file` at byte `at`, where a record begins.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(file: &Path, at: u64, is_csv: bool) -> std::io::Result<Splitter> {
        let mut file = File::open(file)?;
        file.seek(SeekFrom::Start(at))?;
        Ok(Splitter {
            file,
            buffer: Vec::new(),
            at,
            is_at_end: false,
            is_csv,
        })
    }

    /// The next records, at most `limit`; `None` at the end.
    ///
    /// # Errors
    /// When the file cannot be read, or a record is too long.
    pub fn next(&mut self, limit: usize) -> Result<Option<Piece>, String> {
        let mut state = State::Blank;
        let (mut records, mut seen, mut end) = (0, 0, 0);
        loop {
            while seen < self.buffer.len() {
                let byte = self.buffer[seen];
                seen += 1;
                let (next, is_end) = match self.is_csv {
                    true => after_csv(state, byte),
                    false => after_line(state, byte),
                };
                if is_end {
                    records += usize::from(state != State::Blank);
                    end = seen;
                    if records == limit || (records > 0 && end >= PIECE_BYTES) {
                        return Ok(Some(self.cut(end, records)));
                    }
                }
                state = next;
            }
            if seen - end > MAX_RECORD_BYTES {
                return Err(format!(
                    "record {} of what begins at byte {} is longer than {MAX_RECORD_BYTES} bytes{}",
                    records + 1,
                    self.at,
                    if self.is_csv {
                        "; is a quote not closed?"
                    } else {
                        ""
                    }
                ));
            }
            if self.is_at_end {
                records += usize::from(state != State::Blank);
                return Ok((records > 0).then(|| self.cut(seen, records)));
            }
            self.fill().map_err(|error| error.to_string())?;
        }
    }

    fn fill(&mut self) -> std::io::Result<()> {
        let length = self.buffer.len();
        self.buffer.resize(length + READ_BYTES, 0);
        let read = self.file.read(&mut self.buffer[length..]);
        let read = match read {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => Ok(0),
            Ok(0) => {
                self.is_at_end = true;
                Ok(0)
            }
            read => read,
        };
        self.buffer
            .truncate(length + read.as_ref().copied().unwrap_or(0));
        read.map(|_| ())
    }

    fn cut(&mut self, end: usize, records: usize) -> Piece {
        let rest = self.buffer.split_off(end);
        let bytes = std::mem::replace(&mut self.buffer, rest);
        self.at += end as u64;
        Piece {
            bytes,
            records,
            end: self.at,
        }
    }
}

/// The state after a byte of CSV, and whether the byte ends a record or blank line.
#[inline]
pub fn after_csv(state: State, byte: u8) -> (State, bool) {
    match (state, byte) {
        (State::Quoted, b'"') => (State::Quote, false),
        (State::Quoted, _) | (State::Quote, b'"') => (State::Quoted, false),
        (_, b'\n' | b'\r') => (State::Blank, true),
        (_, b',') => (State::FieldStart, false),
        (State::Blank | State::FieldStart, b'"') => (State::Quoted, false),
        _ => (State::Unquoted, false),
    }
}

/// The same for lines.
#[inline]
fn after_line(state: State, byte: u8) -> (State, bool) {
    match byte {
        b'\n' => (State::Blank, true),
        b' ' | b'\t' | b'\r' => (state, false),
        _ => (State::Unquoted, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(text: &str, limit: usize, is_csv: bool) -> Vec<(String, usize)> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a");
        std::fs::write(&file, text).unwrap();
        let mut splitter = Splitter::open(&file, 0, is_csv).unwrap();
        let mut found = Vec::new();
        while let Some(piece) = splitter.next(limit).unwrap() {
            let text = String::from_utf8(piece.bytes).unwrap();
            // A piece begins where the one before it ended.
            let mut again = Splitter::open(&file, piece.end, is_csv).unwrap();
            let rest = again.next(usize::MAX).unwrap();
            let rest = rest.map_or(Vec::new(), |piece| piece.bytes);
            assert!(text.len() + rest.len() <= std::fs::metadata(&file).unwrap().len() as usize);
            found.push((text, piece.records));
        }
        found
    }

    #[test]
    fn records_are_counted_by_their_quotes_and_blank_lines_are_none() {
        let text = "a,\"x\ny\"\r\n\r\nb,\"say \"\"hi\n\"\"\"\n\nc\"d,e\nf";
        let found = pieces(text, 1, true);
        let texts: Vec<&str> = found.iter().map(|(text, _)| text.trim()).collect();
        assert_eq!(
            texts,
            ["a,\"x\ny\"", "b,\"say \"\"hi\n\"\"\"", "c\"d,e", "f"]
        );
        assert!(found.iter().all(|(_, records)| *records == 1));
        let found = pieces("{}\n  \n{\"a\":\"\\n\"}\r\n\n{}", 2, false);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].1, found[1].1), (2, 1));
        assert!(pieces("", 1, true).is_empty() && pieces("\n\n", 1, true).is_empty());
    }

    proptest::proptest! {
        #[test]
        fn the_records_are_those_that_the_csv_crate_finds(
            text in "[ab,\"\r\n]{0,60}",
            limit in 1_usize..4,
        ) {
            let count = |text: &str| {
                let mut reader = csv::ReaderBuilder::new()
                    .has_headers(false)
                    .flexible(true)
                    .from_reader(text.as_bytes());
                let mut record = csv::ByteRecord::new();
                let mut records = Vec::new();
                while reader.read_byte_record(&mut record).unwrap() {
                    records.push(record.iter().map(<[u8]>::to_vec).collect::<Vec<_>>());
                }
                records
            };
            let mut found = Vec::new();
            for (piece, records) in pieces(&text, limit, true) {
                let parsed = count(&piece);
                proptest::prop_assert_eq!(parsed.len(), records);
                found.extend(parsed);
            }
            proptest::prop_assert_eq!(found, count(&text));
        }
    }
}

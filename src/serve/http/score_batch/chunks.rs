//! A body in pieces that are scored together: lines of NDJSON, or batches of an Arrow stream.
//!
//! A piece is at most [`CHUNK_ROWS`] rows ([`EXPLAINED_ROWS`] with reasons), and of NDJSON about
//! [`CHUNK_BYTES`]. It is handed on before it is full when nothing more comes for a moment, so that whoever
//! sends a few rows and waits is answered.

use std::time::Duration;

use arrow::record_batch::RecordBatch;
use axum::http::StatusCode;

use super::super::error::ApiError;
use super::messages::Messages;
use super::source::ByteSource;

/// The most rows that are scored together.
pub const CHUNK_ROWS: usize = 4096;

/// The same where each row is explained, which takes as long as scoring some twenty rows.
pub const EXPLAINED_ROWS: usize = 256;

/// After so many bytes of lines no further ones are waited for.
pub const CHUNK_BYTES: usize = 1024 * 1024;

/// How long a piece that has rows is kept for more of them.
const LINGER: Duration = Duration::from_millis(20);

/// Rows that are scored together.
pub enum Chunk {
    /// Whole lines, perhaps blank ones among them.
    Lines(Vec<u8>),
    Table(RecordBatch),
}

/// A body in pieces.
pub struct Chunks {
    source: ByteSource,
    form: Pieces,
    is_over: bool,
}

enum Pieces {
    Lines(Lines),
    Messages(Box<Messages>),
}

impl Chunks {
    /// Lines, each of at most `max_line` bytes; `most_rows` in a piece.
    pub fn of_lines(source: ByteSource, max_line: usize, most_rows: usize) -> Chunks {
        let form = Pieces::Lines(Lines {
            max_line,
            most_rows,
            ..Lines::default()
        });
        Chunks {
            source,
            form,
            is_over: false,
        }
    }

    /// An Arrow stream, of whose messages each has at most `max_message` bytes; `most_rows` in a piece.
    pub fn of_arrow(source: ByteSource, max_message: usize, most_rows: usize) -> Chunks {
        let form = Pieces::Messages(Box::new(Messages::new(max_message, most_rows)));
        Chunks {
            source,
            form,
            is_over: false,
        }
    }

    /// The next piece; none at the end.
    ///
    /// # Errors
    /// When the body cannot be read on.
    pub async fn next(&mut self) -> Result<Option<Chunk>, ApiError> {
        loop {
            let (chunk, has_some) = match &mut self.form {
                Pieces::Lines(lines) => {
                    let is_full = lines.scan(self.is_over)?;
                    let has_some = lines.complete > 0;
                    let is_next = is_full || self.is_over && has_some;
                    (is_next.then(|| Chunk::Lines(lines.cut())), has_some)
                }
                Pieces::Messages(messages) => {
                    let table = messages.next(self.is_over)?;
                    (table.map(Chunk::Table), false)
                }
            };
            if chunk.is_some() || self.is_over {
                return Ok(chunk);
            }
            let more = match has_some {
                true => match tokio::time::timeout(LINGER, self.source.next()).await {
                    Ok(more) => more?,
                    Err(_) => return Ok(self.cut()),
                },
                false => self.source.next().await?,
            };
            match (more, &mut self.form) {
                (None, _) => self.is_over = true,
                (Some(bytes), Pieces::Lines(lines)) => lines.buffer.extend_from_slice(&bytes),
                (Some(bytes), Pieces::Messages(messages)) => {
                    messages.buffer.extend_from_slice(&bytes);
                }
            }
        }
    }

    /// The lines that are there.
    fn cut(&mut self) -> Option<Chunk> {
        match &mut self.form {
            Pieces::Lines(lines) => Some(Chunk::Lines(lines.cut())),
            Pieces::Messages(_) => None,
        }
    }

    /// Reads what is left and throws it away, within limits; whether that was all of it.
    pub async fn discard(self) -> bool {
        self.source.discard().await
    }
}

#[derive(Default)]
struct Lines {
    max_line: usize,
    most_rows: usize,
    buffer: Vec<u8>,
    /// Up to where it was looked for line ends.
    scanned: usize,
    /// Up to the end of the last whole line.
    complete: usize,
    lines: usize,
}

impl Lines {
    /// Looks for line ends; whether there are enough lines.
    fn scan(&mut self, is_over: bool) -> Result<bool, ApiError> {
        while self.scanned < self.buffer.len() {
            let unseen = &self.buffer[self.scanned..];
            match unseen.iter().position(|byte| *byte == b'\n') {
                Some(at) => {
                    self.scanned += at + 1;
                    self.check(self.scanned - 1)?;
                    self.complete = self.scanned;
                    self.lines += 1;
                    if self.lines >= self.most_rows || self.complete >= CHUNK_BYTES {
                        return Ok(true);
                    }
                }
                None => {
                    self.scanned = self.buffer.len();
                    self.check(self.scanned)?;
                }
            }
        }
        if is_over {
            // The last line needs no end.
            self.complete = self.buffer.len();
        }
        Ok(false)
    }

    /// Refuses a line that goes on to `end` when it is too long.
    fn check(&self, end: usize) -> Result<(), ApiError> {
        if end - self.complete <= self.max_line {
            return Ok(());
        }
        Err(ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!(
                "body: a line is over the limit of {} bytes (score_batch.max_line_bytes)",
                self.max_line
            ),
        ))
    }

    fn cut(&mut self) -> Vec<u8> {
        let rest = self.buffer.split_off(self.complete);
        self.scanned -= self.complete;
        self.complete = 0;
        self.lines = 0;
        std::mem::replace(&mut self.buffer, rest)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray};
    use arrow::ipc::writer::StreamWriter;
    use axum::body::{Body, Bytes};
    use futures_util::stream;

    use super::*;

    fn source(bytes: &[u8], step: usize) -> ByteSource {
        let parts: Vec<_> = bytes
            .chunks(step)
            .map(|part| Ok::<_, std::io::Error>(Bytes::copy_from_slice(part)))
            .collect();
        let body = Body::from_stream(stream::iter(parts));
        ByteSource::new(body, None, Duration::from_secs(60))
    }

    /// The sizes of the pieces in lines or rows, and how they end.
    async fn sizes(mut chunks: Chunks) -> (Vec<usize>, Option<String>) {
        let mut sizes = Vec::new();
        loop {
            match chunks.next().await {
                Ok(Some(Chunk::Lines(lines))) => sizes.push(lines.split(|b| *b == b'\n').count()),
                Ok(Some(Chunk::Table(table))) => sizes.push(table.num_rows()),
                Ok(None) => return (sizes, None),
                Err(error) => return (sizes, Some(error.into_message())),
            }
        }
    }

    #[tokio::test]
    async fn lines_are_cut_at_their_ends_and_none_is_too_long() {
        let lines: String = (0..5000).map(|n| format!("{{\"n\":{n}}}\n")).collect();
        for step in [7, 1 << 20] {
            let (found, problem) = sizes(Chunks::of_lines(
                source(lines.as_bytes(), step),
                100,
                CHUNK_ROWS,
            ))
            .await;
            assert_eq!((found.iter().sum::<usize>(), problem), (5002, None));
        }
        let (found, problem) = sizes(Chunks::of_lines(source(b"{}\n{}", 1), 2, CHUNK_ROWS)).await;
        assert_eq!((found, problem), (vec![2], None));
        let (_, problem) = sizes(Chunks::of_lines(source(b"{}\n{  }\n", 1), 3, CHUNK_ROWS)).await;
        assert!(problem.unwrap().contains("max_line_bytes"));
        let (found, problem) = sizes(Chunks::of_lines(source(b"", 1), 3, CHUNK_ROWS)).await;
        assert_eq!((found, problem), (vec![], None));
    }

    fn arrow_stream(rows: &[usize]) -> Vec<u8> {
        let table = |rows: usize| {
            let ids: StringArray = (0..rows).map(|n| Some(format!("c{n}"))).collect();
            let numbers: Int64Array = (0..rows as i64).collect();
            let columns: Vec<(&str, arrow::array::ArrayRef)> =
                vec![("customer_id", Arc::new(ids)), ("n", Arc::new(numbers))];
            RecordBatch::try_from_iter(columns).unwrap()
        };
        let schema = table(0).schema();
        let mut writer = StreamWriter::try_new(Vec::new(), &schema).unwrap();
        for rows in rows {
            writer.write(&table(*rows)).unwrap();
        }
        writer.finish().unwrap();
        std::mem::take(writer.get_mut())
    }

    #[tokio::test]
    async fn arrow_batches_are_cut_and_a_stream_that_breaks_off_is_an_error() {
        let whole = arrow_stream(&[10, 0, 5000]);
        for step in [13, 1 << 20] {
            let (found, problem) =
                sizes(Chunks::of_arrow(source(&whole, step), 1 << 20, CHUNK_ROWS)).await;
            assert_eq!(
                (found, problem),
                (vec![10, CHUNK_ROWS, 5000 - CHUNK_ROWS], None)
            );
        }
        let (found, problem) = sizes(Chunks::of_arrow(
            source(&arrow_stream(&[]), 5),
            1000,
            CHUNK_ROWS,
        ))
        .await;
        assert_eq!((found, problem), (vec![], None));
        let cut = &whole[..whole.len() - 100];
        let (found, problem) =
            sizes(Chunks::of_arrow(source(cut, 1000), 1 << 20, CHUNK_ROWS)).await;
        assert_eq!(found, [10]);
        assert!(problem.unwrap().contains("ends within a message"));
        let (_, problem) = sizes(Chunks::of_arrow(source(&whole, 1000), 1000, CHUNK_ROWS)).await;
        assert!(problem.unwrap().contains("max_arrow_bytes"));
        for wrong in [&b"certainly no arrow"[..], &b"xx"[..], &b""[..]] {
            let (found, problem) =
                sizes(Chunks::of_arrow(source(wrong, 5), 1 << 20, CHUNK_ROWS)).await;
            assert!(found.is_empty() && problem.is_some(), "{wrong:?}");
        }
    }

    #[tokio::test]
    async fn no_damage_of_a_stream_stops_more_than_itself() {
        let whole = arrow_stream(&[3]);
        for at in 0..whole.len() {
            for wrong in [0, 1, 0x7f, 0xff] {
                let mut damaged = whole.clone();
                damaged[at] = wrong;
                let _ = sizes(Chunks::of_arrow(
                    source(&damaged, 1 << 20),
                    1 << 20,
                    CHUNK_ROWS,
                ))
                .await;
            }
        }
    }
}

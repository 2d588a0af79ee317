//! From rows to encoded chunks: predictions and inferences as they come, outcomes after a look at
//! what is already recorded.

use super::super::error::{AppendError, OutcomeError};
use super::super::frame::{FrameKind, frames_in, push_copy, push_record};
use super::super::handle::Receipt;
use super::super::index::IndexEntry;
use super::super::queue::{QueuedFrame, QueuedOutcome};
use super::{Answer, Waiter, Writer};

/// Encoded bytes that go into one write.
const CHUNK_BYTES: usize = 1024 * 1024;

/// Encoded frames that are written together.
#[derive(Default)]
pub(super) struct Chunk {
    pub(super) bytes: Vec<u8>,
    /// Position behind its last byte.
    pub(super) end: u64,
    /// Rows and bytes to take off the queue's count once it is written.
    pub(super) rows: usize,
    pub(super) queue_bytes: usize,
    pub(super) predictions: u64,
    pub(super) inferences: u64,
    pub(super) changes: u64,
    pub(super) audits: u64,
    pub(super) shadows: u64,
    /// The outcomes in it, to be indexed once it is durable.
    pub(super) entries: Vec<IndexEntry>,
}

impl Writer {
    /// Rows come as frames that lack only what the segment decides.
    pub(super) fn encode_rows(&mut self, rows: Vec<Vec<u8>>) {
        let mut chunk = Chunk::default();
        for frame in rows.iter().flat_map(|frames| frames_in(frames)) {
            push_copy(
                &mut chunk.bytes,
                &frame,
                self.segment.seed,
                self.segment.synced,
            );
            chunk.rows += 1;
            chunk.queue_bytes += frame.bytes.len();
            match frame.kind {
                FrameKind::Inference => chunk.inferences += 1,
                FrameKind::Shadow => chunk.shadows += 1,
                _ => chunk.predictions += 1,
            }
            if chunk.bytes.len() >= CHUNK_BYTES {
                self.push_chunk(std::mem::take(&mut chunk));
            }
        }
        self.push_chunk(chunk);
    }

    pub(super) fn encode_outcomes(&mut self, outcomes: Vec<QueuedOutcome>) {
        let mut chunk = Chunk::default();
        for QueuedOutcome {
            outcome,
            bytes,
            reply,
        } in outcomes
        {
            chunk.rows += 1;
            chunk.queue_bytes += bytes;
            let outcome_id = outcome.outcome_id.clone();
            let is_pending = self.pending.contains_key(&outcome_id);
            let earlier = match self.pending.get(&outcome_id) {
                Some(content_hash) => Ok(Some(content_hash.clone())),
                None => self.index.content_hash(&outcome_id),
            };
            let answer = match earlier {
                Ok(None) => {
                    push_record(
                        &mut chunk.bytes,
                        self.segment.seed,
                        self.segment.synced,
                        FrameKind::Outcome,
                        &outcome,
                    );
                    self.pending
                        .insert(outcome_id.clone(), outcome.content_hash.clone());
                    chunk
                        .entries
                        .push((outcome_id.clone(), outcome.content_hash));
                    Ok(Receipt {
                        outcome_id,
                        duplicate: false,
                    })
                }
                Ok(Some(content_hash)) if content_hash == outcome.content_hash => Ok(Receipt {
                    outcome_id,
                    duplicate: true,
                }),
                Ok(Some(_)) => Err(OutcomeError::Conflict),
                Err(error) => {
                    tracing::error!(%error, "outcome ids cannot be looked up; restart the server to rebuild the index");
                    self.fail_index();
                    Err(OutcomeError::Refused(AppendError::Unavailable))
                }
            };
            let is_new = matches!(&answer, Ok(receipt) if !receipt.duplicate);
            if is_new || is_pending {
                // A duplicate or a conflict, too, is only told once what it refers to is durable.
                let position = self.encoded_position + chunk.bytes.len() as u64;
                let answer = Answer::Outcome(reply, answer);
                self.waiters.push(Waiter { position, answer });
            } else {
                self.effects.answers.push(Answer::Outcome(reply, answer));
            }
            if chunk.bytes.len() >= CHUNK_BYTES {
                self.push_chunk(std::mem::take(&mut chunk));
            }
        }
        self.push_chunk(chunk);
    }

    pub(super) fn encode_awaited(&mut self, frames: Vec<QueuedFrame>) {
        for QueuedFrame { frame, reply } in frames {
            let mut chunk = Chunk::default();
            for frame in frames_in(&frame) {
                push_copy(
                    &mut chunk.bytes,
                    &frame,
                    self.segment.seed,
                    self.segment.synced,
                );
                chunk.rows += 1;
                chunk.queue_bytes += frame.bytes.len();
                match frame.kind {
                    FrameKind::Audit => chunk.audits += 1,
                    _ => chunk.changes += 1,
                }
            }
            self.waiters.push(Waiter {
                position: self.encoded_position + chunk.bytes.len() as u64,
                // When the disk fails it may end up in a later segment: reading from this one finds it.
                answer: Answer::Durable(reply, self.segment.sequence),
            });
            self.push_chunk(chunk);
        }
    }

    fn push_chunk(&mut self, mut chunk: Chunk) {
        if chunk.bytes.is_empty() {
            self.queue.release(chunk.rows, chunk.queue_bytes);
            return;
        }
        self.encoded_position += chunk.bytes.len() as u64;
        chunk.end = self.encoded_position;
        self.backlog.push_back(chunk);
    }
}

//! Writes a ledger at rest as Parquet files, readable as they are by Polars, DuckDB, Spark or
//! pandas.
//!
//! `predictions-00001.parquet` and so on hold one row per prediction and model,
//! `inferences-00001.parquet` and so on one per inference, `outcomes-00001.parquet` and so on one per
//! outcome, `changes-00001.parquet` and so on one per event, profile update and removal, `audit-…` one per
//! administrative act, `shadow_scores-…` one per score of a version in shadow; the columns are those of
//! [`rows`], [`inferences`], [`changes`] and [`audit`], the files those of `files`. A file with the schema
//! is written even when there are no rows.
//!
//! Promises: memory is bounded whatever the size of the ledger; an outcome id never appears twice;
//! files appear under their names only once all of them are complete, and an earlier export in the
//! same directory is replaced. A damaged ledger is not exported (a torn tail is no damage). The
//! ledger itself is only read.

pub mod audit;
pub mod changes;
mod files;
pub mod inferences;
pub mod rows;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use self::audit::{AuditRows, ShadowRows};
use self::changes::ChangeRows;
use self::files::TableWriter;
use self::inferences::InferenceRows;
use self::rows::{OutcomeRows, PredictionRows};
use super::changes::decode_changes;
use super::disk::sync_directory;
use super::duplicates::{DuplicateFinder, ShortId, short_id};
use super::error::LedgerError;
use super::frame::{FrameKind, SEGMENT_HEADER_BYTES};
use super::reading::{
    decode_audit, decode_inference, decode_outcome, decode_prediction, decode_shadow, read_frames,
};
use super::scan::SegmentEnd;
use super::segment::{Segment, load_chain};
use super::verify::open_at_rest;

/// What [`export_parquet`] wrote.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct ExportReport {
    /// The files, predictions first.
    pub files: Vec<PathBuf>,
    /// Rows in the predictions files: one per prediction and model.
    pub prediction_rows: u64,
    /// Rows in the inferences files.
    pub inference_rows: u64,
    /// Rows in the outcomes files.
    pub outcome_rows: u64,
    /// Rows in the changes files: one per event, profile update and removal.
    pub change_rows: u64,
    /// Rows in the audit files: one per administrative act.
    pub audit_rows: u64,
    /// Rows in the shadow_scores files.
    pub shadow_rows: u64,
    /// Outcomes left out because their id had been exported already; 0 for a sound ledger.
    pub duplicate_outcomes: u64,
    /// Bytes of a torn tail that were left out: never acknowledged.
    pub torn_tail_bytes: u64,
}

impl std::fmt::Display for ExportReport {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            out,
            "{} prediction rows, {} inference rows, {} outcome rows, {} change rows, {} shadow scores, \
             {} audit rows",
            self.prediction_rows,
            self.inference_rows,
            self.outcome_rows,
            self.change_rows,
            self.shadow_rows,
            self.audit_rows
        )?;
        if self.duplicate_outcomes > 0 {
            writeln!(
                out,
                "{} duplicate outcomes were left out",
                self.duplicate_outcomes
            )?;
        }
        if self.torn_tail_bytes > 0 {
            writeln!(
                out,
                "{} bytes of a torn tail were left out",
                self.torn_tail_bytes
            )?;
        }
        let names: Vec<String> = self
            .files
            .iter()
            .map(|file| file.display().to_string())
            .collect();
        write!(out, "{}", names.join("\n"))
    }
}

/// Exports the ledger in `data_dir` to `output_dir`, which is created where it is missing.
pub fn export_parquet(data_dir: &Path, output_dir: &Path) -> Result<ExportReport, LedgerError> {
    let (ledger_dir, _lock) = open_at_rest(data_dir)?;
    let chain = load_chain(&ledger_dir)?;
    std::fs::create_dir_all(output_dir)
        .map_err(LedgerError::io(output_dir, "creating the output directory"))?;

    let duplicated_ids = find_duplicate_outcomes(&chain)?;
    let mut export = Export {
        prediction_rows: PredictionRows::new(),
        inference_rows: InferenceRows::default(),
        outcome_rows: OutcomeRows::new(),
        predictions: TableWriter::new(output_dir, "predictions", PredictionRows::schema()),
        inferences: TableWriter::new(output_dir, "inferences", InferenceRows::schema()),
        outcomes: TableWriter::new(output_dir, "outcomes", OutcomeRows::schema()),
        change_rows: ChangeRows::default(),
        changes: TableWriter::new(output_dir, "changes", ChangeRows::schema()),
        audit_rows: AuditRows::default(),
        audits: TableWriter::new(output_dir, "audit", AuditRows::schema()),
        shadow_rows: ShadowRows::default(),
        shadows: TableWriter::new(output_dir, "shadow_scores", ShadowRows::schema()),
        duplicated_ids,
        exported_duplicated_ids: HashSet::new(),
        report: ExportReport::default(),
    };
    for segment in &chain {
        export.read(segment)?;
    }
    export.finish(output_dir)
}

/// Ids of outcomes that are in the log more than once: none, unless files were copied together by
/// hand.
fn find_duplicate_outcomes(chain: &[Segment]) -> Result<HashSet<ShortId>, LedgerError> {
    let mut finder = DuplicateFinder::new();
    for segment in chain {
        let end = read_frames(segment, SEGMENT_HEADER_BYTES as u64, |frame| {
            if frame.kind == FrameKind::Outcome {
                finder.add(short_id(
                    decode_outcome(segment, frame)?.outcome_id.as_bytes(),
                ))?;
            }
            Ok(())
        })?;
        refuse_damage(segment, end)?;
    }
    Ok(finder.finish()?.ids)
}

/// The bytes of a torn tail; damage is an error.
fn refuse_damage(segment: &Segment, end: SegmentEnd) -> Result<u64, LedgerError> {
    match end {
        SegmentEnd::Complete => Ok(0),
        SegmentEnd::Torn { bytes, .. } => Ok(bytes),
        SegmentEnd::Damaged { offset, detail } => Err(damaged(segment, offset, detail)),
    }
}

fn damaged(segment: &Segment, offset: u64, detail: String) -> LedgerError {
    LedgerError::Damaged {
        file: segment.path.clone(),
        offset,
        detail,
    }
}

/// An export under way.
struct Export<'a> {
    prediction_rows: PredictionRows,
    inference_rows: InferenceRows,
    outcome_rows: OutcomeRows,
    predictions: TableWriter<'a>,
    inferences: TableWriter<'a>,
    outcomes: TableWriter<'a>,
    change_rows: ChangeRows,
    changes: TableWriter<'a>,
    audit_rows: AuditRows,
    audits: TableWriter<'a>,
    shadow_rows: ShadowRows,
    shadows: TableWriter<'a>,
    duplicated_ids: HashSet<ShortId>,
    exported_duplicated_ids: HashSet<ShortId>,
    report: ExportReport,
}

impl Export<'_> {
    fn read(&mut self, segment: &Segment) -> Result<(), LedgerError> {
        let end = read_frames(segment, SEGMENT_HEADER_BYTES as u64, |frame| {
            match frame.kind {
                FrameKind::Prediction => {
                    let prediction = decode_prediction(segment, frame)?;
                    let table = &mut self.predictions;
                    self.report.prediction_rows += self
                        .prediction_rows
                        .push(&prediction, |rows| table.write(|| rows.take_batch()))?;
                }
                FrameKind::Outcome => {
                    let outcome = decode_outcome(segment, frame)?;
                    if self.was_exported(&outcome.outcome_id) {
                        self.report.duplicate_outcomes += 1;
                        return Ok(());
                    }
                    self.outcome_rows.push(&outcome);
                    self.report.outcome_rows += 1;
                    if self.outcome_rows.is_full() {
                        self.outcomes.write(|| self.outcome_rows.take_batch())?;
                    }
                }
                FrameKind::Inference => {
                    let inference = decode_inference(segment, frame)?;
                    self.inference_rows
                        .push(&inference)
                        .map_err(|problem| damaged(segment, frame.offset, problem))?;
                    self.report.inference_rows += 1;
                    if self.inference_rows.is_full() {
                        self.inferences.write(|| self.inference_rows.take_batch())?;
                    }
                }
                FrameKind::Changes => {
                    let batch = decode_changes(frame.payload, segment.sequence)
                        .map_err(|problem| damaged(segment, frame.offset, problem))?;
                    self.change_rows.push(&batch);
                    self.report.change_rows += batch.changes.len() as u64;
                    if self.change_rows.is_full() {
                        self.changes.write(|| self.change_rows.take_batch())?;
                    }
                }
                FrameKind::Audit => {
                    self.audit_rows.push(&decode_audit(segment, frame)?);
                    self.report.audit_rows += 1;
                    if self.audit_rows.is_full() {
                        self.audits.write(|| self.audit_rows.take_batch())?;
                    }
                }
                FrameKind::Shadow => {
                    self.shadow_rows.push(&decode_shadow(segment, frame)?);
                    self.report.shadow_rows += 1;
                    if self.shadow_rows.is_full() {
                        self.shadows.write(|| self.shadow_rows.take_batch())?;
                    }
                }
                FrameKind::Mark => {}
            }
            Ok(())
        })?;
        self.report.torn_tail_bytes += refuse_damage(segment, end)?;
        Ok(())
    }

    /// Whether an outcome with this id was exported before; remembers it if the log holds it more
    /// than once.
    fn was_exported(&mut self, outcome_id: &str) -> bool {
        if self.duplicated_ids.is_empty() {
            return false;
        }
        let id = short_id(outcome_id.as_bytes());
        self.duplicated_ids.contains(&id) && !self.exported_duplicated_ids.insert(id)
    }

    fn finish(mut self, output_dir: &Path) -> Result<ExportReport, LedgerError> {
        self.predictions
            .write(|| self.prediction_rows.take_batch())?;
        self.inferences.write(|| self.inference_rows.take_batch())?;
        self.outcomes.write(|| self.outcome_rows.take_batch())?;
        self.changes.write(|| self.change_rows.take_batch())?;
        self.audits.write(|| self.audit_rows.take_batch())?;
        self.shadows.write(|| self.shadow_rows.take_batch())?;
        let mut tables = [
            &mut self.predictions,
            &mut self.inferences,
            &mut self.outcomes,
            &mut self.changes,
            &mut self.audits,
            &mut self.shadows,
        ];
        for table in &mut tables {
            table.end_file()?;
        }
        for table in tables {
            table.publish(&mut self.report.files)?;
        }
        sync_directory(output_dir)
            .map_err(LedgerError::io(output_dir, "syncing the output directory"))?;
        Ok(self.report)
    }
}

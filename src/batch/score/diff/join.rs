//! The buckets of two runs, joined: who was in which band, and who is in which now.
//!
//! A bucket that is larger than what is joined at a time is spread over smaller ones first, by another
//! hash. One key that comes any number of times stays one key, and takes the memory of one.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use super::buckets::{Buckets, Record, Size, file_of, next_record, remove, score_at};
use crate::batch::score::bands::Bands;

/// What is joined at a time, of both runs together.
const MOST_ROWS: u64 = 512 * 1024;
const MOST_BYTES: u64 = 64 * 1024 * 1024;
/// Into how many smaller ones a bucket is spread, and how often: 256 * 64 * 64 buckets are enough for
/// whatever fits on a disk.
const SPREAD: usize = 64;
const MOST_SPREADS: u64 = 2;
/// Bytes of a bucket that are read at a time.
const READ_BYTES: usize = 1024 * 1024;

/// Two runs, compared.
#[derive(Debug)]
pub struct Joined {
    pub both: u64,
    pub new: u64,
    pub gone: u64,
    pub duplicates: u64,
    pub last_duplicates: u64,
    pub models: Vec<JoinedModel>,
}

/// Two runs of one model, compared.
#[derive(Debug)]
pub struct JoinedModel {
    bands: Bands,
    /// By the band then, by the band now.
    pub migration: Vec<Vec<u64>>,
    pub new: Vec<u64>,
    pub gone: Vec<u64>,
    pub compared: u64,
    pub sum_of_changes: f64,
    pub up: Vec<Moved>,
    pub down: Vec<Moved>,
    movers: usize,
}

/// Somebody whose score moved.
#[derive(Clone, Debug, PartialEq)]
pub struct Moved {
    pub key: String,
    pub then: f64,
    pub now: f64,
}

/// Joins the buckets `last-…` and `now-…` of a folder, which have scores for each of `bands`.
///
/// # Errors
/// When a bucket cannot be read, or smaller ones not be written.
pub fn join(
    folder: &Path,
    last: &[Size],
    now: &[Size],
    bands: &[Bands],
    seed: u64,
    movers: usize,
) -> Result<Joined, String> {
    let mut join = Join {
        folder,
        most_rows: MOST_ROWS,
        joined: Joined::new(bands, movers),
    };
    for (index, (last, now)) in last.iter().zip(now).enumerate() {
        join.bucket(["last", "now"], index, [*last, *now], seed, 0)?;
    }
    Ok(join.joined)
}

struct Join<'f> {
    folder: &'f Path,
    most_rows: u64,
    joined: Joined,
}

/// What is known of a key: the place of its scores in those of each run.
#[derive(Clone, Copy, Default)]
struct Places {
    then: Option<usize>,
    now: Option<usize>,
}

impl Join<'_> {
    fn bucket(
        &mut self,
        names: [&str; 2],
        index: usize,
        sizes: [Size; 2],
        seed: u64,
        depth: u64,
    ) -> Result<(), String> {
        let rows = sizes[0].rows + sizes[1].rows;
        let bytes = sizes[0].bytes + sizes[1].bytes;
        if (rows <= self.most_rows && bytes <= MOST_BYTES) || depth == MOST_SPREADS {
            return self.in_memory(names, index, sizes);
        }
        let seed = seed.wrapping_add(1);
        let smaller = names.map(|name| format!("{name}-{index:03}"));
        let mut spread = Vec::new();
        for ((from, to), size) in names.iter().zip(&smaller).zip(sizes) {
            let mut buckets = Buckets::create(self.folder, to, SPREAD, seed)?;
            let add = |record: Record<'_>| buckets.add(record.key, record.bytes);
            self.records(from, index, size, add)?;
            spread.push(buckets.finish()?);
        }
        let names = [smaller[0].as_str(), smaller[1].as_str()];
        for index in 0..SPREAD {
            let size = |run: usize| {
                let sizes = spread.get(run).and_then(|sizes| sizes.get(index));
                sizes.copied().unwrap_or_default()
            };
            self.bucket(names, index, [size(0), size(1)], seed, depth + 1)?;
            for name in names {
                remove(self.folder, name, index)?;
            }
        }
        Ok(())
    }

    /// Joins a bucket that fits.
    fn in_memory(
        &mut self,
        names: [&str; 2],
        index: usize,
        sizes: [Size; 2],
    ) -> Result<(), String> {
        let models = self.joined.models.len();
        let mut places: HashMap<Arc<[u8]>, usize> = HashMap::new();
        // In the order in which the keys came, so that sums are the same each time.
        let mut keys: Vec<(Arc<[u8]>, Places)> = Vec::new();
        let mut scores: Vec<f64> = Vec::new();
        let mut duplicates = [0, 0];
        for (run, (name, size)) in names.iter().zip(sizes).enumerate() {
            self.records(name, index, size, |record| {
                let place = match places.get(record.key) {
                    Some(place) => *place,
                    None => {
                        let key: Arc<[u8]> = record.key.into();
                        places.insert(Arc::clone(&key), keys.len());
                        keys.push((key, Places::default()));
                        keys.len() - 1
                    }
                };
                let Some((_, known)) = keys.get_mut(place) else {
                    return Ok(());
                };
                let known = match run {
                    0 => &mut known.then,
                    _ => &mut known.now,
                };
                let at = match *known {
                    // The last row counts, in the place of the one before.
                    Some(at) => {
                        duplicates[run] += 1;
                        at
                    }
                    None => {
                        scores.resize(scores.len() + models, f64::NAN);
                        scores.len() - models
                    }
                };
                *known = Some(at);
                for (model, score) in scores.iter_mut().skip(at).take(models).enumerate() {
                    *score = score_at(record.scores, model);
                }
                Ok(())
            })?;
        }
        let joined = &mut self.joined;
        joined.last_duplicates += duplicates[0];
        joined.duplicates += duplicates[1];
        for (key, places) in &keys {
            match (places.then, places.now) {
                (Some(_), Some(_)) => joined.both += 1,
                (Some(_), None) => joined.gone += 1,
                _ => joined.new += 1,
            }
            for (index, model) in joined.models.iter_mut().enumerate() {
                let score = |at: usize| scores.get(at + index).copied();
                model.add(key, places.then.and_then(score), places.now.and_then(score));
            }
        }
        Ok(())
    }

    /// Hands out the records of a bucket, one after the other.
    fn records(
        &self,
        name: &str,
        index: usize,
        size: Size,
        mut take: impl FnMut(Record<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        if size.rows == 0 {
            return Ok(());
        }
        let path = file_of(self.folder, name, index);
        let failed = |error: std::io::Error| format!("{}: {error}", path.display());
        let mut file = BufReader::with_capacity(READ_BYTES, File::open(&path).map_err(failed)?);
        let mut bytes: Vec<u8> = Vec::new();
        let mut rows = 0;
        loop {
            let read = (&mut file).take(READ_BYTES as u64).read_to_end(&mut bytes);
            let is_end = read.map_err(failed)? == 0;
            let mut rest = bytes.as_slice();
            while let Some(record) = next_record(&mut rest, self.joined.models.len()) {
                take(record)?;
                rows += 1;
            }
            let left = rest.len();
            if is_end {
                return match left == 0 && rows == size.rows {
                    true => Ok(()),
                    false => Err(format!(
                        "{}: it holds {rows} rows, expected {}; run without --resume to begin again",
                        path.display(),
                        size.rows
                    )),
                };
            }
            bytes.drain(..bytes.len() - left);
        }
    }
}

impl Joined {
    fn new(bands: &[Bands], movers: usize) -> Joined {
        let models = bands.iter().map(|bands| JoinedModel {
            migration: vec![vec![0; bands.count()]; bands.count()],
            new: vec![0; bands.count()],
            gone: vec![0; bands.count()],
            compared: 0,
            sum_of_changes: 0.0,
            up: Vec::new(),
            down: Vec::new(),
            movers,
            bands: bands.clone(),
        });
        Joined {
            both: 0,
            new: 0,
            gone: 0,
            duplicates: 0,
            last_duplicates: 0,
            models: models.collect(),
        }
    }
}

impl JoinedModel {
    fn add(&mut self, key: &[u8], then: Option<f64>, now: Option<f64>) {
        let band = |score: Option<f64>| score.map(|score| self.bands.of(score));
        let cell = match (band(then), band(now)) {
            (Some(from), Some(to)) => self.migration.get_mut(from).and_then(|row| row.get_mut(to)),
            (Some(from), None) => self.gone.get_mut(from),
            (None, Some(to)) => self.new.get_mut(to),
            (None, None) => None,
        };
        if let Some(cell) = cell {
            *cell += 1;
        }
        let (Some(then), Some(now)) = (then, now) else {
            return;
        };
        self.compared += 1;
        self.sum_of_changes += now - then;
        let movers = match now > then {
            true => &mut self.up,
            false => &mut self.down,
        };
        if now != then {
            keep_furthest(movers, self.movers, key, then, now);
        }
    }

    /// Keys that are in a higher band now.
    pub fn rose(&self) -> u64 {
        self.count(|from, to| to > from)
    }

    pub fn fell(&self) -> u64 {
        self.count(|from, to| to < from)
    }

    pub fn stayed(&self) -> u64 {
        self.count(|from, to| to == from)
    }

    fn count(&self, is_meant: impl Fn(usize, usize) -> bool) -> u64 {
        let rows = self.migration.iter().enumerate();
        let cells = rows.flat_map(|(from, row)| {
            let cells = row.iter().enumerate();
            cells.map(move |(to, count)| (from, to, *count))
        });
        let meant = cells.filter(|(from, to, _)| is_meant(*from, *to));
        meant.map(|(_, _, count)| count).sum()
    }
}

/// Adds a mover to those that are kept, the furthest first; of those who moved as far, the first by key.
fn keep_furthest(movers: &mut Vec<Moved>, most: usize, key: &[u8], then: f64, now: f64) {
    let distance = (now - then).abs();
    let far = |moved: &Moved| (moved.now - moved.then).abs();
    if movers.len() >= most && movers.last().is_none_or(|last| far(last) > distance) {
        return;
    }
    let key = String::from_utf8_lossy(key).into_owned();
    let is_before = |moved: &Moved| (far(moved), key.as_str()) > (distance, moved.key.as_str());
    let at = movers.partition_point(is_before);
    movers.insert(at, Moved { key, then, now });
    movers.truncate(most);
}

#[cfg(test)]
#[path = "join_tests.rs"]
mod tests;

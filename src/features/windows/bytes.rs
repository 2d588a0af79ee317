//! A state as bytes.
//!
//! A version, the clock, then every track of the plan that wrote it, by its identity, with the
//! horizon it was kept for and its tiles; then what few entities have: tracks that lack earlier
//! events, and events in the future. Tracks without tiles are named too: whether one that is
//! declared now was declared then decides whether it lacks events.
//!
//! Reading takes no more memory than a small multiple of the bytes, and never panics.

use super::accumulators::MAX_TEXT_BYTES;
use super::check::MAX_WINDOW;
use super::plan::{Plan, TrackPlan};
use super::state::{Gives, Late, MAX_PENDING, Pending, Rare, WindowState};
use super::track::Track;
use super::track_bytes::{put_kept, put_track, read_kept, read_track};
use super::varint::{Reader, put, put_signed, put_text};

const VERSION: u8 = 1;

const HAS_CLOCK: u8 = 1;
const HAS_LATE: u8 = 2;
const HAS_PENDING: u8 = 4;

/// A backfill can add the pending events of history to those of now.
const MAX_PENDING_READ: usize = 2 * MAX_PENDING;

pub fn encode(plan: &Plan, state: &WindowState, bytes: &mut Vec<u8>) {
    let empty = Rare::default();
    let rare = state.rare.as_deref().unwrap_or(&empty);
    let has_clock = state.clock_us != i64::MIN;
    let flag = |set: bool, flag: u8| if set { flag } else { 0 };
    bytes.push(VERSION);
    bytes.push(
        flag(has_clock, HAS_CLOCK)
            | flag(!rare.late.is_empty(), HAS_LATE)
            | flag(!rare.pending.is_empty(), HAS_PENDING),
    );
    if has_clock {
        put_signed(bytes, state.clock_us);
    }
    put(bytes, plan.tracks.len() as u64);
    let mut body = Vec::new();
    for (number, track) in plan.tracks.iter().enumerate() {
        bytes.extend_from_slice(&track.id.to_le_bytes());
        put(bytes, track.horizon_us as u64);
        body.clear();
        if let Some(kept) = state.tracks.get(number).filter(|kept| !kept.is_empty()) {
            put_track(&mut body, kept, track.tile_of(state.clock_us));
        }
        put(bytes, body.len() as u64);
        bytes.extend_from_slice(&body);
    }
    if !rare.late.is_empty() {
        put(bytes, rare.late.len() as u64);
        for late in &rare.late {
            put(bytes, late.track as u64);
            put(bytes, late.after);
            put_signed(bytes, late.below);
        }
    }
    if !rare.pending.is_empty() {
        put(bytes, rare.pending.len() as u64);
        rare.pending
            .iter()
            .for_each(|pending| put_pending(bytes, pending));
    }
}

fn put_pending(bytes: &mut Vec<u8>, pending: &Pending) {
    put_signed(bytes, pending.time_us);
    bytes.extend_from_slice(&pending.id_hash.to_le_bytes());
    put(bytes, pending.gives.len() as u64);
    for gives in &pending.gives {
        put(bytes, gives.track as u64);
        put_kept(bytes, &gives.value);
        bytes.push(u8::from(gives.group.is_some()));
        if let Some(group) = &gives.group {
            put_text(bytes, group);
        }
    }
}

/// Reads a state. The tracks of `plan` that are not in it lack what happened until now, which is
/// change `after`.
pub fn decode(plan: &Plan, bytes: &[u8], after: u64) -> Result<WindowState, String> {
    if bytes.is_empty() {
        return Ok(WindowState::default());
    }
    read(plan, bytes, after).map_err(|problem| format!("the bytes of its windows: {problem}"))
}

/// The tracks of a plan while they are read.
struct Tracks {
    kept: Vec<Option<Track>>,
    /// For each track in the bytes the one it is in the plan; none if it is not declared any more.
    numbers: Vec<Option<usize>>,
    late: Vec<Late>,
}

fn read(plan: &Plan, bytes: &[u8], after: u64) -> Result<WindowState, String> {
    let mut reader = Reader::new(bytes);
    let version = reader.byte()?;
    if version != VERSION {
        return Err(format!(
            "version {version}, expected {VERSION}; written by a later release?"
        ));
    }
    let flags = reader.byte()?;
    if flags & !(HAS_CLOCK | HAS_LATE | HAS_PENDING) != 0 {
        return Err(format!("unknown flags {flags:#x}"));
    }
    let clock_us = if flags & HAS_CLOCK == 0 {
        i64::MIN
    } else {
        reader.signed()?
    };
    let mut tracks = Tracks {
        kept: plan.tracks.iter().map(|_| None).collect(),
        numbers: Vec::new(),
        late: Vec::new(),
    };
    let count = reader.length(usize::MAX)?;
    for _ in 0..count {
        tracks.read(plan, &mut reader, clock_us, after)?;
    }
    for (number, kept) in tracks.kept.iter().enumerate() {
        if kept.is_none() {
            tracks.late.push(Late {
                track: number,
                after,
                below: i64::MAX,
            });
        }
    }
    if flags & HAS_LATE != 0 {
        tracks.read_late(&mut reader, after)?;
    }
    let mut rare = Rare::default();
    if flags & HAS_PENDING != 0 {
        for _ in 0..reader.length(MAX_PENDING_READ)? {
            if let Some(pending) = read_pending(plan, &tracks.numbers, &mut reader)? {
                rare.keep(pending);
            }
        }
    }
    reader.finish()?;
    rare.late = tracks.late;
    rare.late.sort_by_key(|late| late.track);
    // A track that begins anew has nothing kept aside either: that is in history too.
    let begun = |number: usize| tracks.kept.get(number).is_some_and(Option::is_some);
    for pending in &mut rare.pending {
        pending.gives.retain(|gives| begun(gives.track));
    }
    rare.pending.retain(|pending| !pending.gives.is_empty());
    let nothing = tracks.kept.iter().flatten().all(Track::is_empty);
    let filled = |(plan, kept): (&TrackPlan, Option<Track>)| kept.unwrap_or_else(|| plan.empty());
    let kept = plan.tracks.iter().zip(tracks.kept);
    Ok(WindowState {
        clock_us,
        tracks: if nothing {
            Box::default()
        } else {
            kept.map(filled).collect()
        },
        rare: (rare != Rare::default()).then(|| Box::new(rare)),
    })
}

impl Tracks {
    fn read(
        &mut self,
        plan: &Plan,
        reader: &mut Reader<'_>,
        clock_us: i64,
        after: u64,
    ) -> Result<(), String> {
        let id = u64::from_le_bytes(reader.fixed()?);
        let horizon_us = reader.number()?;
        let mut body = reader.part()?;
        let number = find(plan, id, self.numbers.len());
        self.numbers.push(number);
        let Some((number, track)) = number.and_then(|n| Some((n, plan.tracks.get(n)?))) else {
            return Ok(());
        };
        let horizon_us = i64::try_from(horizon_us)
            .ok()
            .filter(|horizon| u128::from(horizon.unsigned_abs()) <= MAX_WINDOW.as_micros())
            .ok_or_else(|| format!("a horizon of {horizon_us} microseconds"))?;
        let Some(slot) = self.kept.get_mut(number).filter(|slot| slot.is_none()) else {
            return Err("a track is there twice".to_owned());
        };
        let mut kept = if body.is_empty() {
            track.empty()
        } else {
            if clock_us == i64::MIN {
                return Err("tiles, but no clock".to_owned());
            }
            let kept = read_track(track, &mut body, track.tile_of(clock_us))?;
            body.finish()?;
            kept
        };
        let newest = track.tile_of(clock_us);
        kept.let_go(track.first_tile(clock_us), newest, track.gone_us(clock_us));
        *slot = Some(kept);
        if horizon_us < track.horizon_us && clock_us != i64::MIN {
            // What the shorter horizon still reached is complete.
            let below = match track.hop_us {
                0 => i64::MAX,
                hop => clock_us.saturating_sub(horizon_us).div_euclid(hop),
            };
            self.late.push(Late {
                track: number,
                after,
                below,
            });
        }
        Ok(())
    }

    fn read_late(&mut self, reader: &mut Reader<'_>, after: u64) -> Result<(), String> {
        for _ in 0..reader.length(self.numbers.len())? {
            let written = self.number(reader)?;
            let late = Late {
                track: written.unwrap_or_default(),
                after: reader.number()?,
                below: reader.signed()?,
            };
            let Some(number) = written else {
                continue;
            };
            if self.late.iter().all(|known| known.track != number) {
                self.late.push(late);
                continue;
            }
            // It lacked its beginning already and is to reach back further now: two gaps. It
            // begins anew.
            if let Some(kept) = self.kept.get_mut(number) {
                *kept = None;
            }
            self.late.retain(|known| known.track != number);
            self.late.push(Late {
                track: number,
                after,
                below: i64::MAX,
            });
        }
        Ok(())
    }

    /// Reads a track's number in the bytes; the one in the plan.
    fn number(&self, reader: &mut Reader<'_>) -> Result<Option<usize>, String> {
        let written = usize::try_from(reader.number()?).unwrap_or(usize::MAX);
        let number = self.numbers.get(written).copied();
        number.ok_or_else(|| format!("track {written} of {}", self.numbers.len()))
    }
}

fn read_pending(
    plan: &Plan,
    numbers: &[Option<usize>],
    reader: &mut Reader<'_>,
) -> Result<Option<Pending>, String> {
    let time_us = reader.signed()?;
    let id_hash = u64::from_le_bytes(reader.fixed()?);
    let mut gives = Vec::new();
    for _ in 0..reader.length(numbers.len())? {
        let written = usize::try_from(reader.number()?).unwrap_or(usize::MAX);
        let value = read_kept(reader)?;
        let group = match reader.byte()? {
            0 => None,
            _ => Some(reader.text(MAX_TEXT_BYTES)?.into()),
        };
        let number = numbers.get(written).copied();
        let number = number.ok_or_else(|| format!("track {written} of {}", numbers.len()))?;
        if let Some((number, track)) = number.and_then(|n| Some((n, plan.tracks.get(n)?))) {
            if !track.kind.takes(&value) {
                return Err("a value has another type than its track".to_owned());
            }
            gives.push(Gives {
                track: number,
                value,
                group,
            });
        }
    }
    gives.sort_by_key(|gives| gives.track);
    Ok((!gives.is_empty()).then_some(Pending {
        time_us,
        id_hash,
        gives,
    }))
}

/// The track with this identity; mostly it is where it was.
fn find(plan: &Plan, id: u64, likely: usize) -> Option<usize> {
    if plan.tracks.get(likely).is_some_and(|track| track.id == id) {
        return Some(likely);
    }
    plan.tracks.iter().position(|track| track.id == id)
}

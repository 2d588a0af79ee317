//! The bytes of one track: its kind, then tile after tile, oldest first, each led by its distance
//! from the one before.

use super::accumulators::{Count, Greatest, Kept, Least, MAX_TEXT_BYTES, Moments, Occurrence, Sum};
use super::distinct::{Distinct, MAX_HASHES};
use super::double::Double;
use super::plan::TrackPlan;
use super::quantile::{Bucket, Buckets, MAX_BUCKETS, MAX_KEY};
use super::registers::{MAX_RANK, REGISTERS};
use super::tiles::{Content, Tile, Tiles, low_bits};
use super::top_k::{Counted, Counts, MAX_VALUES};
use super::track::{Kind, MAX_GROUPS, Track};
use super::varint::{Reader, put, put_float, put_signed, put_text};
use crate::features::value::FeatureType;

type Read<T> = Result<T, String>;

/// No list is longer, unless its bytes are damaged.
const MAX_TILES: usize = 502;

/// Written in place of the number of hashes for a HyperLogLog.
const IS_SKETCH: u64 = MAX_HASHES as u64 + 1;

/// Appends a track that is not empty; `newest` is the tile of the clock.
pub fn put_track(bytes: &mut Vec<u8>, track: &Track, newest: i64) {
    match track {
        Track::Count(tiles) => put_tiles(bytes, tiles, newest, |bytes, count| {
            put(bytes, u64::from(count.0));
        }),
        Track::Sum(tiles) => put_tiles(bytes, tiles, newest, |bytes, tile| {
            put(bytes, u64::from(tile.count));
            put_double(bytes, tile.sum);
        }),
        Track::Moments(tiles) => put_tiles(bytes, tiles, newest, |bytes, tile| {
            put(bytes, u64::from(tile.count));
            put_double(bytes, tile.sum);
            put_double(bytes, tile.squares);
        }),
        Track::Least(tiles) => put_tiles(bytes, tiles, newest, |bytes, least| {
            put_float(bytes, least.0);
        }),
        Track::Greatest(tiles) => put_tiles(bytes, tiles, newest, |bytes, greatest| {
            put_float(bytes, greatest.0);
        }),
        Track::Distinct(tiles) => put_tiles(bytes, tiles, newest, put_distinct),
        Track::Quantile(tiles) => put_tiles(bytes, tiles, newest, put_buckets),
        Track::TopK(tiles) => put_tiles(bytes, tiles, newest, |bytes, tile| {
            put(bytes, tile.list.len() as u64);
            for counted in &tile.list {
                put_text(bytes, &counted.value);
                put(bytes, u64::from(counted.count));
            }
        }),
        Track::First(tiles) => put_tiles(bytes, tiles, newest, put_occurrence),
        Track::Last(last) => {
            if let Some(last) = last {
                put_occurrence(bytes, last);
            }
        }
        Track::LastTime(last) => {
            if let Some(last) = last {
                put_signed(bytes, *last);
            }
        }
        Track::Groups(groups) => {
            put(bytes, groups.len() as u64);
            for (name, track) in groups {
                put_text(bytes, name);
                put_track(bytes, track, newest);
            }
        }
    }
}

fn put_tiles<A: Content>(
    bytes: &mut Vec<u8>,
    tiles: &Tiles<A>,
    newest: i64,
    put_content: impl Fn(&mut Vec<u8>, &A),
) {
    put(bytes, tiles.len() as u64);
    let mut before = None;
    for (tile, content) in tiles.iter(newest) {
        // The oldest is told by its age.
        let step = before.map_or(newest.saturating_sub(tile), |before| tile - before);
        put(bytes, step as u64);
        put_content(bytes, content);
        before = Some(tile);
    }
}

fn put_double(bytes: &mut Vec<u8>, sum: Double) {
    bytes.push(u8::from(sum.low != 0.0));
    put_float(bytes, sum.high);
    if sum.low != 0.0 {
        put_float(bytes, sum.low);
    }
}

fn put_distinct(bytes: &mut Vec<u8>, distinct: &Distinct) {
    match distinct {
        Distinct::Few(hashes) => {
            put(bytes, hashes.len() as u64);
            for hash in hashes {
                bytes.extend_from_slice(&hash.to_le_bytes());
            }
        }
        Distinct::Many(registers) => {
            put(bytes, IS_SKETCH);
            bytes.extend_from_slice(registers.as_slice());
        }
    }
}

fn put_buckets(bytes: &mut Vec<u8>, buckets: &Buckets) {
    put(bytes, buckets.list.len() as u64);
    let mut before = 0;
    for bucket in &buckets.list {
        put_signed(bytes, i64::from(bucket.key) - before);
        put(bytes, u64::from(bucket.count));
        before = i64::from(bucket.key);
    }
}

fn put_occurrence(bytes: &mut Vec<u8>, occurrence: &Occurrence) {
    put_signed(bytes, occurrence.time_us);
    bytes.extend_from_slice(&occurrence.id_hash.to_le_bytes());
    put_kept(bytes, &occurrence.value);
}

/// Appends a value with its type.
pub fn put_kept(bytes: &mut Vec<u8>, value: &Kept) {
    match value {
        Kept::Nothing => bytes.push(0),
        Kept::Number(number) => {
            bytes.push(1);
            put_float(bytes, *number);
        }
        Kept::Integer(integer) => {
            bytes.push(2);
            put_signed(bytes, *integer);
        }
        Kept::Flag(flag) => bytes.push(if *flag { 4 } else { 3 }),
        Kept::Text(text) => {
            bytes.push(5);
            put_text(bytes, text);
        }
    }
}

/// Reads what [`put_track`] wrote of the track `plan`.
pub fn read_track(plan: &TrackPlan, reader: &mut Reader<'_>, newest: i64) -> Read<Track> {
    if !plan.grouped {
        return read_plain(plan.kind, reader, newest);
    }
    let mut groups: Vec<(Box<str>, Track)> = Vec::new();
    for _ in 0..reader.length(MAX_GROUPS + 1)? {
        let name = reader.text(MAX_TEXT_BYTES)?;
        if groups.last().is_some_and(|(last, _)| last.as_ref() >= name) {
            return Err("groups are out of order".to_owned());
        }
        let track = read_plain(plan.kind, reader, newest)?;
        if track.is_empty() {
            return Err("a group is empty".to_owned());
        }
        groups.push((name.into(), track));
    }
    Ok(Track::Groups(groups.into_boxed_slice()))
}

fn read_plain(kind: Kind, reader: &mut Reader<'_>, newest: i64) -> Read<Track> {
    Ok(match kind {
        Kind::Count => Track::Count(read_tiles(reader, newest, |reader| {
            Ok(Count(reader.small()?))
        })?),
        Kind::Sum => Track::Sum(read_tiles(reader, newest, |reader| {
            Ok(Sum {
                count: reader.small()?,
                sum: read_double(reader)?,
            })
        })?),
        Kind::Moments => Track::Moments(read_tiles(reader, newest, |reader| {
            Ok(Moments {
                count: reader.small()?,
                sum: read_double(reader)?,
                squares: read_double(reader)?,
            })
        })?),
        Kind::Least => Track::Least(read_tiles(reader, newest, |reader| {
            Ok(Least(reader.float()?))
        })?),
        Kind::Greatest => Track::Greatest(read_tiles(reader, newest, |reader| {
            Ok(Greatest(reader.float()?))
        })?),
        Kind::Distinct => Track::Distinct(read_tiles(reader, newest, read_distinct)?),
        Kind::Quantile => Track::Quantile(read_tiles(reader, newest, read_buckets)?),
        Kind::TopK => Track::TopK(read_tiles(reader, newest, read_counts)?),
        Kind::First(kind) => Track::First(read_tiles(reader, newest, |reader| {
            read_occurrence(reader, kind)
        })?),
        Kind::Last(kind) => Track::Last(Some(Box::new(read_occurrence(reader, kind)?))),
        Kind::LastTime => Track::LastTime(Some(reader.signed()?)),
    })
}

fn read_tiles<'a, A: Content>(
    reader: &mut Reader<'a>,
    newest: i64,
    read_content: impl Fn(&mut Reader<'a>) -> Read<A>,
) -> Read<Tiles<A>> {
    let count = reader.length(usize::MAX)?;
    let mut tiles = Vec::with_capacity(count.min(MAX_TILES));
    let mut before = None;
    for _ in 0..count {
        let step = i64::from(reader.small()?);
        let tile = match before {
            None => newest.saturating_sub(step),
            Some(before) => step.saturating_add(before),
        };
        let in_order = before.is_none_or(|before| before < tile) && tile <= newest;
        let content = read_content(reader)?;
        if !in_order {
            return Err("tiles are out of order".to_owned());
        }
        let number = low_bits(tile);
        tiles.push(Tile { number, content });
        before = Some(tile);
    }
    Ok(Tiles::of(tiles))
}

fn read_double(reader: &mut Reader<'_>) -> Read<Double> {
    let has_low = reader.byte()? != 0;
    Ok(Double {
        high: reader.float()?,
        low: if has_low { reader.float()? } else { 0.0 },
    })
}

fn read_distinct(reader: &mut Reader<'_>) -> Read<Distinct> {
    let count = reader.number()?;
    if count == IS_SKETCH {
        let bytes = reader.take(REGISTERS)?;
        let mut registers = Box::new([0; REGISTERS]);
        registers.copy_from_slice(bytes);
        if registers.iter().any(|rank| *rank > MAX_RANK) {
            return Err("a register is too high".to_owned());
        }
        return Ok(Distinct::Many(registers));
    }
    if count > IS_SKETCH {
        return Err(format!("{count} hashes, at most {MAX_HASHES} are kept"));
    }
    let mut hashes = Vec::with_capacity(count as usize);
    for _ in 0..count {
        let hash = u64::from_le_bytes(reader.fixed()?);
        if hashes.last().is_some_and(|last| *last >= hash) {
            return Err("hashes are out of order".to_owned());
        }
        hashes.push(hash);
    }
    Ok(Distinct::Few(hashes.into_boxed_slice()))
}

fn read_buckets(reader: &mut Reader<'_>) -> Read<Buckets> {
    let count = reader.length(MAX_BUCKETS)?;
    let mut list: Vec<Bucket> = Vec::with_capacity(count);
    let mut before = 0;
    for _ in 0..count {
        let key = reader.signed()?.saturating_add(before);
        let count = reader.small()?;
        let in_order = list.is_empty() || key > before;
        match i32::try_from(key) {
            Ok(key) if in_order && key.unsigned_abs() <= MAX_KEY => {
                list.push(Bucket { key, count })
            }
            _ => return Err("buckets are out of order".to_owned()),
        }
        before = key;
    }
    Ok(Buckets {
        list: list.into_boxed_slice(),
    })
}

fn read_counts(reader: &mut Reader<'_>) -> Read<Counts> {
    let count = reader.length(MAX_VALUES)?;
    let mut list: Vec<Counted> = Vec::with_capacity(count);
    for _ in 0..count {
        let value = reader.text(MAX_TEXT_BYTES)?;
        if list.last().is_some_and(|last| last.value.as_ref() >= value) {
            return Err("values are out of order".to_owned());
        }
        list.push(Counted {
            value: value.into(),
            count: reader.small()?,
        });
    }
    Ok(Counts {
        list: list.into_boxed_slice(),
    })
}

fn read_occurrence(reader: &mut Reader<'_>, kind: FeatureType) -> Read<Occurrence> {
    let time_us = reader.signed()?;
    let id_hash = u64::from_le_bytes(reader.fixed()?);
    let value = read_kept(reader)?;
    if !value.is_of(kind) {
        return Err("a value has another type than its track".to_owned());
    }
    Ok(Occurrence {
        time_us,
        id_hash,
        value,
    })
}

/// Reads a value with its type.
pub fn read_kept(reader: &mut Reader<'_>) -> Read<Kept> {
    Ok(match reader.byte()? {
        0 => Kept::Nothing,
        1 => Kept::Number(reader.float()?),
        2 => Kept::Integer(reader.signed()?),
        3 => Kept::Flag(false),
        4 => Kept::Flag(true),
        5 => Kept::Text(reader.text(MAX_TEXT_BYTES)?.into()),
        other => return Err(format!("a value of the unknown type {other}")),
    })
}

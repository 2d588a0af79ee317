//! Bodies in gzip and deflate, both ways.
//!
//! A request says `Content-Encoding`, an answer is asked for with `Accept-Encoding`. What is sent
//! compressed is inflated in steps, and each step is held against the same limit as a body that is
//! sent plain: a small body that stands for a large one never takes more memory than the limit. A
//! client's claims of length are not looked at.
//!
//! `deflate` is zlib's format, as the standard has it; the bare stream that some clients send under
//! this name is understood too. Several encodings on top of each other are refused.

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use tokio::sync::Semaphore;

use super::body::SizeLimit;
use super::error::ApiError;
use crate::features::value::shorten;

/// The encodings understood, for messages.
const UNDERSTOOD: &str = "gzip, deflate and identity";

/// What is inflated on the connection's thread, in bytes before and after; more of it goes to a
/// thread of its own.
const MAX_INLINE_COMPRESSED: usize = 16 * 1024;
const MAX_INLINE_INFLATED: usize = 64 * 1024;

/// How many large bodies are inflated at once; further ones wait for their turn.
static LARGE_BODIES: Semaphore = Semaphore::const_new(2);

/// Members of a gzip body. Each costs a fresh state however little it holds, and nothing that cuts
/// a body into blocks of a sensible size comes near.
const MAX_MEMBERS: usize = 10_000;

/// The least that an inflated body grows by.
const MIN_STEP: usize = 16 * 1024;

/// Answers below this many bytes are sent plain: a packet holds them either way.
const MIN_ENCODED: usize = 1024;

/// A windowed stream with gzip's header and trailer, as zlib numbers it.
pub const GZIP_WINDOW_BITS: u8 = 15;

/// An encoding of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    Gzip,
    Deflate,
}

impl Coding {
    /// The name in headers.
    pub fn name(self) -> &'static str {
        match self {
            Coding::Gzip => "gzip",
            Coding::Deflate => "deflate",
        }
    }
}

/// What the request's body is encoded in; `None` when it is sent plain.
///
/// # Errors
/// 415 for an encoding that is not understood, and for several.
pub fn request_coding(headers: &HeaderMap) -> Result<Option<Coding>, ApiError> {
    // The hot path: nearly every request ends here.
    if !headers.contains_key(header::CONTENT_ENCODING) {
        return Ok(None);
    }
    let refuse = |problem: String| {
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        let message = format!("header Content-Encoding: expected {UNDERSTOOD}, found {problem}");
        ApiError::new(status, message)
    };
    let mut coding = None;
    for value in headers.get_all(header::CONTENT_ENCODING) {
        let text = String::from_utf8_lossy(value.as_bytes());
        for name in text.split(',').map(str::trim) {
            let found = match name.to_ascii_lowercase().as_str() {
                "" | "identity" => continue,
                "gzip" | "x-gzip" => Coding::Gzip,
                "deflate" => Coding::Deflate,
                _ => return Err(refuse(format!("{:?}", shorten(name, 40)))),
            };
            if coding.replace(found).is_some() {
                return Err(refuse("several; one of them is understood".to_owned()));
            }
        }
    }
    Ok(coding)
}

/// The body that `compressed` stands for. What takes long leaves the connection's thread.
///
/// # Errors
/// 413 when it is over the limit, 400 when it is damaged or cut off.
pub async fn inflate_body(
    coding: Coding,
    compressed: Bytes,
    limit: SizeLimit,
) -> Result<Bytes, ApiError> {
    let inline = MAX_INLINE_INFLATED.min(limit.bytes());
    if compressed.len() <= MAX_INLINE_COMPRESSED {
        match inflate(coding, &compressed, inline) {
            // It is larger than it looks, but may yet be within the limit: once more, elsewhere.
            Err(Failure::TooLarge) if inline < limit.bytes() => {}
            outcome => return finish(coding, outcome, limit),
        }
    }
    let internal = |problem: String| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, problem);
    let turn = LARGE_BODIES.acquire().await;
    let _turn = turn.map_err(|error| internal(error.to_string()))?;
    let most = limit.bytes();
    let outcome = tokio::task::spawn_blocking(move || inflate(coding, &compressed, most)).await;
    finish(
        coding,
        outcome.map_err(|error| internal(error.to_string()))?,
        limit,
    )
}

fn finish(
    coding: Coding,
    outcome: Result<Vec<u8>, Failure>,
    limit: SizeLimit,
) -> Result<Bytes, ApiError> {
    outcome.map(Bytes::from).map_err(|failure| match failure {
        Failure::TooLarge => limit.exceeded("inflated, it is"),
        Failure::Damaged(problem) => {
            ApiError::bad_request(format!("body: expected {}, found {problem}", coding.name()))
        }
    })
}

/// Why a body cannot be inflated.
#[derive(Debug, PartialEq, Eq)]
enum Failure {
    TooLarge,
    /// What was found instead.
    Damaged(String),
}

/// Inflates to at most `most` bytes.
fn inflate(coding: Coding, compressed: &[u8], most: usize) -> Result<Vec<u8>, Failure> {
    let mut inflated = Vec::new();
    let mut rest = compressed;
    for member in 0.. {
        if member >= MAX_MEMBERS {
            let problem = format!("more than {MAX_MEMBERS} members");
            return Err(Failure::Damaged(problem));
        }
        let state = match coding {
            Coding::Gzip => Decompress::new_gzip(GZIP_WINDOW_BITS),
            Coding::Deflate => Decompress::new(has_zlib_header(rest)),
        };
        let consumed = inflate_stream(state, rest, &mut inflated, most).map_err(|failure| {
            let at = compressed.len() - rest.len();
            match failure {
                Failure::Damaged(problem) if at > 0 => {
                    Failure::Damaged(format!("behind byte {at} {problem}"))
                }
                other => other,
            }
        })?;
        rest = &rest[consumed..];
        if rest.is_empty() {
            break;
        }
        // Files of several members in a row are one gzip body; deflate knows no such thing.
        if coding == Coding::Deflate {
            let problem = format!("{} more bytes behind its end", rest.len());
            return Err(Failure::Damaged(problem));
        }
    }
    Ok(inflated)
}

/// Inflates one stream behind what `inflated` holds; returns how many bytes it took.
fn inflate_stream(
    mut state: Decompress,
    compressed: &[u8],
    inflated: &mut Vec<u8>,
    most: usize,
) -> Result<usize, Failure> {
    loop {
        if inflated.len() == inflated.capacity() {
            // One byte over the limit is enough to know that there is more than the limit.
            let left = (most - inflated.len()).saturating_add(1);
            inflated.reserve_exact(inflated.len().max(MIN_STEP).min(left));
        }
        let rest = &compressed[state.total_in() as usize..];
        let before = (state.total_in(), state.total_out());
        let status = state.decompress_vec(rest, inflated, FlushDecompress::None);
        if inflated.len() > most {
            return Err(Failure::TooLarge);
        }
        let stands_still = before == (state.total_in(), state.total_out());
        match status {
            Ok(Status::StreamEnd) => return Ok(state.total_in() as usize),
            Ok(_) if !stands_still => {}
            Ok(_) => {
                let problem = format!("its end missing after {} bytes", compressed.len());
                return Err(Failure::Damaged(problem));
            }
            Err(error) => {
                let what = error.message().unwrap_or("damaged data");
                let at = state.total_in();
                return Err(Failure::Damaged(format!("at byte {at}: {what}")));
            }
        }
    }
}

/// Whether the first two bytes are those of zlib's format: its method, and a check of both.
pub fn has_zlib_header(bytes: &[u8]) -> bool {
    match bytes {
        [first, second, ..] => {
            first & 0x0f == 8 && u16::from_be_bytes([*first, *second]).is_multiple_of(31)
        }
        // Too short for either; the words are those for the format of the standard.
        _ => true,
    }
}

/// What the answer may be encoded in: the understood encoding that the client likes best.
pub fn accepted_coding(headers: &HeaderMap) -> Option<Coding> {
    let mut best: Option<(Coding, f32)> = None;
    for value in headers.get_all(header::ACCEPT_ENCODING) {
        for item in value.to_str().unwrap_or_default().split(',') {
            let (name, weight) = weighted(item);
            let coding = match name.to_ascii_lowercase().as_str() {
                "gzip" | "x-gzip" => Coding::Gzip,
                "deflate" => Coding::Deflate,
                _ => continue,
            };
            // Of equal weights the first that is named.
            if weight > best.map_or(0.0, |(_, weight)| weight) {
                best = Some((coding, weight));
            }
        }
    }
    best.map(|(coding, _)| coding)
}

/// `gzip;q=0.5` as its name and its weight; a weight that cannot be read is none at all.
fn weighted(item: &str) -> (&str, f32) {
    let mut parts = item.split(';').map(str::trim);
    let name = parts.next().unwrap_or_default();
    let given = parts.find_map(|part| part.strip_prefix("q="));
    let weight = given.map_or(1.0, |digits| digits.trim().parse().unwrap_or(0.0));
    (name, weight)
}

/// An answer's body, encoded as [`accepted_coding`] says where that pays, and what it is encoded in
/// now. Takes time for large bodies: to be called where the inference runs.
pub fn encode(body: Vec<u8>, accepted: Option<Coding>) -> (Vec<u8>, Option<Coding>) {
    let Some(coding) = accepted.filter(|_| body.len() >= MIN_ENCODED) else {
        return (body, None);
    };
    // The fastest level: an answer is sent once, and its client is waiting.
    let level = Compression::fast();
    let mut state = match coding {
        Coding::Gzip => Compress::new_gzip(level, GZIP_WINDOW_BITS),
        Coding::Deflate => Compress::new(level, true),
    };
    let mut encoded = Vec::with_capacity(body.len() / 2);
    loop {
        let rest = &body[state.total_in() as usize..];
        match state.compress_vec(rest, &mut encoded, FlushCompress::Finish) {
            // What does not get smaller is sent as it is.
            _ if encoded.len() >= body.len() => return (body, None),
            Ok(Status::StreamEnd) => return (encoded, Some(coding)),
            Ok(_) => encoded.reserve(body.len() / 2),
            Err(_) => return (body, None),
        }
    }
}

/// Says how an answer is encoded, and that another client may be given another encoding.
pub fn set_headers(headers: &mut HeaderMap<HeaderValue>, coding: Option<Coding>) {
    const ACCEPT_ENCODING: HeaderName = header::ACCEPT_ENCODING;
    headers.append(header::VARY, HeaderValue::from_name(ACCEPT_ENCODING));
    if let Some(coding) = coding {
        let name = HeaderValue::from_static(coding.name());
        headers.insert(header::CONTENT_ENCODING, name);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use flate2::read::{GzDecoder, ZlibDecoder};
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

    use super::*;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(data: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn bare(data: &[u8]) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    /// Bytes that do not compress to nothing.
    fn noise(length: usize) -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(7);
        (0..length).map(|_| random.u8(b'0'..=b'9')).collect()
    }

    #[test]
    fn every_form_is_inflated_to_what_it_was() {
        for length in [0, 1, 100, 16 * 1024, 16 * 1024 + 1, 1 << 20] {
            let data = noise(length);
            for (coding, compressed) in [
                (Coding::Gzip, gzip(&data)),
                (Coding::Deflate, zlib(&data)),
                (Coding::Deflate, bare(&data)),
            ] {
                // Also when it is exactly as large as it may be
                let inflated = inflate(coding, &compressed, length);
                assert!(inflated == Ok(data.clone()), "{coding:?} of {length}");
            }
        }
    }

    #[test]
    fn gzip_members_in_a_row_are_one_body() {
        let members = [gzip(b"one, "), gzip(b""), gzip(b"two")].concat();
        assert_eq!(inflate(Coding::Gzip, &members, 8), Ok(b"one, two".to_vec()));
        assert_eq!(inflate(Coding::Gzip, &members, 7), Err(Failure::TooLarge));
        let many = gzip(b"").repeat(MAX_MEMBERS + 1);
        let failure = inflate(Coding::Gzip, &many, 8);
        assert_eq!(
            failure,
            Err(Failure::Damaged("more than 10000 members".to_owned()))
        );
    }

    #[test]
    fn a_small_body_that_stands_for_a_large_one_takes_no_more_memory_than_the_limit() {
        let bomb = zlib(&vec![0; 64 << 20]);
        assert!(bomb.len() < 1 << 17);
        let mut inflated = Vec::new();
        let outcome = inflate_stream(Decompress::new(true), &bomb, &mut inflated, 100_000);
        assert_eq!(outcome, Err(Failure::TooLarge));
        assert!(
            inflated.capacity() <= 2 * 100_000,
            "{}",
            inflated.capacity()
        );
    }

    #[test]
    fn a_body_cut_off_anywhere_is_refused() {
        let data = noise(300);
        for (coding, whole) in [
            (Coding::Gzip, gzip(&data)),
            (Coding::Deflate, zlib(&data)),
            (Coding::Deflate, bare(&data)),
        ] {
            for length in 0..whole.len() {
                let outcome = inflate(coding, &whole[..length], 1000);
                assert!(
                    matches!(outcome, Err(Failure::Damaged(_))),
                    "{coding:?} {length}: {outcome:?}"
                );
            }
        }
    }

    #[test]
    fn damage_is_found_and_placed() {
        let mut wrong_sum = gzip(b"some text");
        let last = wrong_sum.len() - 8;
        wrong_sum[last] ^= 1;
        for (coding, body, word) in [
            (Coding::Gzip, b"{\"inputs\": []}".to_vec(), "header"),
            (Coding::Gzip, wrong_sum, "check"),
            (
                Coding::Gzip,
                [gzip(b"a"), b"more".to_vec()].concat(),
                "behind byte 2",
            ),
            (
                Coding::Deflate,
                [zlib(b"a"), vec![0]].concat(),
                "1 more bytes",
            ),
            (
                Coding::Deflate,
                [bare(b"a"), vec![0]].concat(),
                "1 more bytes",
            ),
            (Coding::Deflate, b"{\"inputs\": []}".to_vec(), "at byte"),
        ] {
            match inflate(coding, &body, 1000) {
                Err(Failure::Damaged(problem)) => assert!(problem.contains(word), "{problem}"),
                other => panic!("{word}: {other:?}"),
            }
        }
    }

    fn coding_of(values: &[&str]) -> Result<Option<Coding>, ApiError> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::CONTENT_ENCODING, value.parse().unwrap());
        }
        request_coding(&headers)
    }

    #[test]
    fn one_encoding_is_understood_and_any_other_is_refused() {
        for plain in [&[][..], &[""], &["identity"], &["identity, Identity"]] {
            assert_eq!(coding_of(plain).unwrap(), None);
        }
        assert_eq!(coding_of(&["GZip"]).unwrap(), Some(Coding::Gzip));
        assert_eq!(
            coding_of(&["x-gzip, identity"]).unwrap(),
            Some(Coding::Gzip)
        );
        assert_eq!(coding_of(&["deflate"]).unwrap(), Some(Coding::Deflate));
        for wrong in [
            &["br"][..],
            &["zstd"],
            &["gzip, gzip"],
            &["gzip", "deflate"],
        ] {
            assert!(coding_of(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_client_says_what_it_accepts() {
        for (accept, expected) in [
            ("", None),
            ("br, zstd", None),
            ("*", None),
            ("identity", None),
            ("gzip", Some(Coding::Gzip)),
            ("deflate", Some(Coding::Deflate)),
            ("deflate, gzip", Some(Coding::Deflate)),
            ("gzip;q=0.5, deflate;q=0.9", Some(Coding::Deflate)),
            ("gzip; q=0, deflate;q=0.1", Some(Coding::Deflate)),
            ("gzip;q=0", None),
            ("gzip;q=often", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, accept.parse().unwrap());
            assert_eq!(accepted_coding(&headers), expected, "{accept}");
        }
    }

    #[test]
    fn answers_are_encoded_where_it_pays() {
        let data = noise(100_000);
        let (encoded, coding) = encode(data.clone(), Some(Coding::Gzip));
        assert_eq!(coding, Some(Coding::Gzip));
        assert!(encoded.len() < data.len());
        let mut decoded = Vec::new();
        GzDecoder::new(&encoded[..])
            .read_to_end(&mut decoded)
            .unwrap();
        assert!(decoded == data);

        let (encoded, coding) = encode(data.clone(), Some(Coding::Deflate));
        assert_eq!(coding, Some(Coding::Deflate));
        decoded.clear();
        ZlibDecoder::new(&encoded[..])
            .read_to_end(&mut decoded)
            .unwrap();
        assert!(decoded == data);

        // Not when nobody asks, not when it is small, not when it gets no smaller
        assert_eq!(encode(data.clone(), None), (data, None));
        let small = vec![0; MIN_ENCODED - 1];
        assert_eq!(encode(small.clone(), Some(Coding::Gzip)), (small, None));
        let mut random = fastrand::Rng::with_seed(7);
        let random: Vec<u8> = (0..5000).map(|_| random.u8(..)).collect();
        assert_eq!(encode(random.clone(), Some(Coding::Gzip)), (random, None));
    }
}

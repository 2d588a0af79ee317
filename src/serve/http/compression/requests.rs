//! Bodies of requests.
//!
//! What is sent compressed is inflated in steps, and each step is held against the same limit as a body
//! that is sent plain: a small body that stands for a large one never takes more memory than the limit. A
//! client's claims of length are not looked at.

use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, header};
use flate2::{Decompress, FlushDecompress, Status};
use tokio::sync::Semaphore;

use super::{Coding, GZIP_WINDOW_BITS};
use crate::features::value::shorten;
use crate::serve::http::body::SizeLimit;
use crate::serve::http::error::ApiError;

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

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

    use super::*;
    use crate::serve::http::compression::noise;

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
}

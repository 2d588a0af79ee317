//! Bodies of answers: encoded as the client likes best, where that makes them smaller.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use flate2::{Compress, Compression, FlushCompress, Status};

use super::{Coding, GZIP_WINDOW_BITS};

/// Answers below this many bytes are sent plain: a packet holds them either way.
const MIN_ENCODED: usize = 1024;

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
    use std::io::Read;

    use flate2::read::{GzDecoder, ZlibDecoder};

    use super::*;
    use crate::serve::http::compression::noise;

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

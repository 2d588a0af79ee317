//! The bytes of a body as they come, inflated where it is compressed.
//!
//! No more than [`INFLATED_BYTES`] are inflated at a time, so that a small body that stands for a large
//! one is read as slowly as one that is sent plain.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use flate2::{Decompress, FlushDecompress, Status};
use http_body_util::BodyExt;

use super::super::compression::{Coding, GZIP_WINDOW_BITS, has_zlib_header};
use super::super::error::ApiError;
use super::super::leftover::discard;

/// The most that is inflated at a time, in bytes.
const INFLATED_BYTES: usize = 64 * 1024;

/// The bytes of a body.
pub struct ByteSource {
    body: Body,
    is_over: bool,
    inflater: Option<Inflater>,
    /// How long to wait for the next byte.
    patience: Duration,
}

impl ByteSource {
    pub fn new(body: Body, coding: Option<Coding>, patience: Duration) -> ByteSource {
        ByteSource {
            body,
            is_over: false,
            inflater: coding.map(Inflater::new),
            patience,
        }
    }

    /// The next bytes; none at the end. May be dropped while it waits.
    ///
    /// # Errors
    /// When the client stops sending, or sends what cannot be inflated.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        loop {
            if let Some(inflater) = &mut self.inflater {
                let inflated = inflater.next(self.is_over).map_err(|problem| {
                    let coding = inflater.coding.name();
                    ApiError::bad_request(format!("body: expected {coding}, found {problem}"))
                })?;
                if !inflated.is_empty() {
                    return Ok(Some(inflated.into()));
                }
            }
            if self.is_over {
                return Ok(None);
            }
            let frame = tokio::time::timeout(self.patience, self.body.frame()).await;
            let frame = frame.map_err(|_| {
                let patience = self.patience;
                let problem = format!("body: no byte came for {patience:?}");
                ApiError::new(StatusCode::REQUEST_TIMEOUT, problem).closing()
            })?;
            let data = match frame {
                None => {
                    self.is_over = true;
                    continue;
                }
                Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
                Some(Err(error)) => {
                    self.is_over = true;
                    let problem = format!("body: could not be read: {error}");
                    return Err(ApiError::bad_request(problem).closing());
                }
            };
            match &mut self.inflater {
                Some(inflater) => inflater.add(data),
                None if data.is_empty() => {}
                None => return Ok(Some(data)),
            }
        }
    }

    /// Reads what is left and throws it away, within limits; whether that was all of it.
    pub async fn discard(self) -> bool {
        self.is_over || discard(self.body).await
    }
}

/// Inflates step by step.
struct Inflater {
    coding: Coding,
    state: Option<Decompress>,
    /// What is still to be inflated.
    rest: Bytes,
    /// Whether anything was inflated at all.
    has_begun: bool,
}

impl Inflater {
    fn new(coding: Coding) -> Inflater {
        Inflater {
            coding,
            state: None,
            rest: Bytes::new(),
            has_begun: false,
        }
    }

    fn add(&mut self, data: Bytes) {
        // The rest is a byte at most: more is only asked for when everything has been inflated.
        self.rest = match self.rest.is_empty() {
            true => data,
            false => [&self.rest[..], &data[..]].concat().into(),
        };
    }

    /// Some more bytes; none when more has to come first, and at the end.
    fn next(&mut self, is_over: bool) -> Result<Vec<u8>, String> {
        let mut inflated = Vec::new();
        while inflated.is_empty() {
            if self.rest.is_empty() {
                return match (is_over, &self.state) {
                    (true, Some(_)) => Err("its end missing".to_owned()),
                    _ => Ok(inflated),
                };
            }
            let state = match &mut self.state {
                Some(state) => state,
                // Its first two bytes tell which deflate it is.
                None if self.rest.len() < 2 && !is_over => return Ok(inflated),
                // Files of several members in a row are one gzip body; deflate knows no such thing.
                None if self.has_begun && self.coding == Coding::Deflate => {
                    return Err("more bytes behind its end".to_owned());
                }
                None => self.state.insert(match self.coding {
                    Coding::Gzip => Decompress::new_gzip(GZIP_WINDOW_BITS),
                    Coding::Deflate => Decompress::new(has_zlib_header(&self.rest)),
                }),
            };
            self.has_begun = true;
            inflated.reserve_exact(INFLATED_BYTES);
            let before = state.total_in();
            let status = state.decompress_vec(&self.rest, &mut inflated, FlushDecompress::None);
            let taken = usize::try_from(state.total_in() - before).unwrap_or(usize::MAX);
            self.rest = self.rest.split_off(taken.min(self.rest.len()));
            match status {
                Ok(Status::StreamEnd) => self.state = None,
                Ok(_) if taken == 0 && inflated.is_empty() => {
                    return Err("damaged data".to_owned());
                }
                Ok(_) => {}
                Err(error) => {
                    return Err(error.message().unwrap_or("damaged data").to_owned());
                }
            }
        }
        Ok(inflated)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use futures_util::stream;

    use super::*;

    /// A body that comes `step` bytes at a time.
    fn source(bytes: &[u8], step: usize, coding: Option<Coding>) -> ByteSource {
        let parts: Vec<_> = bytes
            .chunks(step)
            .map(|part| Ok::<_, std::io::Error>(Bytes::copy_from_slice(part)))
            .collect();
        let body = Body::from_stream(stream::iter(parts));
        ByteSource::new(body, coding, Duration::from_secs(60))
    }

    async fn all(mut source: ByteSource) -> Result<Vec<u8>, String> {
        let mut all = Vec::new();
        loop {
            match source.next().await {
                Ok(Some(bytes)) => {
                    assert!(!bytes.is_empty() && bytes.len() <= 1 << 20);
                    all.extend_from_slice(&bytes);
                }
                Ok(None) => return Ok(all),
                Err(error) => return Err(error.into_message()),
            }
        }
    }

    #[tokio::test]
    async fn every_form_is_inflated_however_it_is_cut() {
        let data: Vec<u8> = (0..300_000_u32)
            .flat_map(|n| (n / 7).to_le_bytes())
            .collect();
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&data[..400_000]).unwrap();
        let mut members = gzip.finish().unwrap();
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&data[400_000..]).unwrap();
        members.extend(gzip.finish().unwrap());
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
        zlib.write_all(&data).unwrap();
        let mut bare = DeflateEncoder::new(Vec::new(), Compression::fast());
        bare.write_all(&data).unwrap();
        for (bytes, coding) in [
            (data.clone(), None),
            (members, Some(Coding::Gzip)),
            (zlib.finish().unwrap(), Some(Coding::Deflate)),
            (bare.finish().unwrap(), Some(Coding::Deflate)),
        ] {
            for step in [1, 1000, 1 << 20] {
                let found = all(source(&bytes, step, coding)).await.unwrap();
                assert!(found == data, "{coding:?} in steps of {step}");
            }
        }
    }

    #[tokio::test]
    async fn damage_and_a_missing_end_are_said() {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&[7; 1000]).unwrap();
        let whole = gzip.finish().unwrap();
        let cut = all(source(&whole[..whole.len() - 3], 10, Some(Coding::Gzip))).await;
        assert!(cut.unwrap_err().contains("end missing"));
        let wild = all(source(b"certainly not", 5, Some(Coding::Gzip))).await;
        assert!(wild.unwrap_err().contains("expected gzip"));
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
        zlib.write_all(&[7; 1000]).unwrap();
        let mut more = zlib.finish().unwrap();
        more.extend(b"more");
        let behind = all(source(&more, 1 << 20, Some(Coding::Deflate))).await;
        assert!(behind.unwrap_err().contains("behind its end"));
        assert!(
            all(source(b"", 1, Some(Coding::Gzip)))
                .await
                .unwrap()
                .is_empty()
        );
    }
}

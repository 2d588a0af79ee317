//! Bodies in gzip and deflate, both ways.
//!
//! * `requests` – a request says `Content-Encoding`; what it sends is inflated, within its limit.
//! * `answers` – an answer is asked for with `Accept-Encoding`, and encoded where that pays.
//!
//! `deflate` is zlib's format, as the standard has it; the bare stream that some clients send under
//! this name is understood too. Several encodings on top of each other are refused.

mod answers;
mod requests;

pub use self::answers::{accepted_coding, encode, set_headers};
pub use self::requests::{has_zlib_header, inflate_body, request_coding};

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

/// Bytes that do not compress to nothing.
#[cfg(test)]
fn noise(length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(7);
    (0..length).map(|_| random.u8(b'0'..=b'9')).collect()
}

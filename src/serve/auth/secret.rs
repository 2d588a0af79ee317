//! Keys as text, and what is kept of them.
//!
//! A key is `bw_<id>_<secret>`: the id says which key it is and is no secret, the secret is 32 random
//! bytes in hexadecimal. Of the secret only its SHA-256 is kept. A slow hash, as passwords need, would
//! gain nothing: it makes guessing expensive where there is little to guess, and nobody guesses 256
//! random bits, while every request would pay for it.
//!
//! A running server remembers the text of a secret that was shown and was right ([`Known`]), so that it
//! is hashed once and compared from then on: half a microsecond less for every request. It is in
//! memory only, where requests bring it anyway.

use std::sync::OnceLock;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq};

/// What a key begins with, so that scanners for leaked secrets can find it.
const PREFIX: &str = "bw_";

const SECRET_BYTES: usize = 32;

const SECRET_CHARS: usize = 2 * SECRET_BYTES;

/// The longest id, in characters.
const MAX_ID_CHARS: usize = 32;

/// The SHA-256 of a secret.
#[derive(Clone, Copy)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Whether it is the same, in a time that does not depend on how much of it is.
    pub fn same(&self, other: &Digest) -> Choice {
        same_bytes(&self.0, &other.0)
    }
}

/// Compares eight bytes at a time, all of them whatever the first ones are.
fn same_bytes(left: &[u8], right: &[u8]) -> Choice {
    let ((left, left_rest), (right, right_rest)) = (left.as_chunks(), right.as_chunks());
    let words = left.iter().zip(right);
    let same_words = words.map(|(l, r)| u64::from_le_bytes(*l).ct_eq(&u64::from_le_bytes(*r)));
    let same_words = same_words.fold(Choice::from(1), |all, one| all & one);
    left.len().ct_eq(&(right.len())) & same_words & left_rest.ct_eq(right_rest)
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&to_hex(&self.0))
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        let text = String::deserialize(deserializer)?;
        // What was found is not repeated: it may be a secret that somebody put there.
        let expected = "expected 64 hexadecimal digits, the SHA-256 of the secret";
        let bytes = from_hex(text.as_bytes());
        bytes
            .map(Digest)
            .ok_or_else(|| serde::de::Error::custom(expected))
    }
}

/// A new key: the text that is shown once, and what is kept of it.
pub struct NewKey {
    pub text: String,
    pub digest: Digest,
}

/// Makes a new secret for the key `id` from what the operating system gives as random.
///
/// # Errors
/// When it gives nothing.
pub fn new_key(id: &str) -> Result<NewKey, String> {
    let secret: [u8; SECRET_BYTES] = random()?;
    Ok(NewKey {
        text: format!("{PREFIX}{id}_{}", to_hex(&secret)),
        digest: digest_of(&secret),
    })
}

/// A new id of eight characters.
///
/// # Errors
/// When the operating system gives no random bytes.
pub fn new_id() -> Result<String, String> {
    Ok(to_hex(&random::<4>()?))
}

fn random<const N: usize>() -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| format!("the operating system gives no random bytes: {error}"))?;
    Ok(bytes)
}

/// Whether a text can be the id of a key.
pub fn is_id(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (1..=MAX_ID_CHARS).contains(&text.len()) && text.bytes().all(allowed)
}

/// What a caller shows as a key.
pub struct Shown<'a> {
    pub id: &'a str,
    secret: &'a [u8; SECRET_CHARS],
}

/// Takes apart what a caller shows; `None` when it cannot be a key.
pub fn read_key(text: &str) -> Option<Shown<'_>> {
    let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
    let secret = secret.as_bytes().try_into().ok()?;
    Some(Shown { id, secret })
}

impl Shown<'_> {
    /// `None` when the secret is not hexadecimal.
    fn digest(&self) -> Option<Digest> {
        from_hex(self.secret).map(|secret| digest_of(&secret))
    }
}

/// A secret that a server takes.
pub struct Known {
    pub digest: Digest,
    /// Its text, once somebody has shown it.
    text: OnceLock<[u8; SECRET_CHARS]>,
}

impl Known {
    pub fn new(digest: Digest) -> Known {
        Known {
            digest,
            text: OnceLock::new(),
        }
    }

    /// Whether it is what is shown.
    pub fn is(&self, shown: &Shown<'_>) -> bool {
        if let Some(text) = self.text.get()
            && bool::from(same_bytes(text, shown.secret))
        {
            return true;
        }
        let digest = shown.digest();
        let is_same = digest.is_some_and(|digest| digest.same(&self.digest).into());
        if is_same {
            // Another thread may have been first.
            let _ = self.text.set(*shown.secret);
        }
        is_same
    }
}

/// The SHA-256 of a text that is no secret, in hexadecimal.
pub fn text_digest(text: &str) -> String {
    to_hex(&Sha256::digest(text))
}

fn digest_of(secret: &[u8; SECRET_BYTES]) -> Digest {
    Digest(Sha256::digest(secret).into())
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let (pairs, rest) = text.as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

/// Without a table, so that nothing about a secret shows in which memory is touched.
fn digit(character: u8) -> Option<u8> {
    match character {
        b'0'..=b'9' => Some(character - b'0'),
        b'a'..=b'f' => Some(character - b'a' + 10),
        b'A'..=b'F' => Some(character - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_is_read_again_and_matches_what_is_kept_of_it() {
        let id = new_id().unwrap();
        let key = new_key(&id).unwrap();
        let known = Known::new(key.digest);
        let other = new_key(&id).unwrap();
        // More than once: the first time it is hashed, then it is remembered
        for _ in 0..3 {
            let shown = read_key(&key.text).unwrap();
            assert_eq!(shown.id, id);
            assert!(known.is(&shown));
            // And another one has another secret
            assert!(!known.is(&read_key(&other.text).unwrap()));
        }
    }

    #[test]
    fn the_digest_is_the_sha_256_of_the_bytes_and_not_of_the_text() {
        let text = format!("bw_a_{}", "00".repeat(32));
        let digest = read_key(&text).unwrap().digest().unwrap();
        let expected = "66687aadf862bd776c8fc18b8e9f8e20089714856ee233b3902a591d0d5f2925";
        assert_eq!(to_hex(&digest.0), expected);
        let digests: Vec<Digest> = serde_json::from_str(&format!("[{expected:?}]")).unwrap();
        assert!(bool::from(digests[0].same(&digest)));
    }

    #[test]
    fn what_cannot_be_a_key_is_none() {
        let secret = "5a".repeat(32);
        let digest_of_key = |text: &str| read_key(text).and_then(|shown| shown.digest());
        assert!(digest_of_key(&format!("bw_a1_{secret}")).is_some());
        for text in [
            "",
            "bw_",
            "bw_a1",
            "bw_a1_",
            &format!("bw_a1_{}", &secret[..63]),
            &format!("bw_a1_{secret}0"),
            &format!("bw_a1_{}zz", &secret[..62]),
            &format!("BW_a1_{secret}"),
            &format!("bw_a1_x_{secret}"),
        ] {
            assert!(digest_of_key(text).is_none(), "{text}");
        }
    }

    #[test]
    fn bytes_are_the_same_only_if_all_of_them_are() {
        let bytes: Vec<u8> = (0..67).collect();
        for length in 0..bytes.len() {
            let one = &bytes[..length];
            assert!(bool::from(same_bytes(one, one)));
            assert!(!bool::from(same_bytes(one, &bytes[..length + 1])));
            for place in 0..length {
                let mut other = one.to_vec();
                other[place] ^= 1;
                assert!(!bool::from(same_bytes(one, &other)), "{length} {place}");
            }
        }
    }

    #[test]
    fn a_digest_that_is_none_is_refused_and_not_repeated() {
        let refused = serde_json::from_str::<Digest>("\"hunter2\"").err().unwrap();
        let said = refused.to_string();
        assert!(
            said.contains("SHA-256") && !said.contains("hunter2"),
            "{said}"
        );
    }
}

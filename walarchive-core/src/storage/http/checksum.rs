//! What a store says it has stored, next to what was sent.

use std::error::Error as StdError;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::HeaderMap;
use md5::{Digest, Md5};

use super::trouble::find;

/// The store has stored something else than was sent: the object is to be removed, and sent again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the store has stored something else than was sent: {algorithm} {stored}, sent was {sent}")]
pub(super) struct WrongChecksum {
    algorithm: String,
    sent: String,
    stored: String,
}

/// Whether a [`WrongChecksum`] is among the causes of an error.
pub(in super::super) fn wrong_checksum(error: &(dyn StdError + 'static)) -> bool {
    find::<WrongChecksum>(error).is_some()
}

/// Compares `sent` with each checksum that the answer to a successful PUT holds and whose meaning is known.
pub(super) fn compare(asked: &HeaderMap, sent: &[Bytes], answer: &HeaderMap) -> Result<(), WrongChecksum> {
    if sent.iter().all(Bytes::is_empty) {
        return Ok(());
    }
    for header in answer.get_all("x-goog-hash").iter().filter_map(|value| value.to_str().ok()) {
        for hash in header.split(',').map(str::trim) {
            match hash.split_once('=') {
                Some(("crc32c", stored)) => same("CRC-32C", &crc32c(sent), stored)?,
                Some(("md5", stored)) => same("MD5", &md5(sent), stored)?,
                _ => {}
            }
        }
    }
    if let Some(stored) = text(answer, "content-md5") {
        same("MD5", &md5(sent), stored)?;
    }
    for (name, value) in asked.iter().filter(|(name, _)| name.as_str().starts_with("x-amz-checksum-")) {
        let (Ok(value), Some(stored)) = (value.to_str(), text(answer, name.as_str())) else { continue };
        let algorithm = name.as_str().trim_start_matches("x-amz-checksum-");
        // These two say how, not what.
        if !matches!(algorithm, "algorithm" | "type") {
            same(algorithm, value, stored)?;
        }
    }
    Ok(())
}

fn same(algorithm: &str, sent: &str, stored: &str) -> Result<(), WrongChecksum> {
    if sent.trim() == stored.trim() {
        return Ok(());
    }
    // What a store says is printed: not at any length.
    let stored = stored.chars().take(100).collect();
    Err(WrongChecksum { algorithm: algorithm.to_owned(), sent: sent.to_owned(), stored })
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn crc32c(sent: &[Bytes]) -> String {
    let sum = sent.iter().fold(0, |sum, piece| crc32c::crc32c_append(sum, piece));
    STANDARD.encode(sum.to_be_bytes())
}

fn md5(sent: &[Bytes]) -> String {
    let mut hasher = Md5::new();
    for piece in sent {
        hasher.update(piece);
    }
    STANDARD.encode(hasher.finalize())
}
